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
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from hwmodels.document import did_you_mean
from hwmodels.refused import Refused
from hwmodels.units import MS_PER_S

MOONCAKE_BLOCK = 512
"""Tokens of a block of Mooncake's traces."""


class Row(NamedTuple):
    """A request: seconds, tokens of its prompt and of its answer, names of its prompt's blocks."""

    arrival_s: float
    prompt: int
    output: int
    blocks: tuple[int, ...] = ()


def read(file: str, form: str) -> list[Row]:
    """Requests of a trace. Raises Refused, with the line, for what cannot be read."""
    try:
        text = plain(Path(file)).decode()
    except (OSError, UnicodeDecodeError, lzma.LZMAError, zlib.error, EOFError) as error:
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
    (arrival, prompt, output), time = COLUMNS[form]
    reader = csv.DictReader(text.splitlines())
    names = [name.strip() for name in reader.fieldnames or ()]
    for key in (arrival, prompt, output):
        if key not in names:
            near = did_you_mean(key, names)
            raise Refused(f"has no column {key}{near or ';'} found: {', '.join(names) or 'nothing'}", file, 1)
    for number, line in enumerate(reader, 2):
        try:
            yield _whole(Row(time(line[arrival]), int(line[prompt]), int(line[output])))
        except (TypeError, ValueError) as error:
            raise Refused(f"is no request: {error}", file, number) from None


def _mooncake(file: str, text: str, form: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            read = json.loads(line)
            blocks = tuple(int(name) for name in read.get("hash_ids", ()))
            time = float(read["timestamp"]) / MS_PER_S
            yield _whole(Row(time, int(read["input_length"]), int(read["output_length"]), blocks))
        except KeyError as error:
            raise Refused(f"is no request of a {form} trace: {error} is missing", file, number) from None
        except (AttributeError, TypeError, ValueError) as error:
            raise Refused(f"is no request of a {form} trace: {error}", file, number) from None


def _whole(row: Row) -> Row:
    """A request, with a token at least each way: some traces have answers of none."""
    if row.prompt < 0 or row.output < 0 or not row.arrival_s >= 0:
        raise ValueError(f"found {row.arrival_s:g} s, {row.prompt} and {row.output} tokens; legal: 0 or more each")
    return row._replace(prompt=max(1, row.prompt), output=max(1, row.output))


def _moment(text: str) -> float:
    """Seconds of a date and time."""
    return datetime.fromisoformat(text.strip()[:26]).timestamp()


COLUMNS: dict[str, tuple[tuple[str, str, str], Callable[[str], float]]] = {
    "csv": (("arrival_s", "prompt", "output"), float),
    "azure": (("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _moment),
    "burstgpt": (("Timestamp", "Request tokens", "Response tokens"), float),
}
"""Format -> columns, and how its times are read."""
