"""left_out.json as a record: what runs it was learned on, by which program, written and looked at again."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from math import exp
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


FACTORS = {
    "mixture": "a mixture",
    "unsaid": "each deciding key that is not said",
    "untimed": "a dense model's untimed blocks",
}
"""Feature -> what of a run makes it one more (`left_out.FEATURES`, but for the MFU)."""


def factors(content: dict[str, Any]) -> str:
    """What makes the second part wider, in words."""
    scale = content["scale"]
    said = [f"x{exp(scale[name]):.2f} for {words}" for name, words in FACTORS.items()]
    return ", ".join([*said, f"x{2 ** scale['short']:.2f} for each halving of the MFU below {left_out.HALF:.0%}"])


def kept(content: dict[str, Any]) -> str:
    """Lines on how the promise is kept."""
    judged, unseen, (low, high) = content["judged"], content["unseen"], learn.PROMISE
    stretch = ", ".join(f"x{each:.2f} on {stack or 'any other stack'}" for stack, each in content["stretch"].items())
    by = ", ".join(f"{share:.0%} of {name}'s" for name, share in content["stacks"].items()) or "no runs"
    lines = [
        f"learned on {content['runs']['ran']} runs of {content['runs']['layouts']} layouts",
        f"{content['share']:.0%} of the spread of prices; what is left out is {factors(content)}",
        f"stretched {stretch}; each stack judged by the others: {by} inside",
        f"each family judged by the others: {judged['inside']:.1%} inside (promised {low:.0%} to {high:.0%}), "
        f"{judged['inside'] * content['runs']['ran'] / content['runs']['asked']:.1%} where a refused row is a miss"
        f"{_least(judged, f'; promised {learn.EACH:.0%}')}",
        f"with reach and stretch too by the others alone {unseen['inside']:.1%}{_least(unseen, '')}",
        "half an interval is " + ", ".join(f"x{half:.2f} ({kind})" for kind, half in judged["halves"].items()),
    ]  # fmt: skip
    return "\n".join(lines)


def _least(judged: dict[str, Any], promised: str) -> str:
    """Of large families the one with the smallest part inside; nothing where there is none."""
    large = {name: hits / rows for name, (rows, hits) in judged["families"].items() if rows >= learn.LARGE}
    few = min(large, key=lambda name: large[name], default="")
    said = f", of families of {learn.LARGE} rows or more at least {large[few]:.0%} ({few}{promised})" if few else ""
    return said
