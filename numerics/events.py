"""Chrome-trace events read one at a time: plain or gzip, object or array form, in memory that does not grow.

The format: "Trace Event Format" (the Chromium project), as torch.profiler writes it. Only a window of the text is held;
it slides over the events and grows only when one event is larger than it.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from hwmodels.units import MIB

CHUNK_BYTES = MIB
"""Read at once; a trace of small events never holds much more than this."""
VALUE_CHARACTERS = 16 * MIB
"""Largest event (or value beside traceEvents) that is accepted: what bounds memory on a file that is not a trace."""
EXACT_DIGITS = 16
"""A float holds this many characters of a number; longer ones (nanoseconds since 1970) are kept as Decimal."""
CUT_CHARACTERS = 12
"""A syntax error this close to the end of the text is a cut literal, escape or number, not a mistake."""

_SPACE = re.compile(r"[ \t\r\n]*")


class TraceError(ValueError):
    """A file that is not a readable trace; its text is one line with the file, the byte and what is wrong there."""


def _number(text: str) -> float | Decimal:
    return float(text) if len(text) <= EXACT_DIGITS else Decimal(text)


_DECODER = json.JSONDecoder(parse_float=_number, strict=False)  # torch writes raw control characters in names


class EventReader:
    """Iterates over the events of `path`; `head` fills with what the object form holds beside traceEvents.

    Iterating raises TraceError when the file cannot be read, is no trace, is cut short or is malformed. `place()` is
    the byte of the uncompressed text at which the last event began.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head: dict[str, Any] = {}
        self._last = 0
        self._window = _Window(path)

    def place(self) -> int:
        return self._window.byte(self._last)

    def error(self, message: str) -> TraceError:
        """TraceError about the last event."""
        return TraceError(f"{self.path}: byte {self.place()}: {message}")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self._window as window:
            first = window.peek()
            if not first:
                raise TraceError(f"{self.path}: is empty; expected a trace written by torch.profiler (JSON, or gzip)")
            if first == "[":
                yield from self._array(window, open_end=True)
            elif first == "{":
                yield from self._object(window)
            else:
                raise TraceError(
                    f"{self.path}: byte {window.byte()}: not a Chrome trace: begins with {window.glimpse()!r}, "
                    f"expected '{{' or '['"
                )
            if window.peek():
                raise window.error(f"text after the end of the trace: {window.glimpse()!r}")

    def _object(self, window: "_Window") -> Iterator[dict[str, Any]]:
        window.take("{")
        found = False
        while window.peek() != "}":
            key = window.value()
            if not isinstance(key, str):
                raise window.error(f"expected a key in quotes, found {key!r}")
            window.take(":")
            if key == "traceEvents":
                found = True
                yield from self._array(window, open_end=False)
            else:
                window.peek()
                self.head[key] = window.value()
            if window.peek() != "}":
                window.take(",")
        window.take("}")
        if not found:
            keys = ", ".join(sorted(self.head)[:8]) or "none"
            raise TraceError(f"{self.path}: not a Chrome trace: it has no traceEvents (keys found: {keys})")

    def _array(self, window: "_Window", open_end: bool) -> Iterator[dict[str, Any]]:
        """open_end: the closing bracket may be missing, as the format allows for bare arrays."""
        window.take("[")
        while window.peek() != "]":
            self._last = window.mark()
            event = window.value()
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


class _Window:
    """The part of the decoded text that is in memory: `text[at:]` is unread, `before` bytes came before `text`."""

    def __init__(self, path: Path) -> None:
        self.path, self.text, self.at, self.before, self.ended = path, "", 0, 0, False
        self.file: IO[bytes] | None = None
        self.decode = codecs.getincrementaldecoder("utf-8")().decode

    def __enter__(self) -> "_Window":
        self.text, self.at, self.before, self.ended = "", 0, 0, False
        self.decode = codecs.getincrementaldecoder("utf-8")().decode
        try:
            with self.path.open("rb") as file:
                magic = file.read(2)
            if magic == b"PK":
                raise TraceError(f"{self.path}: a zip archive; unpack it first (plain JSON and gzip are read)")
            self.file = gzip.open(self.path) if magic == b"\x1f\x8b" else self.path.open("rb")  # type: ignore[assignment]
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be read: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        assert self.file is not None
        self.file.close()

    def byte(self, at: int | None = None) -> int:
        """The byte of the whole text at which character `at` of the window lies (default: where reading stands)."""
        return self.before + len(self.text[: self.at if at is None else at].encode())

    def error(self, message: str, at: int | None = None) -> TraceError:
        return TraceError(f"{self.path}: byte {self.byte(at)}: {message}")

    def glimpse(self) -> str:
        return self.text[self.at : self.at + 20]

    def mark(self) -> int:
        """Where reading stands in the window; holds until the next mark, which may drop what lies before it."""
        self._drop()
        return self.at

    def _drop(self) -> None:
        """Forget what was read, once it is most of the window (so that each character is moved about once)."""
        if self.at > CHUNK_BYTES:
            self.before = self.byte()
            self.text, self.at = self.text[self.at :], 0

    def more(self) -> bool:
        """Read on; twice the window, so that a long value is parsed few times. False at the end of the file."""
        if self.ended:
            return False
        assert self.file is not None
        try:
            data = self.file.read(max(CHUNK_BYTES, len(self.text) - self.at))
            text = self.decode(data, final=not data)
        except UnicodeDecodeError as error:
            place = self.before + len(self.text.encode()) + error.start
            raise TraceError(f"{self.path}: byte {place}: not UTF-8 text ({error.reason})") from None
        except EOFError:
            raise self.error("the gzip stream is cut short: copy the file again", len(self.text)) from None
        except (OSError, zlib.error) as error:
            raise self.error(f"the file is damaged: {error}", len(self.text)) from None
        if not self.text and not self.before and text.startswith("\ufeff"):
            text, self.before = text[1:], 3
        self.ended = not data
        self.text += text
        return not self.ended

    def peek(self) -> str:
        """The next character that is no space, or "" at the end of the file."""
        while True:
            found = _SPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            self._drop()
            if not self.more():
                return ""

    def take(self, character: str) -> None:
        found = self.peek()
        if not found:
            raise self.error(f"the trace is cut short: expected {character!r}, found the end of the file")
        if found != character:
            raise self.error(f"malformed: expected {character!r}, found {self.glimpse()!r}")
        self.at += 1

    def value(self) -> Any:
        """The JSON value that begins here."""
        if not self.peek():
            raise self.error("the trace is cut short: expected a value, found the end of the file")
        while True:
            problem, at = "", self.at
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:  # a number at the very end may go on
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                problem, at = error.msg, error.pos
            except RecursionError:
                raise self.error("malformed: nested too deeply") from None
            if problem and not self._may_go_on(problem, at):
                raise self.error(f"malformed: {problem}", at)
            if len(self.text) - self.at > VALUE_CHARACTERS:
                raise self.error(f"a value of more than {VALUE_CHARACTERS // MIB} MiB; is this a trace?")
            if not self.more() and problem:
                raise self.error("the trace is cut short: the file ends inside a value", len(self.text))

    def _may_go_on(self, problem: str, at: int) -> bool:
        """Whether a syntax error at `at` may only be the end of what was read so far."""
        return problem.startswith("Unterminated") or at >= len(self.text) - CUT_CHARACTERS
