"""Two runs compared: figures with the interval of their difference, and what makes it, to the nanosecond.

The draws of both runs are paired: prices that rest on the same thing are as wrong in both, and so is most of what the
model leaves out of runs of one class. What both share falls out of the difference.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from math import log
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S
from sim.analysis import uncertainty
from sim.experiments import kinds
from sim.experiments.contrast import contrasted
from sim.experiments.kind import Kind, Ran
from sim.experiments.waterfall import causes
from sim.result import Result
from sim.result.comparison import Change, Comparison, Key
from sim.result.folder import MARK
from sim.scenario.files import load
from sim.scenario.values import Scenario
from sim.simulation import run

Floats = npt.NDArray[np.float64]
PARTED = 0.029
"""Variance of the logarithm of a ratio of two steps of one class, for each part of the step that lies elsewhere in one
than in the other: times that differ are wrong independently, so their variances add, and times that do not differ are
as wrong in both.

Of 21 pairs of published runs that differ in one thing (docs/RUNS.md, "Pairs that differ in one thing") the squared
errors of the ratio added up to 0.0776 and the changes themselves, as logarithms, to 2.70: 0.0776 / 2.70. Today they
come to 0.0418 and 2.56, since causes were read off some of these pairs; the larger figure stands, for changes below 6 %
are off by more than either says (0.0015 of 0.0006, noise of two measured runs included), larger ones 0.0023 of 0.0053.
Runs of different classes are taken to share nothing (strong scaling there is off by as much as 1.39 times)."""
REACH = NormalDist().inv_cdf(0.95)
"""Standard deviations from the middle to an end of a 90 % interval."""
SCENARIO_FILE = "scenario.yaml"
"""Of a run's folder."""
FIGURES = (
    ("step_time_s", "Step time", "seconds", 1), ("tokens_per_day", "Tokens a day", "tokens", -1),
    ("gpu_hours_per_trillion_tokens", "GPU-hours a trillion", "number", 1),
    ("tflops_per_gpu.causal", "TFLOP/s, causal", "number", -1), ("mfu.causal", "MFU, causal", "share", -1),
    ("bubble_fraction", "Bubble", "share", 0), ("exposed_communication_s", "Exposed comm.", "seconds", 0),
    ("overlap_fraction", "Comm. hidden", "share", 0),
    ("worst_memory.peak_bytes", "Peak memory", "bytes", 0), ("gpus", "GPUs", "number", 0),
)  # fmt: skip
"""Key of result.json, its name, unit, and the power of the step that it goes with; 0: it has no interval of its own."""


Words = Sequence[str]
Hear = Callable[[str, str], None]
STEP = "a training step"
"""What a scenario is of without a key that tells another kind."""


def silent(letter: str, title: str) -> None:
    """Hears nothing."""


def compare(
    a: Any, b: Any, overrides: tuple[Words, Words] = ((), ()), interval: bool = True, hear: Hear = silent
) -> Comparison:
    """Two scenarios of one kind (whatever `source` takes), simulated and compared. overrides: of either. interval: with
    90 % intervals. hear: hears which one is simulated. Raises Refused."""
    which = [_kind(each) for each in (a, b)]
    called = [STEP if own is None else own.called for own in which]
    if called[0] != called[1]:
        raise Refused(f"A is {called[0]} and B {called[1]}; two runs of one kind are compared")
    if which[0] is not None:
        return _of_kind(which[0], (a, b), overrides, interval, hear)
    scenarios = [scenario(what, words) for what, words in zip((a, b), overrides, strict=True)]
    runs = []
    for letter, what, each in zip("AB", (a, b), scenarios, strict=True):
        hear(letter, each.title)
        with _laid(what):
            runs.append(simulated(each, interval, scenarios[0].seed))
    return compared(runs[0], runs[1], *(line for pair in zip((a, b), runs, strict=True) for line in stale(*pair)))


def _kind(what: Any) -> Kind | None:
    return None if isinstance(what, Scenario | Result) else kinds.of(source(what))


def _of_kind(
    own: Kind, sides: tuple[Any, Any], overrides: tuple[Words, Words], interval: bool, hear: Hear
) -> Comparison:  # fmt: skip
    values = [kinds.load(source(what), words) for what, words in zip(sides, overrides, strict=True)]
    ran, drawn = list[Ran](), list[Mapping[str, Floats]]()
    for letter, what, each in zip("AB", sides, values, strict=True):
        hear(letter, kinds.title(each))
        with _laid(what):
            ran.append(own.run(each))
            drawn.append(own.drawn(each) if own.drawn and interval else {})
    a, b = ran
    written = [kinds.content(source(what), words) for what, words in zip(sides, overrides, strict=True)]
    keys = _as_written(differing(a.scenario, b.scenario), *written)
    return contrasted(own, a, b, keys, drawn=(drawn[0], drawn[1]))


def _as_written(keys: Iterable[Key], a: Any, b: Any) -> Iterator[Key]:
    """Keys with what files and overrides say of them, units too, where they do."""
    one, two = dict(_flat(a)), dict(_flat(b))
    for key in keys:
        yield Key(key.key, one.get(key.key, key.a), two.get(key.key, key.b))


@contextmanager
def _laid(what: Any) -> Iterator[None]:
    """Inside it, what a run refuses is laid to the file that it is of, in one line."""
    try:
        yield
    except Refused as refused:
        place = str(what) if isinstance(what, str | Path) else ""
        raise Refused(" ".join(str(refused).split()), place) from None


def scenario(what: Any, overrides: Words = ()) -> Scenario:
    """As `load`; of the folder of a run or of its Result too. Raises Refused."""
    return load(source(what), overrides)


def source(what: Any) -> Any:
    """What can be loaded: of the folder of a run its scenario, of a Result the one that it is of. Raises Refused."""
    if isinstance(what, Result):
        return what.scenario
    place = folder(what)
    if place is None:
        return what
    if not all((place / name).is_file() for name in (MARK, SCENARIO_FILE)):
        raise Refused(f"is a folder without a run; expected {MARK} and {SCENARIO_FILE} in it", str(place))
    return place / SCENARIO_FILE


def folder(what: Any) -> Path | None:
    """The folder that is meant, if one is."""
    return Path(what) if isinstance(what, str | Path) and Path(what).is_dir() else None


def simulated(scenario: Scenario, interval: bool, seed: int) -> Result:
    """A run of which nothing is drawn. seed: of the draws of prices."""
    return run(replace(scenario, outputs=("result",)), interval, seed)


def stale(what: Any, result: Result) -> Iterator[str]:
    """A line where the folder of a run tells another step of its scenario than this program does."""
    if (place := folder(what)) is None:
        return
    try:
        kept = json.loads((place / MARK).read_text(encoding="utf-8"))
        was, digest = kept["step_time_s"], kept["scenario_hash"]
    except (OSError, ValueError, KeyError, TypeError):
        raise Refused("is no result of a run", str(place / MARK)) from None
    now = result.summary["step_time_s"]
    if was != now and digest == result.summary["scenario_hash"]:
        yield f"{place}: another version ran it: its step took {was} s, and takes {now} s by this one"


def compared(a: Result, b: Result, *notes: str) -> Comparison:
    """Of two runs whose prices were drawn by one seed. notes: to be told with it."""
    draws = drawn(a, b)
    changes = tuple(_change(a, b, *row, draws) for row in FIGURES)
    shown = tuple(each for each in changes if each.a is not None or each.b is not None)
    lacks = [f"{k} is infeasible: {why}" for k, each in zip("AB", (a, b), strict=True) for why in _against(each)]
    keys = tuple(differing(a.scenario, b.scenario))
    return Comparison(a, b, shown, causes(a, b), _memory(a, b), keys, (*notes, *lacks, *_unsaid(a, b)))


def _unsaid(a: Result, b: Result) -> Iterator[str]:
    """A line where one run leaves to its stack what decides a step and the other says it, which makes one interval
    wider than the other's though both may run the same."""
    open_ = [each.summary.get("interval_parts", {}).get("unsaid", ()) for each in (a, b)]
    for letter, other, mine, theirs in zip("AB", "BA", open_, open_[::-1], strict=True):
        if keys := [key for key in mine if key not in theirs]:
            yield (
                f"{letter} leaves {', '.join(keys)} to its stack, which {other} says: what ran is less sure in "
                f"{letter}, so its interval is wider, and so is that of the difference"
            )


def _against(result: Result) -> list[str]:
    return list(map(str, result.summary["infeasible"]))


# --- intervals --------------------------------------------------------------------------------------------------------


def drawn(a: Result, b: Result) -> tuple[Floats, Floats] | None:
    """Steps of both, draw by draw, seconds; None where one of them has no prices."""
    if a.draws is None or b.draws is None:
        return None
    classes = [json.dumps(each.summary["interval_parts"]["class"], sort_keys=True) for each in (a, b)]
    if classes[0] != classes[1]:
        return a.draws * _left_out(a, _normal(classes[0])), b.draws * _left_out(b, _normal(classes[1]))
    apart = min(PARTED * min(1.0, parted(a, b)), _variance(a) + _variance(b))  # at most as of runs that share nothing
    z, half = _normal(classes[0]), apart**0.5 / 2 * _normal("difference")
    half = half if _mark(a) < _mark(b) else -half  # the same draws, whichever comes first
    return a.draws * _left_out(a, z) * np.exp(-half), b.draws * _left_out(b, z) * np.exp(half)


def _mark(result: Result) -> str:
    """Something that tells runs apart that differ."""
    return json.dumps([[bar.name, bar.seconds] for bar in result.waterfall])


def parted(a: Result, b: Result) -> float:
    """Part of the step that is spent on other things in one run than in the other; 0 of runs that do the same."""
    step = (a.summary["step_time_s"] + b.summary["step_time_s"]) / 2 * NS_PER_S
    return float(sum(abs(cause.difference_ns) for cause in causes(a, b)) / step)


def _left_out(result: Result, z: Floats) -> Floats:
    """By what factor the step is longer for what the model leaves out, for standard normal draws."""
    step = float(result.summary["step_time_s"])
    below, above = (abs(log(end / step)) / REACH for end in result.summary["interval_parts"]["left_out"])
    return np.asarray(np.exp(np.where(z < 0, below, above) * z))


def _variance(result: Result) -> float:
    """Of the logarithm of what the model leaves out, the mean of both sides."""
    step = float(result.summary["step_time_s"])
    return sum((log(end / step) / REACH) ** 2 for end in result.summary["interval_parts"]["left_out"]) / 2


def _normal(name: str) -> Floats:
    """Standard normal draws that belong to a name."""
    key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
    return np.random.Generator(np.random.Philox(key=[0, key])).standard_normal(uncertainty.DRAWS)


def _change(
    a: Result, b: Result, key: str, name: str, unit: str, power: int, draws: tuple[Floats, Floats] | None
) -> Change:
    values = [_figure(result.summary, key) for result in (a, b)]
    plain = Change(key, name, unit, values[0], values[1])
    if draws is None or not power or not all(values):
        return plain
    one, two = (
        value * (steps / result.summary["step_time_s"]) ** power
        for value, steps, result in zip(values, draws, (a, b), strict=True)
        if value
    )
    return replace(plain, interval=_ends(two - one), ratio=_ends(two / one))


def _figure(summary: Mapping[str, Any], key: str) -> float | None:
    """Under a dotted key; None where the run has no such figure."""
    value: Any = summary
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def _ends(values: Floats) -> tuple[float, float]:
    low, high = np.percentile(values, (uncertainty.LOW, uncertainty.HIGH))
    return float(low), float(high)


# --- memory -----------------------------------------------------------------------------------------------------------


def _memory(a: Result, b: Result) -> dict[str, tuple[int, int]]:
    """Part -> bytes of either at the moment and position of its highest peak."""
    rows = [_peak(each) for each in (a, b)]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: (rows[0].get(name, 0), rows[1].get(name, 0)) for name in names}


def _peak(result: Result) -> dict[str, int]:
    peaks = result.summary["peak_memory_bytes"] or ()
    worst: dict[str, int] = max(peaks, key=lambda peak: peak["total"], default={})
    return {name: size for name, size in worst.items() if name != "total"}


# --- keys -------------------------------------------------------------------------------------------------------------

DECIDE_NOTHING = ("name", "outputs")


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Key]:
    """Keys of two resolved scenarios that differ, dotted."""
    one, two = dict(_flat(a)), dict(_flat(b))
    for key in dict.fromkeys((*one, *two)):
        if key not in DECIDE_NOTHING and one.get(key) != two.get(key):
            yield Key(key, one.get(key), two.get(key))


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted key; of a figure of the machine its value, wherever it is from."""
    if isinstance(value, Mapping) and "value" in value and "kind" in value:
        yield key, value["value"]
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        yield from _flat(dict(enumerate(value)), key)
    elif isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
