"""The FP8 study's runs, one after another as long as there is time; each that ends is a line of a file, and is kept.

    python -m numerics study training --corpus CORPUS --out DIR --seconds 540
runs what neither DIR/rows.jsonl nor the lines kept in the repository have, of which the page (docs/TRAINING.md) is
made; a line "about" says what the lines behind it were made with.
With --behind, one BF16 run is the start of all others, which then differ by their data's order and their arm: what the
quick turn of a run's first pass makes of chaos is behind them.
"""

import gc
import hashlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwmodels.refused import Refused
from numerics.card.measure import driver
from numerics.training.arms import ARMS, Arm, behind_plan, plan
from numerics.training.corpus import Corpus
from numerics.training.gradients import compared
from numerics.training.run import LOSS, MAXVIO, NORM, Run
from numerics.training.settings import Settings

SPANS = 50
"""Points of a curve: means over as many equal parts of a run."""
LAST = 0.2
"""The share of a run, at its end, whose mean loss is compared."""
CHECKPOINTS = (0.0, 0.05, 0.3, 1.0)
"""Shares of the first BF16 run at which gradients are compared."""
TIMED = 60
"""Steps that a time is the mean of."""

ALL, BEHIND, TIMES = "all", "behind", "times"
"""What a session of the study is for."""
START, BEGUN = "start.pt", ("bf16", 1)
"""The checkpoint that runs behind the turn begin from, and the run that it is the end of: the first to turn here."""

Say = Callable[[str], None]
Row = dict[str, Any]


def main(
    settings: Settings, wide: Settings, corpus: Corpus, file: Path, seconds: float, say: Say, what: str = ALL,
    kept: Sequence[Row] = (),
) -> bool:  # fmt: skip
    """Append what is missing from the file and from `kept` and fits into the time; True when nothing is missing any
    more. what: ALL, BEHIND the turn, or TIMES, which are measured again whatever is there. Raises Refused where what is
    there ran over another corpus."""
    clock, whole, there = Clock(time.monotonic() + seconds), True, [*kept, *read(file)]
    if what != TIMES:
        paired(corpus, there)
    file.parent.mkdir(parents=True, exist_ok=True)
    missing = {
        ALL: lambda: jobs(settings, wide, corpus, there),
        BEHIND: lambda: behind_jobs(settings, corpus, there, file.parent / START),
        TIMES: lambda: iter([Job("times of a step", "times", partial(times, settings, wide, corpus))]),
    }[what]
    heading: list[Row] = [about(corpus) | {"kind": "about behind" if what == BEHIND else "about"}]
    for job in missing():
        if not clock.fits(job.kind):
            say(f"no time left for {job.name}")
            return False
        began = time.monotonic()
        try:
            for row in job.rows():
                with file.open("a", encoding="utf-8") as lines:
                    lines.writelines(json.dumps(one) + "\n" for one in (*heading, row | provenance(corpus)))
                heading = []
        except RuntimeError:  # of torch or the device: the other arms are none the worse for it
            say(f"{job.name} failed:\n{traceback.format_exc()}")
            whole = False
        gc.collect()  # a run's graphs keep its memory, and it knows itself
        clock.spent(job.kind, time.monotonic() - began)
        say(f"{job.name}: {time.monotonic() - began:.1f} s")
    return whole


def paired(corpus: Corpus, rows: Sequence[Row]) -> None:
    """Raise Refused unless runs that are there are of this corpus: arms of a seed are pairs by seeing the same data."""
    own = digest(corpus)
    others = {row["corpus"] for row in rows if row["kind"] in ("run", BEHIND)} - {own}
    if others:
        raise Refused(
            f"--corpus: the tokens' sha256 begins with {own or 'nothing'}, and runs that are there are of "
            f"{' and '.join(sorted(others))}: no pairs; the split goes by paths below the folder that was read; legal: "
            "that corpus, or another --out with --afresh"
        )


def read(file: Path) -> list[Row]:
    """Rows that are there."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


class Clock:
    """When to stop: a job begins if the longest of its kind so far, and a little more, still fits."""

    def __init__(self, end: float) -> None:
        self.end, self.longest = end, dict[str, float]()

    def fits(self, kind: str) -> bool:
        known = self.longest.get(kind, max(self.longest.values(), default=0.0))
        return time.monotonic() + 1.05 * known < self.end

    def spent(self, kind: str, seconds: float) -> None:
        self.longest[kind] = max(seconds, self.longest.get(kind, 0.0))


class Job:
    """Something that takes a while and gives rows. kind: jobs that take equally long."""

    def __init__(self, name: str, kind: str, rows: Callable[[], Iterator[Row]]) -> None:
        self.name, self.kind, self.rows = name, kind, rows


def jobs(settings: Settings, wide: Settings, corpus: Corpus, there: list[Row]) -> Iterator[Job]:
    """What is missing, in order: main arms (gradients beside the first), times, side arms."""
    done = {(row["arm"], row["seed"]) for row in there if row["kind"] == "run"}
    timed = any(row["kind"] == "time" for row in there)
    for arm, seed in plan():
        if not timed and arm.name not in ("bf16", "null", "fp8"):
            timed = True
            yield Job("times of a step", "times", partial(times, settings, wide, corpus))
        if (arm.name, seed) not in done:
            yield Job(f"{arm.name}, seed {seed}", arm.name, partial(run, settings, corpus, arm, seed))


def behind_jobs(settings: Settings, corpus: Corpus, there: list[Row], start: Path) -> Iterator[Job]:
    """The start where it is missing, then what begins from it: main arms order by order, side arms in the first."""
    if not start.exists():
        yield Job("the start", "bf16", partial(begun, settings, corpus, start))
    done = {(row["arm"], row["seed"]) for row in there if row["kind"] == "behind"}
    for arm, seed in behind_plan():
        if (arm.name, seed) not in done:
            yield Job(f"{arm.name}, order {seed}", arm.name, partial(_behind, settings, corpus, arm, seed, start))


def _behind(settings: Settings, corpus: Corpus, arm: Arm, seed: int, start: Path) -> Iterator[Row]:
    return ({**row, "kind": "behind"} for row in run(settings, corpus, arm, seed, start))


def begun(settings: Settings, corpus: Corpus, start: Path) -> Iterator[Row]:
    """Keep the end of the run that others begin from; no row, as it is a run of the study."""
    name, seed = BEGUN
    one = Run(ARMS[name].settings(settings, seed), corpus, device())
    if device() == "cuda":
        one.capture()
    one.train()
    one.save(start)
    yield from ()


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def run(settings: Settings, corpus: Corpus, arm: Arm, seed: int, start: Path | None = None) -> Iterator[Row]:
    """The row of one run, behind those of gradients where it is the run they are taken from."""
    one = Run(arm.settings(settings, seed), corpus, device(), moved=seed if arm.moved else None, start=start)
    if device() == "cuda":
        one.capture()
    places = [round(share * settings.steps) for share in CHECKPOINTS] if (arm.name, seed) == ("bf16", 0) else []
    spent = 0.0
    for place in sorted({*places, settings.steps}):
        began = time.monotonic()
        one.train(place)
        _ = float(one.loss)  # waits for the device
        spent += time.monotonic() - began
        if place in places:
            yield from compared(one)
    yield row(one, arm, seed, spent)


def row(one: Run, arm: Arm, seed: int, seconds: float) -> Row:
    """What is kept of a run that ended."""
    s, history = one.settings, one.history.double().cpu().numpy()
    curve = [span.mean(0) for span in np.array_split(history, min(SPANS, s.steps))]
    tail = history[-round(LAST * s.steps) :]
    return {
        "kind": "run", "arm": arm.name, "seed": seed, "steps": s.steps,
        "tokens": s.length * s.batch * sum(s.micro_batches.at(i) for i in range(s.steps)),
        "parameters": sum(p.numel() for p in one.model.parameters()),
        "losses": [round(float(each[LOSS]), 5) for each in curve],
        "last_fifth": round(float(tail[:, LOSS].mean()), 7),
        "norm": round(float(tail[:, NORM].mean()), 4),
        "maxvio": [round(float(each), 3) for each in tail[:, MAXVIO:].mean(0)],
        "maxvio_curve": [round(float(each[MAXVIO:].mean()), 3) for each in curve],
        "held": one.evaluate(), "step_ms": round(1e3 * seconds / s.steps, 3),
    }  # fmt: skip


def times(settings: Settings, wide: Settings, corpus: Corpus) -> Iterator[Row]:
    """Milliseconds of a step, and the share of them in which the device is busy, at two sizes."""
    for size in (settings, wide):
        for precision, recompute in (("bf16", False), ("bf16", True), ("fp8", True)):
            one = Run(replace(size, precision=precision, recompute=recompute), corpus, device())
            if device() == "cuda":
                one.capture()
            one.train(5)
            _ = float(one.loss)
            start = time.monotonic()
            one.train(5 + TIMED)
            _ = float(one.loss)
            step = (time.monotonic() - start) / TIMED
            yield {
                "kind": "time", "model": size.model.name, "parameters": sum(p.numel() for p in one.model.parameters()),
                "precision": precision, "recompute": recompute, "step_ms": round(1e3 * step, 3),
                "tokens_s": round(size.length * size.batch / step), "busy": busy(one, step),
            }  # fmt: skip


def busy(one: Run, step: float) -> float | None:
    """Share of a step (s) that kernels take, by the profiler's sum over three; None off a GPU."""
    if device() != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as record:
        one.train(one.done + 3)
        torch.cuda.synchronize()
    kernels = sum(event.device_time for event in record.events() if event.device_type.name == "CUDA")
    return round(kernels / 3e6 / step, 3)


def provenance(corpus: Corpus) -> Row:
    """What a row was made on and with."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "device": name, "torch": torch.__version__, "corpus": digest(corpus), "code": code(),
    }  # fmt: skip


def digest(corpus: Corpus) -> str:
    """Of its tokens, as rows have it."""
    return str(corpus.about.get("sha256", ""))[:12]


def about(corpus: Corpus) -> Row:
    """The line that a session's other lines follow."""
    here = corpus.about
    words = f"{here.get('source', '')}: {len(corpus.train):,} tokens to train on, {len(corpus.held):,} held out"
    return {
        "kind": "about", "date": date.today().isoformat(), "driver": driver(), "triton": _release("triton"),
        "code": code(), "corpus": words, "command": "python -m numerics " + " ".join(sys.argv[1:]),
    }  # fmt: skip


def _release(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@cache
def code() -> str:
    """The first 12 digits of the SHA-256 of all sources that a step runs: rows with the same one are of one program."""
    numerics = Path(__file__).parents[1]
    files = (path for room in ("kernels", "layers", "reference", "training") for path in (numerics / room).glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()[:12]
