"""CPU seconds of numbers alone for every model that ships, whole processes: `python -m tests.bench.models`.

All in the layout of scenarios/llama3_70b.yaml, models with experts over groups of 8; those that have no room there run
with what LARGE says, and once more without it, which is a refusal with its advice. As on a machine whose SimPy loop
does REFERENCE timeouts a second (see tests/bench/runs.py).
"""

from collections.abc import Sequence

from sim.scenario import load
from tests.bench.runs import NUMBERS, REFERENCE, SCENARIOS, loop_rate, process_s

LAYOUT, MOST = "llama3_70b.yaml", 1.0
SHORT = {"gpt3_175b": "batch.sequence_length=2048"}
"""Models that learned fewer positions than the layout's sequences have tokens."""

TENSOR = ("stack=megatron", "parallel.tensor=8")
LARGE = {
    "gpt3_175b": TENSOR, "llama3_405b": TENSOR, "nemotron4_340b": TENSOR,
    "nemotron3_ultra_550b_a55b": ("states.gradients=bf16",),
}  # fmt: skip
"""Models for which 16 stages of whole layers are too few, and what makes them fit into 256 H200s."""


def main():
    for name in sorted(file.stem for file in (SCENARIOS / "models").glob("*.yaml")):
        words = [f"model={name}", *([SHORT[name]] if name in SHORT else [])]
        routed = bool(getattr(load(str(SCENARIOS / LAYOUT), words).model, "experts", 0))
        words += ["parallel.expert=8"] * routed
        show(name, [*words, *LARGE.get(name, ())], f"most {MOST}")
        if name in LARGE:
            show("", words, "no room, with advice")


def show(name: str, words: Sequence[str], beside: str) -> None:
    rate, spent = loop_rate(), process_s([LAYOUT, NUMBERS, *words])
    print(f"{name:28} {spent:6.2f} s  {spent * rate / REFERENCE:6.2f} s at reference ({beside})")


if __name__ == "__main__":
    main()
