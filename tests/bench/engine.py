"""Events per second of the engine beside a bare SimPy timeout loop with as many processes, in one run.

    python tests/bench/engine.py [rounds]

Runs V3's step at op detail on the engine alone (lowering outside the clock), and a loop of timeouts with one process
for each lane and each rank of it, spending as many events; prints events per CPU second of both and their ratio.
"""

import gc
import sys
from collections.abc import Generator
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import simpy

from sim import engine, plan
from sim.lower import lower
from sim.scenario import load
from sim.template import STREAMS

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
    laid = plan.lay_out(load(str(SCENARIO), ["detail=op"]))
    lowered = lower(laid, plan.machine(laid))
    processes = len(lowered.actors) * (len(STREAMS) + 1)
    ours, theirs = [], []
    for _ in range(rounds):
        gc.collect()
        start = process_time()
        events = engine.run(lowered.actors).events
        ours.append(events / (process_time() - start))
        gc.collect()
        theirs.append(bare(processes, events))
    print(f"{events:,} events, {processes} processes, {rounds} rounds, medians per CPU second")
    print(f"engine {median(ours):,.0f}/s   bare timeout loop {median(theirs):,.0f}/s")
    print(f"ratio {median(a / b for a, b in zip(ours, theirs, strict=True)):.2f} (goal: at least 0.6)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
