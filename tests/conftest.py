"""Garbage is looked for seldom; property tests have fewer examples than the library's 100 (a run of all tests has 12
minutes), and no deadline, which a busy machine misses."""

import gc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from sim.__main__ import FEW_CIRCLES
from tests.examples import TIMES

settings.register_profile("trainyard", max_examples=40 * TIMES, deadline=None)
settings.load_profile("trainyard")
gc.set_threshold(FEW_CIRCLES)  # from the first module on: with Python's 700, listing the tests took 35 s, not 14


HERE = Path(__file__).parent
DEAR = {
    "sim/experiments/test_executors.py": 25, "sim/experiments/test_sensitivity.py": 17,
    "sim/experiments/test_search.py": 15, "sim/experiments/test_unfelt.py": 14, "sim/experiments/test_advice.py": 11,
    "sim/engine/test_arrays.py": 11, "sim/communication/fabric/test_network.py": 8, "sim/routing/test_loads.py": 8,
    "sim/engine/test_kernels.py": 7, "numerics/card/test_node.py": 12, "numerics/card/test_node_routed.py": 8,
    "numerics/card/test_node_steps.py": 5, "numerics/card/test_node_runs.py": 5, "cross/test_reproducible.py": 12,
    "cross/test_planning.py": 5, "cross/test_nic_sharing.py": 4, "cross/test_kept.py": 8,
}  # fmt: skip
"""Files of few tests, but of so many seconds."""
USUAL_S = 0.05
"""Seconds of a test in any other file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no process has one of them left when the others are done."""
    tests = Counter(item.path for item in items)
    seconds = {path: DEAR.get(path.relative_to(HERE).as_posix(), USUAL_S * count) for path, count in tests.items()}
    items.sort(key=lambda item: (-seconds[item.path], item.path))


def pytest_collection_finish() -> None:
    """Modules and tests live to the end, so nobody looks through them for circles of garbage."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Nor through what is left when the process ends."""
    gc.freeze()
