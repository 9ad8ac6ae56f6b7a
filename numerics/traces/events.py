"""Chrome-trace events read one at a time: plain or gzip, object or array form, in memory that does not grow.

The format: "Trace Event Format" (the Chromium project), as torch.profiler writes it. Only a window of the text is held;
it slides over the events and grows only when one event is larger than it. What is no trace is told by its first bytes.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from hwmodels.units import MIB

CHUNK_BYTES = MIB
"""Read at once; a trace of small events never holds much more than this."""
VALUE_CHARACTERS = 16 * MIB
"""Largest event that is accepted, and all that may stand beside traceEvents: what bounds memory on any file."""
CUT_CHARACTERS = 12
"""A syntax error this close to the end of the text is a cut literal, escape or number, not a mistake."""
FOREIGN = {
    b"PK": "a zip archive; unpack it first", b"BZh": "packed with bzip2; unpack it first",
    b"\xfd7zXZ": "packed with xz; unpack it first", b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it first",
    b"SQLite format 3": "an SQLite database (Nsight Systems exports these), not a trace of torch.profiler",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8", b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}  # fmt: skip
"""First bytes of files that are no trace (their formats' documents) -> what they are and what to do."""
EXPECTED = "expected a trace as torch.profiler exports it (export_chrome_trace): JSON, or gzip of it"

_SPACE = re.compile(r"[ \t\r\n]*")
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


class TraceError(ValueError):
    """A file that is not a readable trace; its text is one line with the file, the byte and what is wrong there."""


_DECODER = json.JSONDecoder(parse_float=str, strict=False)  # torch writes raw control characters in names


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
        self._room = VALUE_CHARACTERS
        self._window = _Window(path)

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

    def _object(self, window: "_Window") -> Iterator[dict[str, Any]]:
        window.take("{")
        has_events = False
        while window.peek() != "}":
            key = window.value()
            if not isinstance(key, str):
                raise window.error(f"expected a key in quotes, found {key!r}")
            window.take(":")
            if key == "traceEvents":
                has_events = True
                if window.peek() not in ("", "["):
                    raise window.error(f"traceEvents is not a list of events, found {window.glimpse()!r}; {EXPECTED}")
                yield from self._array(window, open_end=False)
            else:
                self._keep(key, window)
            if window.peek() != "}":
                window.take(",")
        window.take("}")
        if not has_events:
            keys = ", ".join(sorted(self.head)[:8]) or "none"
            raise TraceError(f"{self.path}: not a Chrome trace: it has no traceEvents (keys found: {keys}); {EXPECTED}")

    def _keep(self, key: str, window: "_Window") -> None:
        """Takes a value beside traceEvents into `head`."""
        window.peek()
        began = window.mark()
        self.head[key] = window.value()
        self._room -= len(key) + window.at - began
        if self._room < 0:
            raise window.error(f"more than {VALUE_CHARACTERS // MIB} MiB beside traceEvents; is this a trace?")

    def _array(self, window: "_Window", open_end: bool) -> Iterator[dict[str, Any]]:
        """open_end: the closing bracket may be missing, as the format allows for bare arrays."""
        window.take("[")
        while window.peek() != "]":
            for self._last, event in window.run():
                yield event
            if window.peek() == "]":
                break
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
        self.raw: BinaryIO | None = None
        self.file: IO[bytes] | gzip.GzipFile | None = None
        self.size = 0
        self.decode = codecs.getincrementaldecoder("utf-8")().decode

    def __enter__(self) -> "_Window":
        self.text, self.at, self.before, self.ended = "", 0, 0, False
        self.decode = codecs.getincrementaldecoder("utf-8")().decode
        try:
            if self.path.exists() and not self.path.is_file():
                kind = "a directory" if self.path.is_dir() else "not a regular file"
                raise TraceError(f"{self.path}: is {kind}; {EXPECTED}")
            self.size = self.path.stat().st_size
            self.raw = file = self.path.open("rb")
            first = file.peek(2)
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be read: {error.strerror}") from None
        self.file = gzip.GzipFile(fileobj=file) if first.startswith(b"\x1f\x8b") else file
        return self

    def __exit__(self, *_: object) -> None:
        assert self.raw is not None
        self.raw.close()

    def _packed(self) -> int:
        """How many bytes of the file as it lies on disk were read."""
        return self.raw.tell() if self.raw and not self.raw.closed else 0

    def share(self) -> float:
        return self._packed() / self.size if self.size else 0.0

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
        except EOFError:
            raise TraceError(f"{self.path}: the gzip stream is cut short at byte {self.size}; copy it again") from None
        except (OSError, zlib.error) as error:
            raise TraceError(f"{self.path}: is damaged before byte {self._packed()}: {error}; copy it again") from None
        first = not self.text and not self.before
        if first:
            self._refuse_foreign(data)
        try:
            text = self.decode(data, final=not data)
        except UnicodeDecodeError as error:
            place = self.before + len(self.text.encode()) + error.start
            raise TraceError(f"{self.path}: byte {place}: not UTF-8 text ({error.reason}); {EXPECTED}") from None
        if first and text.startswith("\ufeff"):
            text, self.before = text[1:], 3
        self.ended = not data
        self.text += text
        return not self.ended

    def _refuse_foreign(self, data: bytes) -> None:
        """Raises TraceError for the beginning of a file that is known to be something else, or is no text."""
        what = next((kind for magic, kind in FOREIGN.items() if data.startswith(magic)), "")
        if not what and _BINARY.search(data[:64].decode("latin-1")):
            what = f"a binary file, begins with {data[:8].hex(' ')}; {EXPECTED}"
        if what:
            raise TraceError(f"{self.path}: is {what}")

    def run(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The objects at hand that have a comma behind them, with where they begin; `value` reads what is left.

        Nothing that cannot be read raises here: `value` meets it again and says what is wrong.
        """
        text, at = self.text, self.at
        while True:
            try:
                value, end = _DECODER.scan_once(text, at)  # type: ignore[attr-defined]
            except (StopIteration, ValueError, RecursionError):
                return
            comma = _COMMA.match(text, end)
            if comma is None or type(value) is not dict:
                return
            begin, at = at, comma.end()
            self.at = at
            yield begin, value

    def peek(self) -> str:
        """The next character that is no space, or "" at the end of the file."""
        while True:
            space = _SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            self._drop()
            if not self.more():
                return ""

    def take(self, character: str) -> None:
        ahead = self.peek()
        if not ahead:
            raise self.error(f"the trace is cut short: expected {character!r}, found the end of the file")
        if ahead != character:
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
            except ValueError:  # Python's own limit
                raise self.error("malformed: a number of thousands of digits") from None
            if problem and not self._may_go_on(problem, at):
                raise self.error(f"malformed: {problem}", at)
            if len(self.text) - self.at > VALUE_CHARACTERS:
                raise self.error(f"a value of more than {VALUE_CHARACTERS // MIB} MiB; is this a trace?")
            if not self.more() and problem:
                raise self.error("the trace is cut short: the file ends inside a value", len(self.text))

    def _may_go_on(self, problem: str, at: int) -> bool:
        """Whether a syntax error at `at` may only be the end of what was read so far."""
        return problem.startswith("Unterminated") or at >= len(self.text) - CUT_CHARACTERS
