"""CPU seconds of numbers alone for every model that ships, whole processes: `python -m tests.bench.models`.

All in the layout of scenarios/llama3_70b.yaml, models with experts over groups of 8. As on a machine whose SimPy loop
does REFERENCE timeouts a second (see tests/bench/runs.py).
"""

from sim.scenario import load
from tests.bench.runs import NUMBERS, REFERENCE, SCENARIOS, loop_rate, process_s

LAYOUT, MOST = "llama3_70b.yaml", 1.0
SHORT = {"gpt3_175b": "batch.sequence_length=2048"}
"""Models that learned fewer positions than the layout's sequences have tokens."""


def main():
    for name in sorted(file.stem for file in (SCENARIOS / "models").glob("*.yaml")):
        words = [f"model={name}", *([SHORT[name]] if name in SHORT else [])]
        routed = bool(getattr(load(str(SCENARIOS / LAYOUT), words).model, "experts", 0))
        words += ["parallel.expert=8"] * routed
        rate, spent = loop_rate(), process_s([LAYOUT, NUMBERS, *words])
        print(f"{name:28} {spent:6.2f} s  {spent * rate / REFERENCE:6.2f} s at reference (most {MOST})")


if __name__ == "__main__":
    main()
