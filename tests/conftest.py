"""Garbage is looked for seldom; property tests have fewer examples than the library's 100 (a run of all tests has 12
minutes), and no deadline, which a busy machine misses."""

import gc

from hypothesis import settings

from sim.__main__ import FEW_CIRCLES
from tests.examples import TIMES

settings.register_profile("trainyard", max_examples=40 * TIMES, deadline=None)
settings.load_profile("trainyard")
gc.set_threshold(FEW_CIRCLES)  # from the first module on: with Python's 700, listing the tests took 35 s, not 14


def pytest_collection_finish() -> None:
    """Modules and tests live to the end, so nobody looks through them for circles of garbage."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Nor through what is left when the process ends."""
    gc.freeze()
