"""Readers of published request traces, and of a plain CSV.

Azure 2023 and 2024 (Azure/AzurePublicDataset): TIMESTAMP, ContextTokens, GeneratedTokens. Mooncake
(kvcache-ai/Mooncake, FAST25): a line of JSON each, timestamp in ms, and hash_ids of blocks of 512 tokens. BurstGPT
(HPMLL/BurstGPT): Timestamp in s, Request tokens, Response tokens. csv: arrival_s, prompt, output.
"""

import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from hwmodels.document import did_you_mean
from hwmodels.refused import Refused
from hwmodels.units import MS_PER_S
from sim.models.form import MOST

if TYPE_CHECKING:
    from _csv import Reader

Number = TypeVar("Number", int, float)

MOONCAKE_BLOCK = 512
"""Tokens of a block of Mooncake's traces."""
LATEST_S = 4e9
"""Of an arrival: a date of this century, in seconds since 1970; as nanoseconds 64 bits hold it."""


class Row(NamedTuple):
    """A request: seconds, tokens of its prompt and of its answer, names of its prompt's blocks."""

    arrival_s: float
    prompt: int
    output: int
    blocks: tuple[int, ...] = ()


def read(file: str, form: str) -> list[Row]:
    """Requests of a trace. Raises Refused, with the line, for what cannot be read."""
    try:
        text = plain(Path(file)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused("not a text file (UTF-8 expected)", file) from None
    except (OSError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise Refused(f"cannot be read: {getattr(error, 'strerror', None) or error}", file) from None
    rows = list((_mooncake if form == "mooncake" else _table)(file, text, form))
    if not rows:
        raise Refused("has no requests", file)
    return rows


def plain(file: Path) -> bytes:
    """What a file says, whose name may end with .xz or .gz: it is compressed then."""
    packed = file.read_bytes()
    if file.suffix == ".xz":
        return lzma.decompress(packed)
    return gzip.decompress(packed) if file.suffix == ".gz" else packed


def _table(file: str, text: str, form: str) -> Iterator[Row]:
    keys, time = COLUMNS[form]
    reader = csv.reader(text.splitlines())
    names = [name.strip() for name in next(_lines(file, reader), ())]
    if twice := [key for key in keys if names.count(key) > 1]:
        raise Refused(f"has {names.count(twice[0])} columns {twice[0]}; legal: one", file, 1)
    for key in keys:
        if key not in names:
            near = did_you_mean(key, names)
            raise Refused(f"has no column {key}{near or ';'} found: {', '.join(names) or 'nothing'}", file, 1)
    for line in _lines(file, reader):
        if line:
            if len(line) > len(names):
                what = f"is no request: found {len(line)} values for {len(names)} columns"
                raise Refused(what, file, reader.line_num)
            said = {**dict.fromkeys(names, ""), **dict(zip(names, line, strict=False))}
            try:
                arrival, prompt, output = (said[key] for key in keys)
                yield _request(_read(time, arrival, keys[0]), prompt, output, keys[1:])
            except ValueError as error:
                raise Refused(f"is no request: {error}", file, reader.line_num) from None


def _lines(file: str, reader: "Reader") -> Iterator[list[str]]:
    """Lines of a table. Raises Refused for one that is none."""
    try:
        yield from reader
    except csv.Error as error:
        raise Refused(f"is no line of a table: {error}", file, reader.line_num) from None


def _mooncake(file: str, text: str, form: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            read = json.loads(line)
            if not isinstance(read, dict):
                raise ValueError("found no mapping")
            if missing := next((key for key in MOONCAKE if key not in read), ""):
                raise ValueError(f"{missing!r} is missing")
            blocks = read.get("hash_ids", ())
            if not isinstance(blocks, list | tuple) or not all(type(name) is int for name in blocks):
                raise ValueError("hash_ids: expected a list of whole numbers")
            time, prompt, output = (read[key] for key in MOONCAKE)
            row = _request(_read(float, time, MOONCAKE[0]) / MS_PER_S, prompt, output, MOONCAKE[1:])
            if len(blocks) > -(-row.prompt // MOONCAKE_BLOCK):
                what = f"found {len(blocks)} blocks of {MOONCAKE_BLOCK} tokens for a prompt of {row.prompt}"
                raise ValueError(f"hash_ids: {what}")
            yield row._replace(blocks=tuple(blocks))
        except (ValueError, RecursionError) as error:
            raise Refused(f"is no request of a {form} trace: {error}", file, number) from None


def _request(arrival: float, prompt: Any, output: Any, keys: Sequence[str]) -> Row:
    """A request, with a token at least each way: some traces have answers of none. Raises ValueError."""
    row = Row(arrival, _read(_whole, prompt, keys[0]), _read(_whole, output, keys[1]))
    if not (0 <= row.prompt <= MOST and 0 <= row.output <= MOST and 0 <= row.arrival_s <= LATEST_S):
        what = f"found {row.arrival_s:g} s, {row.prompt} and {row.output} tokens"
        raise ValueError(f"{what}; legal: 0 or more each, up to {LATEST_S:g} s and {MOST} tokens")
    return row._replace(prompt=max(1, row.prompt), output=max(1, row.output))


def _read(kind: Callable[[Any], Number], value: Any, key: str) -> Number:
    """A value as its column has it. Raises ValueError."""
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{key}: expected {WORDS[kind]}; found {value!r}") from None


def _whole(value: Any) -> int:
    """A number without a fraction, as text too. Raises ValueError."""
    number = int(value)
    if isinstance(value, bool) or number != (float(value) if isinstance(value, float) else number):
        raise ValueError
    return number


def _moment(text: str) -> float:
    """Seconds of a date and time; UTC where it names no zone, wherever it is read."""
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


WORDS: dict[Callable[[Any], Any], str] = {
    float: "a number", _whole: "a whole number", _moment: "a date and a time",
}  # fmt: skip
"""How a value is read, and what it is called."""
MOONCAKE = ("timestamp", "input_length", "output_length")
"""Keys of a line of Mooncake's."""
COLUMNS: dict[str, tuple[tuple[str, str, str], Callable[[str], float]]] = {
    "csv": (("arrival_s", "prompt", "output"), float),
    "azure": (("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _moment),
    "burstgpt": (("Timestamp", "Request tokens", "Response tokens"), float),
}
"""Format -> columns, and how its times are read."""
