"""Points a second and core of a search of DeepSeek-V3's layouts, its winner beside 72 layouts by hand, and how much
two workers gain: python tests/bench/search.py [local:2 | dask:HOST:PORT | dask].

`dask` starts a scheduler here, and one and then two workers as people start them, in turns, and tells the ratio of
both: of wall clocks, which counts on a machine that has the cores free, and of the CPU time that they took in all,
which says what is lost to sharing. To repeat it: two free cores, `pip install 'trainyard[cluster]'`, then
`python tests/bench/search.py dask`.

Points are all that are legal: most are left out by rules, memory or their least step, which is what a search is for; so
points that are simulated are told too.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from tempfile import TemporaryDirectory

from hwmodels.document import Document, Place
from hwmodels.refused import Refused
from sim.experiments.executors import executor
from sim.experiments.explore import explored
from sim.experiments.search import of_document
from sim.scenario import SCENARIOS, load
from sim.simulation import run

SPACE = {
    "parallel.pipeline": [4, 8, 16, 32], "parallel.expert": [16, 32, 64, 128], "comm.sms": [20, 24],
    "schedule": ["1f1b", "gpipe", "interleaved", "zb1p", "dualpipe", "dualpipev"], "recompute": ["recipe", "full"],
}  # fmt: skip
WANTED_S, RIVAL_S = 20, 0.248
"""Points a second and core that are wanted; seconds a point that SimuMax takes (shared/notes/ecosystem.md)."""
TURNS = 2
"""Times that each number of workers searches."""


def searched(where: str) -> tuple[float, float, int, int, float]:
    """Wall and CPU seconds of this process, legal points, points simulated, and the winner's step."""
    content = {"scenario": str(SCENARIOS / "v3_2048gpu.yaml"), "space": SPACE, "best": 1}
    search = of_document(Document(content, {(): Place("bench")}), "bench", Path())
    wall, cpu = time.perf_counter(), time.process_time()
    with executor(where) as ready:
        answer = explored(search, ready)
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return *spent, answer.census.legal, answer.ran, answer.winner.facts.step_s


BY_HAND = [
    [f"parallel.pipeline={pipeline}", f"parallel.expert={expert}", f"schedule={schedule}", f"recompute={recompute}"]
    for pipeline in (8, 16, 32) for expert in (32, 64, 128)
    for schedule in ("dualpipe", "dualpipev", "zb1p", "1f1b") for recompute in ("recipe", "full")
]  # fmt: skip
"""V3 as people would cut it: 72 layouts, with 20 SMs for communication."""


def by_hand() -> tuple[float, int]:
    """The shortest step of those layouts that fit, and how many do."""
    steps = []
    for words in BY_HAND:
        try:
            summary = run(load("v3_2048gpu", [*words, "outputs=[result]"]), interval=False).summary
        except Refused:
            continue
        steps += [summary["step_time_s"]] if summary["feasible"] else []
    return min(steps), len(steps)


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """A scheduler and so many workers of one thread each, by Dask's commands; its address as an executor has it."""
    with TemporaryDirectory() as folder:
        told, quiet = Path(folder, "scheduler.json"), {"stdout": DEVNULL, "stderr": DEVNULL}
        cli = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
        processes = [Popen([*cli, "--no-dashboard", "--scheduler-file", str(told)], **quiet)]
        try:
            while not told.exists() or not told.read_text():
                time.sleep(0.2)
            address = json.loads(told.read_text())["address"]
            one = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
            processes += [Popen([*one, "--no-nanny", "--local-directory", folder], **quiet) for _ in range(workers)]
            yield f"dask:{address}"
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


def in_turns() -> None:
    """Print what one worker and two take, one after the other, the least of each."""
    took: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for workers in (1, 2) * TURNS:
        before, here = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
        with cluster(workers) as address:
            wall = searched(address)[0]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + time.process_time() - here
        took[workers].append((wall, cpu))
        print(f"dask, {workers} worker(s): {wall:.1f} s of wall clock, {cpu:.1f} s of CPU in all processes", flush=True)
    (wall, cpu), (wall_two, cpu_two) = (min(took[workers]) for workers in (1, 2))
    print(f"dask: two workers {wall / wall_two:.2f} times as fast as one, for {cpu_two / cpu:.2f} of its CPU time")


def main() -> None:
    """Print rates, the winner beside layouts by hand, and the ratio of workers to one process."""
    wall, cpu, legal, ran, best = searched("local:1")
    print(f"one process: {legal} legal points in {cpu:.1f} s of CPU, {legal / cpu:.1f} a second; {ran} simulated")
    print(f"wanted: {WANTED_S} a second; {cpu / legal / RIVAL_S:.2f} of the time of SimuMax a point", flush=True)
    least, fit = by_hand()
    print(
        f"winner: {best:.3f} s a step; of {len(BY_HAND)} layouts by hand {fit} fit, the best in {least:.3f} s",
        flush=True,
    )
    for where in sys.argv[1:]:
        if where == "dask":
            in_turns()
            continue
        print(f"{where}: {wall / searched(where)[0]:.2f} times as fast as one process", flush=True)


if __name__ == "__main__":
    main()
