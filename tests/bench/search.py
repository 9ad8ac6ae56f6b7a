"""Points a second and core of a search of DeepSeek-V3's layouts, and how much two workers gain:
python tests/bench/search.py [local:2 | dask:HOST:PORT].

Points are all that are legal: most are left out by rules, memory or their least step, which is what a search is for; so
points that are simulated are told too.
"""

import sys
import time
from pathlib import Path

from hwmodels.document import Document, Place
from sim.experiments.executors import executor
from sim.experiments.explore import explored
from sim.experiments.search import of_document
from sim.scenario import SCENARIOS

SPACE = {
    "parallel.pipeline": [4, 8, 16, 32], "parallel.expert": [16, 32, 64, 128], "comm.sms": [20, 24],
    "schedule": ["1f1b", "gpipe", "interleaved", "zb1p", "dualpipe", "dualpipev"], "recompute": ["recipe", "full"],
}  # fmt: skip
WANTED_S = 20
"""Points a second and core that are wanted."""


def searched(where: str) -> tuple[float, float, int, int]:
    """Wall and CPU seconds of this process, legal points, points simulated."""
    content = {"scenario": str(SCENARIOS / "v3_2048gpu.yaml"), "space": SPACE, "best": 1}
    search = of_document(Document(content, {(): Place("bench")}), "bench", Path())
    wall, cpu = time.perf_counter(), time.process_time()
    with executor(where) as ready:
        answer = explored(search, ready)
    return time.perf_counter() - wall, time.process_time() - cpu, answer.census.legal, answer.ran


def main() -> None:
    """Print rates, and the ratio of workers to one process."""
    wall, cpu, legal, ran = searched("local:1")
    print(f"one process: {legal} legal points in {cpu:.1f} s of CPU, {legal / cpu:.1f} a second; {ran} simulated")
    print(f"wanted: {WANTED_S} a second")
    for where in sys.argv[1:]:
        print(f"{where}: {wall / searched(where)[0]:.2f} times as fast as one process")


if __name__ == "__main__":
    main()
