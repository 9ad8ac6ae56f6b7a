"""Kernels per second of the engine beside a bare SimPy timeout loop with as many processes, in one run.

    python tests/bench/engine.py [rounds]

Runs all kernels of V3's step as events, one rank a position (lowering outside the clock), and a loop with one process
for each lane and each rank of it that spends a timeout on each kernel; prints kernels per CPU second of both and their
ratio. The engine spends an event on a segment of kernels, and more arithmetic on it.
"""

import gc
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import simpy

from sim import assembly
from sim.engine import events
from sim.engine.lowering import lower
from sim.layout import plan
from sim.scenario import load
from sim.step.template import STREAMS

SCENARIO = Path(__file__).parents[2] / "scenarios" / "v3_2048gpu.yaml"


def bare(processes: int, events: int) -> float:
    """Events per CPU second of `processes` that do nothing but wait, `events` in all."""
    env = simpy.Environment()

    def wait(env: simpy.Environment, delay: int) -> Generator[simpy.Event, Any, None]:
        for _ in range(events // processes):
            yield env.timeout(delay)

    for i in range(processes):
        env.process(wait(env, 1000 + 7 * i))
    start = process_time()
    env.run()
    return events / (process_time() - start)


def main(rounds: int) -> None:
    laid = plan.lay_out(load(str(SCENARIO)))
    lowered = lower(laid, assembly.machine(laid))
    actors = [
        replace(actor, jobs=tuple(replace(job, template=kit.fine) for job, kit in zip(actor.jobs, kits, strict=True)))
        for actor, kits in zip(lowered.actors, lowered.kits, strict=True)
    ]
    processes = len(actors) * (len(STREAMS) + 1)
    ours, theirs = [], []
    for _ in range(rounds):
        gc.collect()
        start = process_time()
        done = events.run(actors)
        took = process_time() - start
        kernels = sum(len(ends) for record in done.records for ends in record.kernels)
        ours.append(kernels / took)
        gc.collect()
        theirs.append(bare(processes, kernels))
    print(f"{kernels:,} kernels, {done.events:,} events, {processes} processes; medians of {rounds} per CPU second")
    print(f"engine {median(ours):,.0f}/s   bare timeout loop {median(theirs):,.0f}/s")
    print(f"ratio {median(a / b for a, b in zip(ours, theirs, strict=True)):.2f} (goal: at least 0.6)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
