"""Runs that several tests read: DeepSeek-V3 at each level of detail, and a small model on one or two nodes."""

from functools import cache
from pathlib import Path

import pytest

from sim.scenario import from_mapping, load
from sim.simulation import run

V3 = Path(__file__).parents[2] / "scenarios" / "v3_2048gpu.yaml"
SMALL = {
    "name": "small",
    "cluster": {"node": "h800x8", "nodes": 1},
    "model": {"base": "deepseek_v2_lite", "layers": 4, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "precision": "fp8",
    "parallel": {"pipeline": 2, "expert": 2},
    "schedule": "dualpipe",
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
    "detail": "op",
    "outputs": ["result", "events"],
}


@cache
def _small(*overrides, interval=False):
    return run(from_mapping(SMALL, overrides), interval)


@cache
def _v3(*overrides):
    return run(load(str(V3), ["outputs=[result]", *overrides]), interval=False)


@pytest.fixture(scope="session")
def small():
    """small("key=value", ..., interval=True) -> Result of the small scenario, each run once."""
    return _small


@pytest.fixture(scope="session")
def small_scenario():
    """small_scenario("key=value", ...) -> Scenario."""
    return lambda *overrides: from_mapping(SMALL, overrides)


@pytest.fixture(scope="session")
def v3():
    """v3("key=value", ...) -> Result of the main scenario without traces (unless outputs say so) and intervals, each
    run once."""
    return _v3


@pytest.fixture(scope="session")
def v3_file():
    return V3
