"""CPU seconds of served loads, beside a bare SimPy loop and a plain loop over steps: python tests/bench/serving.py.

An hour of Mooncake's conversations (12,031 prompts of 12,000 tokens) on 40 nodes, prices and reading the trace among
it, in a process of its own; the same requests by a loop of numpy that does nothing but count tokens down, a step at a
time; and the search for the largest load within objectives. Told as on a machine whose loop does REFERENCE timeouts a
second too (see tests/bench/runs.py).
"""

import resource
import subprocess
import sys
import time

import numpy as np

from sim.serving import asked, files
from tests.bench.runs import REFERENCE, ROOT, loop_rate

HOUR, SEARCHED = "serve_mooncake", "serve_v3_h800"
MOST_S, MOST_SEARCH_S = 5.0, 60.0
SLOTS, STEP_S = 4096, 0.02
"""Of the plain loop: sequences at once, and what each of its steps takes."""


def process_s(code):
    """CPU seconds of a Python process that runs some code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def plain(requests):
    """CPU seconds and steps of the plain loop."""
    start, now, steps, coming = time.process_time(), 0.0, 0, 0
    arrival, output = requests.arrival / 1e9, requests.output
    left, context = np.zeros(SLOTS, np.int64), np.zeros(SLOTS, np.int64)
    while coming < len(arrival) or left.any():
        free = np.flatnonzero(left == 0)
        if coming < len(arrival) and len(free) == SLOTS:
            now = max(now, arrival[coming])
        last = min(coming + len(free), int(np.searchsorted(arrival, now, side="right")))
        places = free[: last - coming]
        left[places], context[places], coming = output[coming:last], requests.prompt[coming:last], last
        left -= left > 0
        context += left > 0
        now, steps = now + STEP_S, steps + 1
    return time.process_time() - start, steps


def main():
    """One line each."""
    rate = loop_rate()
    hour = process_s(f"from sim.serving import files, system; system.run(files.load({HOUR!r}))")
    rate = (rate + loop_rate()) / 2
    serve = files.load(HOUR)
    loop, steps = plain(asked.asked(serve.requests, serve.seed))
    search = process_s(f"from sim.serving import files, limit; list(limit.search(files.load({SEARCHED!r})))")
    rates = rate, (rate + loop_rate()) / 2
    for name, spent, at, most in (
        ("an hour on 40 nodes", hour, rates[0], MOST_S), (f"plain loop, {steps:,} steps", loop, rates[0], None),
        ("largest load within objectives", search, rates[1], MOST_SEARCH_S),
    ):  # fmt: skip
        limit = f" (most {most:g})" if most else ""
        print(f"{name:32} {spent:6.2f} s  {spent * at / REFERENCE:6.2f} s at reference{limit}")


if __name__ == "__main__":
    main()
