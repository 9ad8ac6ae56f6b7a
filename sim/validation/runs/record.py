"""left_out.json as a record: what runs it was learned on, by which program, written and looked at again."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sim.analysis import left_out
from sim.validation.runs import learn
from sim.validation.runs.outcome import Outcome

PROGRAM = (Path(left_out.__file__), Path(learn.__file__))
"""Files that decide what is learned from errors."""
ABOUT = "what the model leaves out, learned on published runs; python -m sim validate --runs FILE --learn writes it"
DIGEST_BYTES, DIGITS = 16, 4


def digest(*paths: Path) -> str:
    """Of the content of files."""
    return blake2b(b"\0".join(path.read_bytes() for path in paths), digest_size=DIGEST_BYTES).hexdigest()


def record(file: Path, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The content, with its provenance. file: the rows. outcomes: of all that were asked."""
    some = learn.cases(outcomes)
    runs = {"file": file.name, "digest": digest(file), "asked": len(outcomes), "ran": len(some),
            "layouts": len({case.group for case in some})}  # fmt: skip
    return learn.table(some, {"about": ABOUT, "runs": runs, "program": digest(*PROGRAM)})


def text(content: dict[str, Any]) -> str:
    """As it stands in the file: four digits, whatever machine it was learned on."""
    short = json.loads(json.dumps(content), parse_float=lambda number: float(f"{float(number):.{DIGITS}g}"))
    return json.dumps(short, indent=1) + "\n"


def held() -> dict[str, Any]:
    """What ships."""
    content: dict[str, Any] = json.loads(left_out.FILE.read_text(encoding="utf-8"))
    return content


def _rule(kind: str, rule: dict[str, Any]) -> str:
    """How intervals of a kind are made."""
    stretch = ", ".join(f"x{each:.2f} on {stack or 'any stack'}" for stack, each in rule["stretch"].items())
    return (
        f"{kind}: classes by {', '.join(rule['levels'])}; {rule['share']:.0%} of the spread of prices, "
        f"x{rule['unsaid']:g} for each deciding key unsaid, remainders {stretch}"
    )


def kept(content: dict[str, Any]) -> str:
    """Lines on how the promise is kept."""
    judged, (low, high) = content["judged"], learn.PROMISE
    large = {name: hits / rows for name, (rows, hits) in judged["families"].items() if rows >= learn.LARGE}
    few = min(large, key=lambda name: large[name], default="")
    lines = [
        f"learned on {content['runs']['ran']} runs of {content['runs']['layouts']} layouts",
        *(_rule(kind, rule) for kind, rule in content["rules"].items()),
        f"each family judged by the others: {judged['inside']:.1%} inside (promised {low:.0%} to {high:.0%}), "
        f"{judged['inside'] * content['runs']['ran'] / content['runs']['asked']:.1%} where a refused row is a miss",
    ]  # fmt: skip
    if few:
        lines.append(
            f"of families of {learn.LARGE} rows or more at least {large[few]:.0%} ({few}); promised {learn.EACH:.0%}"
        )
    rules, inside = content["apart"]["rules"], content["apart"]["inside"]
    stretch = ", ".join(f"x{rule['stretch']['']:.2f} ({kind})" for kind, rule in rules.items())
    by = ", ".join(f"{share:.0%} of {name}'s" for name, share in inside.items()) or "no runs"
    lines.append(
        f"a stack that no run had: classes by {', '.join(learn.APART)}, remainders {stretch}; each stack judged by the "
        f"others: {by} inside"
    )
    lines.append("half an interval is " + ", ".join(f"x{half:.2f} ({kind})" for kind, half in judged["halves"].items()))
    return "\n".join(lines)
