"""Garbage is looked for seldom; property tests have fewer examples than the library's 100 (a run of all tests has 12
minutes), and no deadline, which a busy machine misses."""

import gc

from hypothesis import settings

from sim.__main__ import FEW_CIRCLES

settings.register_profile("trainyard", max_examples=40, deadline=None)
settings.load_profile("trainyard")


def pytest_collection_finish() -> None:
    """Modules and tests live to the end, so nobody looks through them for circles of garbage, and seldom elsewhere, as
    in a run of the command line."""
    gc.freeze()
    gc.set_threshold(FEW_CIRCLES)
