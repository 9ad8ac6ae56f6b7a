"""The command `schema`: the JSON Schema of a scenario, and the parts of docs/REFERENCE.md that programs write."""

import json
from pathlib import Path

from hwmodels.refused import Refused
from sim.cli import pages
from sim.cli.command import DONE, Parser

PAGE = Path("docs", "REFERENCE.md")


def schema(words: list[str]) -> int:
    """Print the schema, or renew the page in a checkout."""
    from sim.scenario.files import schema

    parser = Parser()
    parser.add_argument("--write", action="store_true")
    if not parser.parse_args(words).write:
        print(json.dumps(schema(), indent=2))
        return DONE
    pages.of_checkout(PAGE)
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return DONE


def renewed(page: str) -> str:
    """The text of the page with the tables that programs make: of scenarios' keys and of result.json's."""
    from sim.campaign.form import WholeForm
    from sim.campaign.rl.form import LearningForm
    from sim.models.form import Form
    from sim.result import figures
    from sim.scenario import reference

    others: dict[str, type[Form]] = {"Campaign": WholeForm, "Reinforcement learning": LearningForm}
    for mark, table in (("keys", reference.keys(others)), ("figures", figures.table())):
        begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise Refused(f"the marks {begin} and {end} are missing", str(PAGE))
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n\n{table}\n{end}{rest.partition(end)[2]}"
    return page
