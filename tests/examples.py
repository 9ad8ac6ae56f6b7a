"""Examples of a property test that is dear: few in CI, TRAINYARD_EXAMPLES times as many where that is set (a night's
run: `TRAINYARD_EXAMPLES=20 make test`)."""

import os

from hypothesis import settings

TIMES = int(os.environ.get("TRAINYARD_EXAMPLES", "1"))


def examples(count: int, **more: object) -> settings:
    """Settings of a property test: `count` examples in CI; more: hypothesis' own."""
    return settings(max_examples=count * TIMES, deadline=None, **more)  # type: ignore[arg-type]
