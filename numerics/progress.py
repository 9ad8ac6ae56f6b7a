"""A progress bar for a person who waits: on a terminal only, and only when it takes long enough to wonder."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

PATIENCE_S = 2.0
"""Shorter than this needs no bar."""
REDRAWN_S = 0.1
WIDTH = 30


@contextmanager
def bar(label: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[float], None]]:
    """Gives a function that is told the share done, 0 to 1. The line is wiped at the end, whatever ends it."""
    began, drawn = clock(), 0.0
    shown = stream.isatty()

    def draw(share: float) -> None:
        nonlocal drawn
        now = clock()
        if shown and now - began >= PATIENCE_S and now - drawn >= REDRAWN_S:
            part = min(max(share, 0.0), 1.0)
            full = round(WIDTH * part)
            stream.write(f"\r{label} [{'#' * full}{'.' * (WIDTH - full)}] {part:4.0%} {now - began:.0f} s")
            stream.flush()
            drawn = now

    try:
        yield draw
    finally:
        if drawn:
            stream.write("\r\033[K")
            stream.flush()
