"""Property tests: fewer examples than the library's 100 (a run of all tests has 12 minutes), and no deadline, which a
busy machine misses."""

from hypothesis import settings

settings.register_profile("trainyard", max_examples=40, deadline=None)
settings.load_profile("trainyard")
