"""CPU seconds of whole runs and of configurations in one process, beside a bare SimPy loop: python tests/bench/runs.py.

A machine's speed swings, so the loop runs between all others and every figure is told in seconds of a machine whose
loop does REFERENCE timeouts a second too (the design's figure). Medians of ROUNDS.
"""

import gc
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import simpy

import sim
from sim.__main__ import FEW_CIRCLES
from sim.scenario import load

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "scenarios"
REFERENCE, LOOP, ROUNDS, SWEEPS = 1.5e6, 200_000, 5, 3
NUMBERS = "outputs=[result]"
PROCESSES = {
    "numbers alone, whole process": (["v3_2048gpu.yaml", NUMBERS], 0.75),
    "all outputs, whole process": (["v3_2048gpu.yaml"], 1.2),
    "2,048 different ranks, whole process": (["v3_sampled.yaml", NUMBERS], 2.0),
    "Llama-3 405B on 16,384 GPUs, numbers alone": (["llama31_405b_16384gpu.yaml", NUMBERS], 1.0),
    "Qwen3-235B EP8, numbers alone": (["qwen3_235b_ep8.yaml", NUMBERS], 1.0),
    "Llama-3 70B under FSDP2, numbers alone": (["llama3_70b_fsdp.yaml", NUMBERS], 1.0),
    "Nemotron-3 Super, the slowest model, numbers alone": (
        ["llama3_70b.yaml", "stack=megatron", "model=nemotron3_super_120b_a12b", "parallel.expert=8", NUMBERS],
        1.0,
    ),
}
"""What runs -> file and overrides, and the most CPU seconds it may take."""
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Modules are compiled once, as on a user's machine, wherever this one keeps none."""
SWEEP = (
    "schedule=dualpipe", "batch.sequences=7680", "seed=1", "limits.memory=80GB", "schedule=zb1p", "schedule=1f1b",
    "batch.sequences=30720", "schedule=dualpipev",
)  # fmt: skip


def loop_rate():
    """Timeouts a CPU second of a process that does nothing else."""
    env = simpy.Environment()

    def timeouts():
        while True:
            yield env.timeout(1)

    env.process(timeouts())
    start = time.process_time()
    env.run(until=LOOP)
    return LOOP / (time.process_time() - start)


def process_s(words):
    """CPU seconds, user and system, of one command."""
    command = [sys.executable, "-m", "sim", str(SCENARIOS / words[0]), "-q", "--out", "out/bench", *words[1:]]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, env=COMPILED, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def sweep_s(interval):
    """CPU seconds of each configuration of a sweep after the first, in one process, reading included."""
    spent = []
    for override in SWEEP:
        start = time.process_time()
        sim.run(load(str(SCENARIOS / "v3_2048gpu.yaml"), [NUMBERS, override]), interval=interval)
        spent.append(time.process_time() - start)
    return spent[1:]


def told(name, seconds, rates, most):
    """One line: measured, and as on the reference machine."""
    rate = median(rates)
    print(f"{name:58} {median(seconds):6.2f} s  {median(seconds) * rate / REFERENCE:6.2f} s at reference (most {most})")


def main():
    print(f"bare SimPy loop: {loop_rate():,.0f} timeouts a CPU second; reference {REFERENCE:,.0f}")
    for name, (words, most) in PROCESSES.items():
        rates, seconds = [], []
        process_s(words)
        for _ in range(ROUNDS):
            rates.append(loop_rate())
            seconds.append(process_s(words))
        told(name, seconds, rates, most)
    for interval, most in ((False, 0.1), (True, 0.15)):
        rates, seconds = [], []
        for _ in range(SWEEPS):
            rates.append(loop_rate())
            pool = ProcessPoolExecutor(1, get_context("spawn"), gc.set_threshold, (FEW_CIRCLES,))  # nothing is kept
            with pool as fresh:
                seconds += fresh.submit(sweep_s, interval).result()
        told(f"a later configuration, {'with' if interval else 'without'} interval", seconds, rates, most)
        print("    ", *(f"{word} {s:.2f}" for word, s in zip(SWEEP[1:], seconds, strict=False)))


if __name__ == "__main__":
    main()
