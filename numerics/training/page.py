"""The page of the FP8 training study (docs/TRAINING.md and its curves), made from the rows that are kept."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from numerics.accuracy.markdown import prose, table
from numerics.training.analysis import EARLY, LOSSES, MARGIN, TURNED, Results, turn
from numerics.training.arms import ARMS, MAIN, ORDERS, SEEDS, SIDE, Arm, behind_plan, plan
from numerics.training.chart import Curve, drawn
from numerics.training.equivalence import power
from numerics.training.study import SPANS

ROOT = Path(__file__).resolve().parents[2]
ROWS = Path(__file__).parent / "runs" / "study.jsonl"
PAGE, CURVES, DIFFERENCES = (ROOT / "docs" / name for name in ("TRAINING.md", "training.svg", "training_gaps.svg"))
ENOUGH = 0.8
"""Power that is usually asked of a study."""
COLOURS = {"bf16": "#5d6b7a", "null": "#e69f00", "fp8": "#3d4a8a"}

HEAD = """
Made by `python -m numerics study training --write` from `numerics/training/runs/study.jsonl`, a line a run, each
written by `{command}` on {device} (driver {driver}, torch {torch}, Triton {triton}, {date}, code of {commit}). Corpus:
{corpus}.

The model has DeepSeek-V3's parts at {parameters:.1f} M parameters (numerics/training/runs/study.yaml: MLA,
{experts} routed experts of which {chosen} serve a token, balanced by bias; no prediction module); each run is one pass
over {tokens:.1f} M tokens in {steps:,} steps. Arms of a seed share weights, data and order to the bit. *null* is BF16
again with every weight one ulp of FP32 away: what it differs by is chaos alone, and no recipe can be told from BF16
more finely than that.
"""
VERDICT = """
The loss of the last fifth, FP8 beside BF16 in {pairs} pairs: {gap:+.2f} % in the mean ({low:+.2f} to {high:+.2f} %
with 90 % confidence), and the null {null:+.2f} % ({null_low:+.2f} to {null_high:+.2f} %). Against a margin of
{margin} % (the report's own "below 0.25 %", arXiv 2412.19437 sec 3.3) the verdict is **{verdict}**: p = {p:.2f} for the
two one-sided tests. A pair of nulls scatters by {spread:.2f} %, so {pairs} pairs would find a recipe that truly is
BF16's equal within the margin in {power:.0%} of studies{enough}.

Why: every run falls in two slow stretches with a quick turn between them, to below {turned:g} nats, which comes at
{first:.0f} to {last:.0f} % of the run. When it comes is chaos: an ulp moves it by up to {moved:.0f} % of a run within a
pair, and while one run of a pair has turned and the other has not, they are up to a quarter of their loss apart. The
last fifth still carries that.

Before any run turns ({start:.0f} to {end:.0f} % of it, a window chosen after the curves had been seen, so a hint and
not a test), pairs are close: the null {early_null:+.2f} % ({early_null_low:+.2f} to {early_null_high:+.2f} %), FP8
{early:+.2f} % ({early_low:+.2f} to {early_high:+.2f} %), with a power of {early_power:.0%}: FP8 costs something there,
about {early:.2f} % of the loss, and whether that is within the margin hangs on the window's ends.
"""
BEHIND = """
All runs begin from the end of one BF16 run, with its weights alone: another order of the data, and moments, rate and
schedule from their beginning. Arms, part of the run and margin are those planned for the first study, before any run of
this one was seen. Made by `{command}` on {date} (driver {driver}, Triton {triton}, code of {commit}).

The loss of the last fifth, FP8 beside BF16 in {pairs} orders: {gap:+.2f} % in the mean ({low:+.2f} to {high:+.2f} %
with 90 % confidence), and the null {null:+.2f} % ({null_low:+.2f} to {null_high:+.2f} %). Within a margin of {margin} %
the verdict is **{verdict}**: p = {p:.1g} for the two one-sided tests, and with a null that scatters by {spread:.2f} % a
recipe that truly is BF16's equal would be found so in {power:.0%} of studies.
{effect} Held out: {held:+.2f} % ({held_low:+.2f} to {held_high:+.2f} %), the null {held_null:+.2f} %. The pairs share
one start: the interval speaks of other orders of this data from these weights, not of other models.
"""
COST = """
FP8 has a cost here all the same: zero lies outside its interval, and it is there in the first fiftieth of a run
({first:+.2f} %, the null {first_null:+.2f} %), before runs could part.
"""
BEHIND_SIDE = """
Each side arm in the first order, beside the arm it changes one thing of. Chaos alone moves such a pair by up to
{chaos:.2f} % (95 in 100): {apart}. MaxVio (see below) by batch over the last fifth; FP8's is {fp8}.
"""
CANNOT = """
- **Nothing about 300 B tokens.** V3's authors compared 16 B and 230 B parameters over 1.33 T and 0.9 T tokens (app.
  B.1) and saw a recipe diverge only late (128x128 gradients, app. B.2). Here a run is 60 M tokens.
- **Nothing about what prediction modules are worth**, nor that drafts are accepted in 85 to 90 % of cases (sec 5.4.3):
  they are off.
- **Little about a first pass.** There the null alone moves the last fifth by more than any recipe is said to: many more
  seeds would be needed. Behind the turn it can be told, for one start.
- **A side arm is one run.** It is told from its neighbour only where it lies outside what chaos makes of one pair.
- **Emulated recipes** round operands as the recipe says and multiply in BF16 (numerics/layers/emulated.py): not the
  tensor core's sums. *no promotion* runs on the card's own FP8 instructions, but over 64 to 1,024 elements (and 32,768
  tokens, for weights); what promotion buys shows in longer sums of one sign (`numerics study accumulation`).
"""


def write() -> None:
    """Page and drawings."""
    results = Results(rows())
    PAGE.write_text(page(results), encoding="utf-8")
    for file, text in drawings(results).items():
        file.write_text(text, encoding="utf-8")


def rows(file: Path = ROWS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def page(results: Results) -> str:
    """The Markdown."""
    return "\n\n".join([
        "# FP8 beside BF16 in training: what this scale shows", _head(results),
        "## The verdict", _verdict(results),
        "![Loss by tokens](training.svg)", "![Gap to BF16 of the same seed by tokens](training_gaps.svg)",
        _main(results),
        "## Behind the turn", _behind(results.behind),
        "## Side arms, one seed", _side(results),
        "## One gradient, without chaos", _gradients(results),
        "## Experts' load", _loads(results),
        "## Time of a step", _times(results),
        "## What this cannot show", CANNOT.strip(),
        "## Not run yet", _missing(results),
    ]) + "\n"  # fmt: skip


def _head(results: Results) -> str:
    about, one = results.of("about")[0], results.of("run")[0]
    keys = ("command", "driver", "triton", "date", "commit", "corpus")
    text = prose(
        HEAD, **{key: about[key] for key in keys}, device=one["device"], torch=one["torch"], experts=32, chosen=4,
        parameters=one["parameters"] / 1e6, tokens=one["tokens"] / 1e6, steps=one["steps"],
    )  # fmt: skip
    return "\n\n".join([text, *(_later(*session) for session in results.later())])


def _later(number: int, about: dict[str, Any], rows_: list[dict[str, Any]]) -> str:
    """What a later session's rows were made with: a run of other code is no pair of an earlier one's."""
    what = {"run": "runs", "behind": "runs behind the turn", "time": "times of a step", "gradient": "gradients"}
    counts = Counter(row["kind"] for row in rows_)
    text = """
    Session {number}: {parts}, by `{command}` on {device} (driver {driver}, torch {torch}, Triton {triton}, {date}, code
    of {commit}). What is of this session says so; figures of two sessions are of two programs.
    """
    made = {key: about[key] for key in ("command", "date", "driver", "triton")}
    return prose(
        text, number=number, commit=_code(about), **made,
        parts=", ".join(f"{counts[kind]} {words}" for kind, words in what.items() if counts[kind]) or "nothing",
        device=rows_[0]["device"] if rows_ else "none", torch=rows_[0]["torch"] if rows_ else "none",
    )  # fmt: skip


def _code(about: dict[str, Any]) -> str:
    """The commit, or the digest of the sources where no repository was at hand."""
    return str(about.get("commit") or f"digest {about['code']}")


def _session(results: Results, row: dict[str, Any]) -> str:
    """A later session, to be set behind a name."""
    number = results.session(row)
    return f" (session {number})" if number else ""


def _verdict(results: Results) -> str:
    fp8, null = (results.paired(arm, "last fifth") for arm in ("fp8", "null"))
    early, early_null = (results.paired(arm, "early") for arm in ("fp8", "null"))
    turns = [at for (arm, _), row in results.runs.items() if arm in COLOURS and (at := turn(row)) is not None]
    moved = max(abs((turn(results.runs["null", s]) or 100) - (turn(results.runs["bf16", s]) or 100))
                for s in results.seeds("null"))  # fmt: skip
    low, high, null_low, null_high = *fp8.interval(0.9), *null.interval(0.9)
    ends, null_ends = early.interval(0.9), early_null.interval(0.9)
    strength = power(null.deviation, len(null.differences), MARGIN)
    return prose(
        VERDICT, enough="" if strength > ENOUGH else ": this one could hardly have found it",
        pairs=len(fp8.differences), gap=fp8.mean, low=low, high=high, null=null.mean, null_low=null_low,
        null_high=null_high, margin=MARGIN, verdict=fp8.verdict(MARGIN), p=fp8.p(MARGIN), spread=null.deviation,
        power=strength, turned=TURNED, first=min(turns), last=max(turns),
        moved=moved, start=100 * EARLY[0] / SPANS, end=100 * EARLY[1] / SPANS, early=early.mean, early_low=ends[0],
        early_high=ends[1], early_null=early_null.mean, early_null_low=null_ends[0], early_null_high=null_ends[1],
        early_power=power(early_null.deviation, len(early_null.differences), MARGIN),
    )  # fmt: skip


def _main(results: Results, pair: str = "seed") -> str:
    def lines() -> Iterator[list[str]]:
        for seed in results.seeds("bf16"):
            for arm in COLOURS:
                row = results.runs[arm, seed]
                gaps = [f"{100 * (LOSSES[part](row) / LOSSES[part](results.runs['bf16', seed]) - 1):+.2f}"
                        for part in ("early", "last fifth", "held out")]  # fmt: skip
                at = turn(row)
                name = f"{arm}, {pair} {seed}{_session(results, row)}"
                yield [name, f"{row['last_fifth']:.4f}", f"{row['held']['loss']:.4f}",
                       "never" if at is None else f"{at:.0f}", *(gaps if arm != "bf16" else ["", "", ""])]  # fmt: skip

    head = "run | last fifth, nats | held out, nats | turns at, % | early gap, % | last-fifth gap, % | held-out gap, %"
    return table(head, lines())


def _behind(results: Results) -> str:
    if not results.runs:
        text = """
        Not run: no device time was left. `python -m numerics study training --behind` trains one BF16 run to its end,
        begins the main arms from there in four new orders of the data (six minutes), and would have the null's spread
        of two runs that are on the same side of the turn.
        """
        return prose(text)
    sides = [arm for arm in SIDE if (arm.name, ORDERS) in results.runs]
    parts = [_behind_verdict(results), _main(results, "order")]
    if sides:
        chaos = results.chaos("last fifth")
        apart = [arm.name for arm in sides if abs(_gap(results, arm, ORDERS, "last fifth")) > chaos]
        outside = f"outside of it: {', '.join(apart)}" if apart else "none lies outside of it"
        loads = f"{mean(results.runs['fp8', ORDERS]['maxvio']):.2f}"
        head = "arm | against | last fifth, nats | gap, % | held-out gap, % | MaxVio | what it is"
        parts += [prose(BEHIND_SIDE, chaos=chaos, apart=outside, fp8=loads), table(head, _sides_behind(results))]
    return "\n\n".join(parts)


def _behind_verdict(results: Results) -> str:
    (fp8, null), (held, held_null) = (
        [results.paired(arm, part) for arm in ("fp8", "null")] for part in ("last fifth", "held out")
    )
    (low, high), (null_low, null_high), held_ends = fp8.interval(0.9), null.interval(0.9), held.interval(0.9)
    first, first_null = (results.paired(arm, "first").mean for arm in ("fp8", "null"))
    about = results.of("about behind")[0]
    made = {key: about[key] for key in ("command", "date", "driver", "triton")} | {"commit": _code(about)}
    effect = COST.format(first=first, first_null=first_null) if low > 0 else ""
    return prose(
        BEHIND, **made, effect=effect, pairs=len(fp8.differences), gap=fp8.mean, low=low, high=high,
        null=null.mean, null_low=null_low, null_high=null_high, margin=MARGIN, verdict=fp8.verdict(MARGIN),
        p=fp8.p(MARGIN), spread=null.deviation, power=power(null.deviation, len(null.differences), MARGIN),
        held=held.mean, held_low=held_ends[0], held_high=held_ends[1], held_null=held_null.mean,
    )  # fmt: skip


def _gap(results: Results, arm: Arm, seed: int, part: str) -> float:
    """Percent by which a side arm's loss is above the arm it is compared with."""
    loss = LOSSES[part]
    return 100 * (loss(results.runs[arm.name, seed]) / loss(results.runs[arm.against, seed]) - 1)


def _sides(results: Results, seed: int, second: str) -> Iterator[list[str]]:
    """A line of each side arm that ran: its gap in the last fifth, and in a second part of the run."""
    for arm in SIDE:
        if (arm.name, seed) in results.runs:
            gaps = (f"{_gap(results, arm, seed, part):+.2f}" for part in ("last fifth", second))
            row, beside = results.runs[arm.name, seed], results.runs[arm.against, seed]
            names = arm.name + _session(results, row), arm.against + _session(results, beside)
            yield [*names, f"{row['last_fifth']:.4f}", *gaps, arm.note]


def _sides_behind(results: Results) -> Iterator[list[str]]:
    """The same behind the turn, with the unevenness of experts in front of the note."""
    for name, *cells, note in _sides(results, ORDERS, "held out"):
        yield [name, *cells, f"{mean(results.runs[name.split(' (session')[0], ORDERS]['maxvio']):.2f}", note]


def _side(results: Results) -> str:
    chaos = results.chaos("last fifth"), results.chaos("early")
    text = "Chaos alone moves one pair by up to {0:.1f} % in the last fifth and {1:.2f} % early (95 in 100)."
    head = "arm | against | last fifth, nats | gap, % | early gap, % | what it is"
    return f"{text.format(*chaos)}\n\n{table(head, _sides(results, 0, 'early'))}"


def _gradients(results: Results) -> str:
    listed = results.of("gradient")
    steps = sorted({row["step"] for row in listed})
    at = {(row["recipe"], row["step"]): row["figures"]["all"] for row in listed}
    recipes = list(dict.fromkeys(row["recipe"] for row in listed))
    text = """
    The gradient of 8,192 held-out tokens at weights of the first BF16 run, against FP32's: signal to noise in dB (and
    one minus the cosine, in thousandths). Same weights, same tokens, one backward pass: no chaos in it. What FP8 adds
    is noise, {least:.0f} to {most:.0f} times the energy of what BF16 adds; recipes differ by far less than that until
    late, when a scale a tensor falls behind.
    """
    lines = ([name, *(f"{at[name, s][1]:.1f} ({1e3 * (1 - at[name, s][0]):.2f})" for s in steps)] for name in recipes)
    ratios = [10 ** ((at["bf16", s][1] - at["fp8", s][1]) / 10) for s in steps]
    text = prose(text, least=min(ratios), most=max(ratios))
    return text + "\n\n" + table(f"recipe | {' | '.join(f'step {s:,}' for s in steps)}", lines)


def _loads(results: Results) -> str:
    lines = []
    for name in ARMS:
        rows_ = [results.runs[name, seed] for seed in results.seeds(name)]
        if rows_:
            batch = mean(mean(row["maxvio"]) for row in rows_)
            lines.append([name, f"{batch:.2f}", f"{mean(mean(row['held']['maxvio']) for row in rows_):.2f}"])
    text = """
    MaxVio (arXiv 2408.15664): by how much of the mean the fullest expert lies above it, mean of the mixture layers and
    seeds; by batch over the last fifth, and globally over all held-out tokens.
    """
    return prose(text) + "\n\n" + table("arm | by batch | globally", lines)


def _times(results: Results) -> str:
    listed = results.of("time")
    lines = [
        [f"{row['model']} ({row['parameters'] / 1e6:.0f} M){_session(results, row)}", row["precision"],
         "yes" if row["recompute"] else "no",
         f"{row['step_ms']:.1f}", f"{row['tokens_s'] / 1e6:.2f}", f"{row['busy']:.0%}"]
        for row in listed
    ]  # fmt: skip
    last = results.session(listed[-1])
    speeds = {(row["model"], row["precision"]): row["step_ms"]
              for row in listed if row["recompute"] and results.session(row) == last}  # fmt: skip
    ratios = [speeds[model, "bf16"] / speeds[model, "fp8"] for model, precision in speeds if precision == "fp8"]
    slower = ": at these widths casts cost more than products save"
    text = f"""
    Whole steps of 32,768 tokens as CUDA graphs, one measurement of 60 steps each; busy: kernels' times by the profiler
    over the step. With recomputation in both, FP8 reaches {" and ".join(f"{ratio:.2f}" for ratio in ratios)} of BF16's
    speed{f" (session {last})" if last else ""}{slower if max(ratios) < 1 else ""}.
    """
    return prose(text) + "\n\n" + table("model | precision | recompute | ms a step | M tokens/s | GPU busy", lines)


def _missing(results: Results) -> str:
    behind = results.behind.runs
    names = [f"{arm.name} (seed {seed})" for arm, seed in plan() if (arm.name, seed) not in results.runs]
    if behind:
        orders = [(arm.name, seed) for arm, seed in behind_plan() if (arm.name, seed) not in behind]
        names += [f"{name} behind the turn (order {seed})" for name, seed in orders]
    text = "All arms ran." if not names else f"No device time was left for: {', '.join(names)}."
    more = """
    `python -m numerics study training --corpus CORPUS --out DIR` runs what the kept rows lack (`--behind`: behind the
    turn) and begins no run that would not end in the seconds given; `--times` measures steps again. Rows join by
    putting the lines of DIR/rows.jsonl, "about" first, at the end of those that are kept.
    """
    return prose(f"{text} {more}")


def drawings(results: Results) -> dict[Path, str]:
    """The curves of the main arms, and their gaps to BF16."""
    one = results.of("run")[0]
    end = round(one["tokens"] / 1e6)
    chosen = [(arm, seed) for arm, seed in results.runs if arm in COLOURS]
    losses = [Curve(arm, results.runs[arm, seed]["losses"], COLOURS[arm]) for arm, seed in chosen]
    gaps = [
        Curve(arm, [100 * (a / b - 1) for a, b in
                    zip(results.runs[arm, seed]["losses"], results.runs["bf16", seed]["losses"], strict=True)],
              COLOURS[arm])
        for arm, seed in chosen if arm != "bf16"
    ]  # fmt: skip
    return {
        CURVES: drawn(f"Loss of {SEEDS} seeds and {len(MAIN)} arms", "nats a token", "M tokens", end, 1, 5, losses),
        DIFFERENCES: drawn("Gap to BF16 of the same seed (cut at 5 %)", "percent", "M tokens", end, -5, 5, gaps),
    }
