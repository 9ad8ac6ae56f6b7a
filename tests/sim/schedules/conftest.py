"""The independent evaluator (tests/oracles/schedule_clock.py) as a fixture, loaded by path: tests are no package."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def clock():
    """clock(program, f, b, w, fb, p2p) -> makespan, idle per rank, start and end per rank and step."""
    path = Path(__file__).parents[2] / "oracles" / "schedule_clock.py"
    spec = spec_from_file_location("schedule_clock", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.clock
