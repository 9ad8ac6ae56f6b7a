"""The list of result.json's keys: all that runs say is in it, and nothing that no run says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sim
from sim.result.figures import FIGURES, legal, nearest
from sim.scenario import SCENARIOS, load

GOLDEN = Path(__file__).parents[2] / "golden"
TOLD = ("waterfall", "stages", "feasible")
"""What the golden files hold beside keys of result.json, or in another form."""
UNSEEN = {
    "wall_seconds", "scenario_hash", "events", "feasible", "faults_without_effect.*", "links.left_out",
    "bubble_s.sends", "files.*", "unfelt.*", *(key for key in FIGURES if key.startswith("documents.")),
    "advice.*.*", "advice.*.change.*", "communication.*.way|sms",
    *(key for key in FIGURES if key.startswith(("memory_beside.", "interval_parts.", "campaign.", "binds."))),
    *(key for key in FIGURES if key.startswith(("serve.", "rl."))),
}  # fmt: skip
"""Keys that the golden files leave out, and those of runs that they have none of."""


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inner:
        yield ".".join(path)
    for key, each in inner:
        yield from leaves(each, (*path, str(key).replace(".", "_")))


def golden() -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in GOLDEN.glob("result_*.json"))
    contents = [json.loads(text) for text in texts]
    return {key for content in contents for key in leaves({k: v for k, v in content.items() if k not in TOLD})}


def test_every_key_that_a_run_says_is_listed_and_described() -> None:
    keys = golden()
    assert len(keys) > 500 and sorted(key for key in keys if not legal(key)) == []
    assert [key for key, text in FIGURES.items() if len(text) < 8] == []


def test_every_key_that_is_listed_is_one_that_a_run_says() -> None:
    said = [key.split(".") for key in golden()]
    for pattern in FIGURES.keys() - UNSEEN:
        parts = pattern.removesuffix(".*").split(".")
        keys = (key for key in said if len(key) >= len(parts))
        assert any(all(p == "*" or k in p.split("|") for k, p in zip(key, parts, strict=False)) for key in keys), parts


@pytest.mark.parametrize(("key", "near"), [
    ("step_tim_s", ", did you mean 'step_time_s'?"), ("phases_s.bubbles", ", did you mean 'phases_s.bubble'?"),
    ("mfu.causal.x", ", did you mean 'mfu.causal'?"), ("xyzzy", ""), ("memory.peak_bytes", None),
])  # fmt: skip
def test_a_key_that_is_none_is_told_with_the_nearest(key: str, near: str | None) -> None:
    assert not legal(key) and (near is None or nearest(key) == near)


def test_the_start_of_a_key_is_one(key: str = "phases_per_rank.overlapped.7") -> None:
    parts = key.split(".")
    assert all(legal(".".join(parts[:size])) for size in (1, 2, 3)) and not legal(f"{key}.x")


def test_the_worst_position_and_what_fits_are_said() -> None:
    """At 2 sequences a micro-batch V3 does not fit: 108.8 GB of 80."""
    summary = sim.run(load(str(SCENARIOS / "v3_2048gpu.yaml"), ["batch.micro_batch=2", "outputs=[result]"])).summary
    totals = [peak["total"] for peak in summary["peak_memory_bytes"]]
    assert summary["worst_memory"] == {
        "peak_bytes": max(totals), "capacity_bytes": 80 * 10**9, "position": totals.index(max(totals))
    }  # fmt: skip
    assert summary["worst_memory"]["peak_bytes"] > 100e9 and not summary["feasible"] and summary["gpus"] == 2048
    assert summary["overrides"] == ["batch.micro_batch=2", "outputs=[result]"]


@pytest.mark.parametrize("name", ["v3_2048gpu", "v2_lite"])
def test_the_layers_of_stages_can_be_given_back_as_a_placement(name: str) -> None:
    """V3 has 61 layers, and a prediction module that the list leaves out."""
    path = str(SCENARIOS / f"{name}.yaml")
    one = sim.run(load(path, ["outputs=[result]"]), interval=False).summary
    two = sim.run(load(path, ["outputs=[result]", f"placement={one['layers_per_stage']}"]), interval=False).summary
    assert two["step_time_s"] == one["step_time_s"] and two["layers_per_stage"] == one["layers_per_stage"]
