"""A window that slides over JSON text of any size, plain or gzip: values are read one at a time, or passed over.

What is held is at most one value and what was read with it.
"""

import codecs
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from hwmodels.refused import Refused
from hwmodels.units import MIB

CHUNK_BYTES = MIB
"""Read at once; a trace of small events never holds much more than this."""
SHOWN_KEYS, KEY_CHARACTERS = 8, 60
"""How much is kept of the keys of an object that is passed over."""
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
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\]]', re.DOTALL)
_WORD = re.compile(r"[^,\]} \t\r\n]*")
_PLAIN = re.compile(r'[^"\\]*')
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f]")


class TraceError(Refused):
    """A file that is not a readable trace; its text is one line with the file, the byte and what is wrong there."""


class TooLongError(Exception):
    """A value that is longer than it may be; nothing of it was taken."""


_DECODER = json.JSONDecoder(parse_float=str, strict=False)  # torch writes raw control characters in names


class Window:
    """The part of the decoded text that is in memory: `text[at:]` is unread, `before` bytes came before `text`."""

    def __init__(self, path: Path) -> None:
        self.path, self.text, self.at, self.before, self.ended = path, "", 0, 0, False
        self.raw: BinaryIO | None = None
        self.file: IO[bytes] | gzip.GzipFile | None = None
        self.size = 0
        self.decode = codecs.getincrementaldecoder("utf-8")().decode

    def __enter__(self) -> "Window":
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

    def more(self, most: int = sys.maxsize) -> bool:
        """Read on; twice the window, so that a long value is parsed few times, but at most `most`. False at the end of
        the file."""
        if self.ended:
            return False
        assert self.file is not None
        try:
            data = self.file.read(max(1, min(most, max(CHUNK_BYTES, len(self.text) - self.at))))
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

    def value(self, most: int) -> Any:
        """The JSON value that begins here. Raises TooLongError when it has more than `most` characters."""
        if not self.peek():
            raise self.error("the trace is cut short: expected a value, found the end of the file")
        while True:
            problem, at = "", self.at
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                if end - self.at > most:
                    raise TooLongError
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
            if len(self.text) - self.at > most:
                raise TooLongError
            if not self.more(most - len(self.text) + self.at + 1) and problem:
                raise self.error("the trace is cut short: the file ends inside a value", len(self.text))

    def pass_over(self) -> tuple[list[str], int]:
        """Goes behind the value that begins here, or to the end of the file, keeping nothing of it.

        Returns its first keys, and how many it has, if it is an object.
        """
        keys: list[str] = []
        depth = count = 0
        if self.peek() not in ("{", "[", '"'):
            self._pass_word()
            return keys, count
        while self.peek():
            for token in _TOKEN.finditer(self.text, self.at):
                mark = self.text[token.start()]
                self.at = token.end()
                if mark == '"' and (depth < 2 or token.end() - token.start() == 1):
                    begin = self._string() if token.end() - token.start() == 1 else token[0][1 : KEY_CHARACTERS + 2]
                    if depth == 1 and self.peek() == ":":
                        count += 1
                        keys += [begin.removesuffix('"')] * (len(keys) < SHOWN_KEYS)
                    break
                if mark != '"':
                    depth += 1 if mark in "{[" else -1
                if not depth:
                    break
            else:
                self.at = len(self.text)
                continue
            if not depth:
                break
        return keys, count

    def _pass_word(self) -> None:
        """Goes behind a number, or what stands for one."""
        while self.at == len(self.text) or self.text[self.at] not in ",]} \t\r\n":
            word = _WORD.match(self.text, self.at)
            self.at = word.end() if word else self.at
            if self.at == len(self.text):
                self._drop()
                if not self.more():
                    return

    def _string(self) -> str:
        """Goes behind the quote that ends the string which stands here; returns the beginning of what it says."""
        begin = ""
        while True:
            plain = _PLAIN.match(self.text, self.at)
            end = plain.end() if plain else self.at
            begin += self.text[self.at : min(end, self.at + KEY_CHARACTERS + 1 - len(begin))]
            self.at = end
            if self.at + 2 > len(self.text) and not self.text[self.at :].startswith('"'):
                self._drop()
                if not self.more():
                    self.at = len(self.text)
                    return begin
            elif self.text[self.at] == '"':
                self.at += 1
                return begin
            else:
                self.at += 2

    def _may_go_on(self, problem: str, at: int) -> bool:
        """Whether a syntax error at `at` may only be the end of what was read so far."""
        return problem.startswith("Unterminated") or at >= len(self.text) - CUT_CHARACTERS
