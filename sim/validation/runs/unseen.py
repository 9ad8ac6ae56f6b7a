"""docs/UNSEEN.md: runs that were written down before they were simulated, and what the first look at them found."""

import csv
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from io import StringIO
from math import sqrt
from pathlib import Path
from statistics import quantiles
from typing import Any

from hwmodels.refused import Refused
from sim.result.markdown import table as markdown
from sim.scenario.shelves import SCENARIOS
from sim.validation.records import CHECKOUT
from sim.validation.runs import page, table, views, words
from sim.validation.runs.outcome import Answer, Outcome
from sim.validation.runs.rows import UNSEEN, Run, asked, read

PAGE = Path("docs", "UNSEEN.md")
FIRST = SCENARIOS / "published" / "unseen_first_look.csv"
"""What the first run of each row said. A row that is in it is never written again."""
FINDINGS = Path(__file__).parent / "unseen.md"
"""How rows were read, where they come from, and what their misses have in common, by hand."""
COLUMNS = (
    "id", "row", "predicted_s", "low_90_s", "high_90_s", "rival_s", "peak_memory_bytes", "fits", "defaults", "refused",
)  # fmt: skip
DIGEST_BYTES, DIGITS = 8, 6
Z_90, DRAWS, SEED = 1.645, 2000, 15
FURTHEST = 20
PROMISED = 0.9
HEAD = """\
# Runs that nobody here had seen

Written by `python -m sim validate --runs scenarios/published/unseen_runs.csv --write`, from what the first run of each
row said (`scenarios/published/unseen_first_look.csv`, which no later run changes). The rows were read and written
down, with what their words mean, before any of them was simulated; the commit that adds them is older than the look.
Nothing is learned on them (`--learn` refuses them), and no price, rule or reading was changed after the look.
"""
SUMS = (
    "rows of", "rows", "ran", "layouts", "median error", "signed", "closed form", "inside 90 %", "too large", "unsaid",
)  # fmt: skip
ROW = (
    "row", "model", "GPUs", "precision", "layout", "measured, s", "first look, s", "error", "90 %", "inside", "rival",
)  # fmt: skip


def blind(run: Run) -> tuple[object, ...]:
    """What a row of the set is known by, whatever it is called in another file."""
    return run.where, run.model, run.gpu, run.gpus, run.step_s


def spared(rows: Iterable[Run]) -> None:
    """Raises Refused where rows that are judged would be learned from."""
    known = {blind(run) for run in read(UNSEEN)} if UNSEEN.is_file() else set()
    if judging := next((run.id for run in rows if run.step_s and blind(run) in known), ""):
        raise Refused(f"--learn: row {judging} is one of {UNSEEN.name}, which judges what is learned; leave it out")


def digests() -> dict[str, str]:
    """Of all that each row of the set says."""
    with UNSEEN.open(encoding="utf-8", newline="") as file:
        return {line["id"]: blake2b("|".join(line.values()).encode(), digest_size=DIGEST_BYTES).hexdigest()
                for line in csv.DictReader(file)}  # fmt: skip


def looked() -> dict[str, dict[str, str]]:
    """What the first look said, by row."""
    if not FIRST.is_file():
        return {}
    with FIRST.open(encoding="utf-8", newline="") as file:
        return {line["id"]: line for line in csv.DictReader(file)}


def first(rows: Sequence[Run]) -> list[Outcome]:
    """The outcomes of the first look, in the order of the rows; those that it did not see are left out."""
    known = looked()
    return [_outcome(run, known[run.id]) for run in asked(rows) if run.id in known]


def _outcome(run: Run, line: Mapping[str, str]) -> Outcome:
    step, low, high, other = (float(line[key]) if line[key] else None for key in COLUMNS[2:6])
    peak = int(line["peak_memory_bytes"]) if line["peak_memory_bytes"] else None
    answer = Answer(step, low, high, {}, peak, line["fits"] != "False", other, line["refused"])
    return Outcome(run, answer, tuple(filter(None, line["defaults"].split("; "))))


def ledger(outcomes: Sequence[Outcome]) -> str:
    """The first look with rows that it has not seen behind it."""
    lines = list(looked().values())
    seen, says = {line["id"] for line in lines}, digests()
    new = (each for each in outcomes if each.run.id not in seen)
    lines += [dict(zip(COLUMNS, _line(each, says[each.run.id]), strict=True)) for each in new]
    out = StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _line(each: Outcome, row: str) -> list[str]:
    answer = each.answer
    times = (answer.step_s, answer.low_s, answer.high_s, answer.rival_s)
    short = ["" if time is None else f"{time:.{DIGITS}g}" for time in times]
    peak = "" if answer.peak_bytes is None else str(answer.peak_bytes)
    fits = "" if answer.step_s is None else str(answer.fits)
    return [each.run.id, row, *short, peak, fits, "; ".join(each.defaults), answer.refused]


def write(rows: Sequence[Run], outcomes: Sequence[Outcome], root: Path = CHECKOUT) -> list[Path]:
    """The first look, where it has not seen all rows, and the page; the paths."""
    FIRST.write_text(ledger(outcomes), encoding="utf-8")
    (root / PAGE).write_text(text(rows), encoding="utf-8")
    return [FIRST, root / PAGE]


def text(rows: Sequence[Run]) -> str:
    """The page."""
    outcomes = first(rows)
    parts = [
        HEAD, _sums([*_by(outcomes, lambda each: each.run.source), ("all", outcomes)]), "", coverage(outcomes),
        "\n## By what is known of the software, the GPU and the model\n", _sums(_kinds(outcomes)),
        "\n## Refused\n", markdown(("rows", "why", "such as"), page.refusals(outcomes)),
        "\n## Furthest off\n", markdown((*table.SHORT, "what is known"), _furthest(outcomes)),
        "\n" + FINDINGS.read_text(encoding="utf-8"), mended(rows),
        "## Every row\n", markdown(ROW, map(_row, outcomes)), "",
    ]  # fmt: skip
    return "\n".join(parts)


def mended(rows: Sequence[Run]) -> str:
    """Rows that say another thing than when they were looked at."""
    known, says = looked(), digests()
    changed = [run.id for run in rows if run.id in known and known[run.id]["row"] != says[run.id]]
    said = f"Rows changed after the look: {', '.join(changed) if changed else 'none'}.\n"
    return f"## Mended\n\n{said}"


def coverage(outcomes: Sequence[Outcome]) -> str:
    """How many lie in the interval, and how sure that is."""
    ran = [each for each in outcomes if each.error is not None]
    inside, rows = sum(each.inside for each in ran), len(outcomes)
    low, high = wilson(inside, len(ran))
    worst, best = resampled(ran)
    ends = wilson(inside, rows)
    kept = "kept" if high >= PROMISED else "not kept"
    return (
        f"**{inside} of {len(ran)} runs lie in the 90 % interval: {inside / len(ran):.0%}** ({low:.0%} to {high:.0%} "
        f"by the binomial, 90 %). Rows of a source are alike: its sources drawn anew give {worst:.0%} to {best:.0%}. "
        f"With {rows - len(ran)} refused rows as misses it is {inside / rows:.0%} ({ends[0]:.0%} to {ends[1]:.0%}); "
        f"nine of ten were promised: on rows that nobody here had seen the promise is {kept}."
    )


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """Ends of the 90 % interval of a share (Wilson's)."""
    if not rows:
        return 0.0, 1.0
    share, spread = hits / rows, Z_90**2 / rows
    half = Z_90 * sqrt(share * (1 - share) / rows + spread / (4 * rows))
    return (share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)


def resampled(ran: Sequence[Outcome]) -> tuple[float, float]:
    """Ends of the 90 % interval of the share inside, sources drawn with replacement."""
    sources = [[each.inside for each in rows] for _, rows in _by(ran, lambda each: each.run.source)]
    draw = random.Random(SEED)
    shares = []
    for _ in range(DRAWS):
        hits = [hit for rows in draw.choices(sources, k=len(sources)) for hit in rows]
        shares.append(sum(hits) / len(hits))
    ends = quantiles(shares, n=20)
    return ends[0], ends[-1]


def _by(outcomes: Iterable[Outcome], what: Callable[[Outcome], str]) -> list[tuple[str, list[Outcome]]]:
    """Groups by what is said of each, in order of appearance."""
    groups: dict[str, list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault(what(each), []).append(each)
    return list(groups.items())


def _kinds(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    known = words.table("families")
    yield from _by(outcomes, lambda each: f"software {'' if each.run.family in known else 'not '}described")
    yield from _by(outcomes, lambda each: "mixtures" if views.mixture(each) else "dense")
    yield from _by(outcomes, lambda each: each.run.gpu)
    few = lambda each: "no recompute said" if "recompute" in each.defaults else "recompute said"
    yield from _by(outcomes, few)


def _sums(groups: Iterable[tuple[str, Sequence[Outcome]]]) -> str:
    """A line a group; see SUMS."""
    return markdown(SUMS, (_sum(table.total(name, len(rows), rows)) for name, rows in groups))


def _sum(part: table.Sum) -> list[str]:
    inside = f"{part.inside} ({part.inside / part.ran:.0%})" if part.ran else ""
    shares = (table.share(part.error, ""), table.share(part.bias, "+"), table.share(part.rival, ""))
    unsaid = "" if part.defaults is None else f"{part.defaults:g}"
    return [part.group, str(part.asked), str(part.ran), str(part.layouts), *shares, inside, str(part.large), unsaid]


def _furthest(outcomes: Sequence[Outcome]) -> Iterator[list[str]]:
    listed: Sequence[Mapping[str, Any]] = words.table("unseen")  # type: ignore[assignment]
    for each in table.worst(outcomes, FURTHEST):
        why = next((said["why"] for said in listed if each.run.id in said["rows"]), "not found")
        yield [*table.line(each), why]


def _row(each: Outcome) -> list[str]:
    """A row, with what was measured and what the first look said."""
    run, answer = each.run, each.answer
    said = [run.id, run.model, f"{run.gpus} x {run.gpu}", run.precision, table.axes(run), f"{run.step_s:.4g}"]
    if answer.step_s is None or answer.low_s is None or answer.high_s is None:
        return [*said, "refused", "", "", "no", ""]
    reach = f"{answer.low_s:.4g} to {answer.high_s:.4g}"
    errors = table.share(each.error, "+"), reach, "yes" if each.inside else "no", table.share(each.rival, "+")
    return [*said, f"{answer.step_s:.4g}", *errors]
