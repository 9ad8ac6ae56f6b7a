"""What the documents say is what the programs print."""

import re
from pathlib import Path

from sim import validate

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_in_the_readme_is_what_validate_prints() -> None:
    """Fails when a prediction moves: then update the README and add a PREDICTION line to the changelog."""
    shown = README.split("<!-- validate -->\n")[1].split("\n<!-- /validate -->")[0]
    assert shown == validate.markdown(validate.compare())


def test_the_changelog_has_the_prediction() -> None:
    rows = {row.id: row for row in validate.compare()}
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.search(r"PREDICTION: .*?step ([\d.]+) s.*?layers ([\d.]+) ms", text)
    assert latest
    assert (latest[1], latest[2]) == (f"{rows['step'].predicted:.2f}", f"{rows['pair'].predicted:.1f}")


def test_every_linked_file_exists() -> None:
    for page in ("README.md", "ARCHITECTURE.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), target


def test_every_scenario_named_in_the_readme_exists() -> None:
    for path in re.findall(r"scenarios/\w+\.yaml", README):
        assert (ROOT / path).exists(), path
