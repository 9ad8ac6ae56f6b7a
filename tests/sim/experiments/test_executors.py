"""Where runs run: the same records from processes and from Dask, whoever is killed meanwhile or however full a disk."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from multiprocessing import active_children
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from hwmodels.refused import Refused
from sim.experiments import cluster as cluster_room
from sim.experiments.executors import Here, Processes, executor, jobs
from sim.experiments.record import record
from sim.scenario import SCENARIOS, load
from sim.scenario.values import Scenario

SMALL = str(SCENARIOS / "dualpipe_8x20.yaml")
ROOT = SCENARIOS.parent
SEEDS = range(24)
PATIENCE_S = 240


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    """Some tens of ms each."""
    return [load(SMALL, [f"batch.micro_batches={40 + 2 * seed}", "outputs=[result]"]) for seed in SEEDS]


@pytest.fixture(scope="module")
def alone(scenarios: list[Scenario]) -> list[Any]:
    return [entry["summary"] for _, entry in Here().results(record, scenarios)]


def in_order(results: Iterator[tuple[int, Any]]) -> list[Any]:
    """Summaries by number; each task gave one."""
    each = list(results)
    assert sorted(number for number, _ in each) == list(range(len(each)))
    return [entry["summary"] for _, entry in sorted(each, key=lambda item: item[0])]


def test_tasks_are_asked_for_as_workers_take_them(scenarios: list[Scenario]) -> None:
    """So that a million tasks need no room."""
    asked: list[int] = []

    def tasks() -> Iterator[Scenario]:
        for number, one in enumerate(scenarios):
            asked.append(number)
            yield one

    for done, _ in enumerate(Processes(1).results(record, tasks())):
        assert len(asked) <= done + 1 + 2
    assert len(asked) == len(scenarios)


def test_an_interrupt_that_finds_a_process_among_its_imports_waits(
    scenarios: list[Scenario], alone: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """The process ends by it as soon as it can, and prints nothing: what happened is the caller's to tell."""

    def interrupt() -> None:
        while not active_children():
            time.sleep(0.01)
        time.sleep(0.15)
        os.kill(active_children()[0].pid or 0, signal.SIGINT)

    thread = Thread(target=interrupt)
    thread.start()
    with closing(Processes(1)) as processes:
        assert in_order(processes.results(record, scenarios[:2])) == alone[:2]
    thread.join()
    assert capfd.readouterr().err == ""


def test_killed_processes_lose_nothing(scenarios: list[Scenario], alone: list[Any]) -> None:
    """Workers die while they work, one now and then; what they had is done by others, and once."""
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 3:
            time.sleep(0.05)
            for worker in active_children()[:1]:
                if worker.pid:
                    time.sleep(0.4)
                    os.kill(worker.pid, signal.SIGKILL)
                    killed.append(worker.pid)

    killer = Thread(target=kill, daemon=True)
    killer.start()
    assert in_order(Processes(2).results(record, scenarios)) == alone
    assert killed


def test_processes_stay_until_the_end_and_a_dead_one_is_replaced() -> None:
    """A search asks again and again: its workers keep what they know of prices."""
    with executor("local:2") as ready:
        pids = {pid for _, pid in ready.results(_pid, range(8))}
        again = {pid for _, pid in ready.results(_pid, range(8))}
        assert again <= {child.pid for child in active_children()} and pids & again
        for child in active_children():
            if child.pid in again:
                with suppress(ProcessLookupError):  # the pool ends the others once it has seen one dead
                    os.kill(child.pid, signal.SIGKILL)
                child.join()
        later = [pid for _, pid in ready.results(_pid, range(8))]
        assert len(later) == 8 and not again & {*later}
    assert not {child.pid for child in active_children()} & {*later}


def _pid(task: int) -> int:
    return os.getpid()


def test_a_task_that_kills_every_worker_is_blamed() -> None:
    assert list(Processes(1).results(os._exit, [])) == []
    with pytest.raises(Refused, match="5 workers died over the same run"):
        list(Processes(1).results(os._exit, [1]))


# --- Dask -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers as people start them, by their commands; the address, and the workers."""
    pytest.importorskip("distributed")
    told = tmp_path_factory.mktemp("dask") / "scheduler.json"
    cli, quiet = [sys.executable, "-m"], {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet |= {"cwd": told.parent, "env": os.environ | {"PYTHONPATH": str(ROOT)}}  # type: ignore[dict-item]
    head = [*cli, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(told)]  # fmt: skip
    processes = [subprocess.Popen(head, **quiet)]
    workers: list[subprocess.Popen[bytes]] = []
    try:
        end = time.monotonic() + PATIENCE_S
        while not told.exists() or not told.read_text():
            assert time.monotonic() < end and processes[0].poll() is None
            time.sleep(0.2)
        address = json.loads(told.read_text())["address"]
        one = [*cli, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        workers += [subprocess.Popen(one, **quiet) for _ in range(2)]
        yield address, workers
    finally:
        for process in (*workers, *processes):
            process.kill()
            process.wait()


def test_a_killed_client_of_a_cluster_goes_on(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], sweep: Path, alone: list[Any]
) -> None:
    """kill -9 of the client while the workers live: they go on for the next one; nothing is lost, nothing twice."""
    address, workers = cluster
    killed_and_started_again(sweep, f"dask:{address}", alone)
    assert all(worker.poll() is None for worker in workers)


def test_dask_gives_the_answer_of_one_process_whoever_dies(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], scenarios: list[Scenario], alone: list[Any]
) -> None:
    """One of two workers is killed while it works: nothing is lost, nothing comes twice."""
    address, workers = cluster
    with executor(f"dask:{address}") as ready:
        results, each = ready.results(record, scenarios), []
        for number, entry in results:
            each.append((number, entry))
            if len(each) == 3:
                workers[0].kill()
        assert in_order(iter(each)) == alone
    assert workers[0].wait() == -signal.SIGKILL


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster_room, "PATIENCE_S", 1)
    assert jobs("dask:127.0.0.1:1") == 0
    why = r"--executor dask:127\.0\.0\.1:1: no scheduler answers there"
    with pytest.raises(Refused, match=why), executor("dask:127.0.0.1:1"):
        pass


# --- the client -------------------------------------------------------------------------------------------------------


def command(*words: str, before: str = "pass") -> subprocess.Popen[str]:
    code = f"import sys; {before}; from sim.__main__ import main; sys.exit(main(sys.argv[1:]))"
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *words], text=True, **pipes)


def kept(path: Path) -> list[Any]:
    """Records in a file, each once."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith('{"scenario_hash"')]
    assert len({line["scenario_hash"] for line in lines}) == len(lines)
    return lines


@pytest.fixture
def sweep() -> Path:
    Path("s.yaml").write_text(f"scenario: {SMALL}\naxes: {{batch.micro_batches: {[40 + 2 * s for s in SEEDS]}}}\n")
    return Path("s.yaml")


def test_a_killed_client_goes_on(sweep: Path, alone: list[Any]) -> None:
    """kill -9 while two workers work: they end too, and a second start runs what was not kept."""
    killed_and_started_again(sweep, "local:2", alone)


def killed_and_started_again(sweep: Path, where: str, alone: list[Any]) -> None:
    first, path = command("sweep", str(sweep), "-q", "--executor", where, "--out", "r.jsonl"), Path("r.jsonl")
    end = time.monotonic() + PATIENCE_S
    while not path.exists() or path.read_text().count("\n") < 2:
        assert time.monotonic() < end and first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.communicate()  # until the last worker of its own has let go of its pipes
    some = kept(Path("r.jsonl")) if path.read_text().endswith("\n") else kept_whole(path)
    assert 2 <= len(some) < len(alone)
    again = command("sweep", str(sweep), "-q", "--executor", where, "--out", "r.jsonl")
    assert again.wait(PATIENCE_S) == 0, again.communicate()
    every = kept(path)
    assert every[: len(some)] == some
    steps = sorted(each["step_time_s"] for each in alone)
    assert sorted(each["summary"]["step_time_s"] for each in every) == steps


def kept_whole(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()[:-1]]


def test_a_full_disk_loses_nothing(sweep: Path, alone: list[Any]) -> None:
    """A file may not grow: one line says so, what is there is whole, and the sweep goes on where there is room."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))"
    full = command("sweep", str(sweep), "-q", "--out", "r.jsonl", before=limit)
    _, err = full.communicate(timeout=PATIENCE_S)
    assert full.returncode == 2 and err == "r.jsonl: cannot be written: File too large\n"
    text = Path("r.jsonl").read_text()
    assert text.endswith("\n") and 0 < len(kept(Path("r.jsonl"))) < len(alone)
    again = command("sweep", str(sweep), "-q", "--out", "r.jsonl")
    assert again.wait(PATIENCE_S) == 0
    assert Path("r.jsonl").read_text().startswith(text) and len(kept(Path("r.jsonl"))) == len(alone)
