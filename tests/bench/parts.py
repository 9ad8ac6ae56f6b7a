"""CPU milliseconds of parts of a V3 run that have a floor of their own, beside that floor, in one run.

    python tests/bench/parts.py [rounds]

Floors: a program is one namedtuple a step, a layer's draw one pass of numpy over tokens x experts, loads of all ranks
one normal draw a cell, windows of a flapping link one look-up a duration.
"""

import sys
from collections.abc import Callable
from time import process_time

import numpy as np

from sim.disturbances.faults import Pace
from sim.routing.gate import Gate
from sim.routing.hosts import in_order
from sim.routing.loads import loads
from sim.routing.popularity import sampled
from sim.routing.traffic import traffic
from sim.scenario import Fault
from sim.schedules.program import Shape, Step, build, check

V3 = Gate(256, 8, 4, 8, 2)
FLAPPING = Fault("link", 0, 3.0, every_ns=10**5, lasts_ns=10**4)


def fastest(action: Callable[[], object], rounds: int) -> float:
    """CPU milliseconds of the quickest of so many calls."""
    times = []
    for _ in range(rounds):
        begun = process_time()
        action()
        times.append((process_time() - begun) * 1e3)
    return min(times)


def main(rounds: int) -> None:
    """A line a part: what it takes, its floor, their ratio."""
    program, random = build("dualpipe", Shape(16, 120)), np.random.default_rng(0)
    steps = sum(map(len, program.steps))
    hosts, liked = in_order(256, 64, 8), sampled(0, 6, 256)
    pace = Pace([FLAPPING], lambda fault, factor: factor, worst=True)
    starts = np.arange(0, 10**11, 10**6)
    affinity = random.random((4096, 256))
    parts: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "program built": (lambda: build("dualpipe", Shape(16, 120)), lambda: [Step("F", 0, i) for i in range(steps)]),
        "program checked": (lambda: check(program), lambda: [Step("F", 0, i) for i in range(steps)]),
        "tokens of a group of 8": (
            lambda: traffic(V3, np.ones(256), in_order(256, 8, 8), 4096, 0, 0, 0),
            lambda: [affinity.argsort(axis=1) for _ in range(8)],
        ),
        "loads of six layers": (
            lambda: loads(V3, liked, [hosts] * 6, 4096, 0, 120, 2048), lambda: random.normal(size=(6, 120, 2048)),
        ),
        "a million windows": (
            lambda: pace.durations(starts, np.full(len(starts), 10**6)), lambda: np.searchsorted(starts, starts),
        ),
    }  # fmt: skip
    for name, (part, floor) in parts.items():
        took, least = fastest(part, rounds), fastest(floor, rounds)
        print(f"{name:24} {took:9.2f} ms  floor {least:8.2f} ms  ratio {took / least:6.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
