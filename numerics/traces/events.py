"""Chrome-trace events read one at a time: plain or gzip, object or array form, in memory that does not grow.

The format: "Trace Event Format" (the Chromium project), as torch.profiler writes it. Only a window of the text is held;
it slides over the events and grows only when one event is larger than it. What is no trace is told by its first bytes,
or by the keys that it has, which are read past values of any size.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwmodels.units import MIB
from numerics.traces.window import EXPECTED, KEY_CHARACTERS, SHOWN_KEYS, TooLongError, TraceError, Window

VALUE_CHARACTERS = 16 * MIB
"""Largest event that is accepted: what bounds memory on any file."""
HEAD_CHARACTERS = 4 * MIB
"""All that is kept of what stands beside traceEvents; what is longer is passed over."""
KINDS = {
    "nodes": "an execution trace (of PyTorch, or Chakra), which has no times of kernels",
    "rocprofiler-sdk-tool": "an output of rocprofv3",
}  # fmt: skip
"""Keys of other files that profilers write -> what they are."""


class EventReader:
    """Iterates over the events of `path`; `head` fills with what the object form holds beside traceEvents.

    Numbers with a point or an exponent stay as they are written: nanoseconds since 1970 do not fit a float.

    Iterating raises TraceError when the file cannot be read, is no trace, is cut short or is malformed. `place()` is
    the byte of the uncompressed text at which the last event began.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head: dict[str, Any] = {}
        self._last = 0
        self._room = HEAD_CHARACTERS
        self._keys: list[str] = []
        self._window = Window(path)

    def share(self) -> float:
        """How much of the file was read, 0 to 1."""
        return self._window.share()

    def place(self) -> int:
        return self._window.byte(self._last)

    def error(self, message: str) -> TraceError:
        """TraceError about the last event."""
        return TraceError(f"{self.path}: byte {self.place()}: {message}")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self._window as window:
            first = window.peek()
            if not first:
                raise TraceError(f"{self.path}: is empty; {EXPECTED}")
            if first == "[":
                yield from self._array(window, open_end=True)
            elif first == "{":
                yield from self._object(window)
            else:
                raise window.error(f"not a Chrome trace: begins with {window.glimpse()!r}; {EXPECTED}")
            if window.peek():
                raise window.error(f"text after the end of the trace: {window.glimpse()!r}")

    def _object(self, window: Window) -> Iterator[dict[str, Any]]:
        window.take("{")
        count, events = 0, False
        while window.peek() != "}":
            key = self._key(window)
            count += 1
            window.take(":")
            if key == "traceEvents":
                events = True
                if window.peek() not in ("", "["):
                    raise window.error(f"traceEvents is not a list of events, found {window.glimpse()!r}; {EXPECTED}")
                yield from self._array(window, open_end=False)
            else:
                self._keep(key, window)
            if window.peek() != "}":
                window.take(",")
        window.take("}")
        if not events:
            keys = _said(self._keys, count)
            what = next((f"; it is {kind}" for key, kind in KINDS.items() if key in self._keys), "")
            raise TraceError(
                f"{self.path}: not a Chrome trace: it has no traceEvents (keys found: {keys}){what}; {EXPECTED}"
            )

    def _key(self, window: Window) -> str:
        try:
            key = window.value(VALUE_CHARACTERS)
        except TooLongError:
            raise window.error(f"a key of more than {VALUE_CHARACTERS // MIB} MiB; is this a trace?") from None
        if not isinstance(key, str):
            raise window.error(f"expected a key in quotes, found {str(key)[:40]!r}")
        if len(self._keys) <= SHOWN_KEYS or key in KINDS:
            self._keys.append(key)
        return key

    def _keep(self, key: str, window: Window) -> None:
        """Takes a value beside traceEvents into `head`, as long as there is room; passes over it when there is not."""
        window.peek()
        began = window.mark()
        try:
            value = window.value(self._room)
        except TooLongError:
            window.pass_over()
            return
        self._room = max(0, self._room - len(key) - window.at + began)
        self.head[key] = value

    def _array(self, window: Window, open_end: bool) -> Iterator[dict[str, Any]]:
        """open_end: the closing bracket may be missing, as the format allows for bare arrays."""
        window.take("[")
        while window.peek() != "]":
            for self._last, event in window.run():
                yield event
            if window.peek() == "]":
                break
            self._last = window.mark()
            event = self._event(window)
            if not isinstance(event, dict):
                raise self.error(f"an event is an object, found {type(event).__name__} {str(event)[:40]!r}")
            yield event
            after = window.peek()
            if not after and open_end:
                return
            if after != "]":
                window.take(",")
                if not window.peek() and open_end:
                    return
        window.take("]")

    def _event(self, window: Window) -> Any:
        try:
            return window.value(VALUE_CHARACTERS)
        except TooLongError:
            place = self.place()
            keys, count = window.pass_over()
            what = f" (keys found: {_said(keys, count)})" if count else ""
            size = VALUE_CHARACTERS // MIB
            message = f"{self.path}: byte {place}: a value of more than {size} MiB{what}; is this a trace?"
            raise TraceError(message) from None


def _said(keys: list[str], count: int) -> str:
    """Some of `count` keys in one line."""
    shown = sorted(key if len(key) <= KEY_CHARACTERS else f"{key[:KEY_CHARACTERS]}..." for key in keys[:SHOWN_KEYS])
    more = f" and {count - len(shown)} more" if count > len(shown) else ""
    return "".join(c if c.isprintable() else "?" for c in ", ".join(shown) or "none") + more
