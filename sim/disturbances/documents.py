"""Documents of every rank's micro-batches, drawn and packed into sequences.

Packed, documents follow each other through sequences without a gap and are cut where a sequence ends; sequences are
then shuffled (megatron/core/datasets/gpt_dataset.py of NVIDIA/Megatron-LM), so each is a stretch of tokens from
anywhere in that stream. Its first document is one in progress: long ones are met more often there, in proportion to
their tokens, and are as likely met at any token at which documents and sequences can meet at all (documents of 1,024
tokens begin together with sequences of 4,096). Attention stays inside a document, as in Llama 3 (arXiv:2407.21783 sec.
3.2); DeepSeek-V3 packs and does not mask (arXiv:2412.19437 sec. 4.1), which is to give no lengths. Not packed, each
sequence has one document, cut to it, and padding.

Draws are keyed by (seed, step, micro-batch, replica); all positions of a pipeline train on the same ones, and what-ifs
are paired.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.routing.keyed import generator
from sim.scenario.values import Batch, Lengths

Numbers = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]

LONGEST = 1 << 31
"""A longer document is as good as this one: no sequence is as long."""
SAMPLE, ANYBODY = 4096, (1 << 64) - 1
"""Sequences over which an expected document is a mean, and the number of the micro-batch that they are drawn for."""
STEP = 0
"""The step that is drawn: a run has one."""


class Documents(NamedTuple):
    """Pieces of documents in sequences. tokens, owner [piece]: of each, and the micro-batch and replica it is in, as
    micro-batch x replicas + replica. micro_batches, replicas: how many there are. room: tokens of a micro-batch,
    padding included."""

    tokens: Numbers
    owner: Numbers
    micro_batches: int
    replicas: int
    room: int

    def mean(self, values: Array) -> Array:
        """Mean over a micro-batch's room [micro-batch, replica] of values [piece], each by its tokens."""
        total = np.bincount(self.owner, self.tokens * values, self.micro_batches * self.replicas)
        return np.asarray(total.reshape(self.micro_batches, self.replicas) / self.room)


def drawn(batch: Batch, seed: int, micro_batches: int, replicas: int) -> Documents:
    """Documents of all micro-batches of a step."""
    rows = [_micro_batch(batch, seed, m, r) for m in range(micro_batches) for r in range(replicas)]
    owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return Documents(np.concatenate(rows), owner, micro_batches, replicas, batch.micro_batch * batch.sequence_length)


def _micro_batch(batch: Batch, seed: int, micro_batch: int, replica: int) -> Numbers:
    """Tokens of the pieces [piece] in all sequences of one micro-batch."""
    assert batch.lengths is not None
    random = generator(seed, "documents", STEP, micro_batch, replica)
    if not batch.packed:
        return np.minimum(draw(batch.lengths, random, batch.micro_batch), batch.sequence_length)
    rows = [stretch(batch.lengths, random, batch.sequence_length) for _ in range(batch.micro_batch)]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def stretch(lengths: Lengths, random: np.random.Generator, tokens: int) -> Numbers:
    """Pieces [piece] of a stretch of the stream of documents, of so many tokens together."""
    pieces = np.array([_in_progress(lengths, random, tokens)], np.int64)
    while (have := int(pieces.sum())) < tokens:
        pieces = np.concatenate([pieces, draw(lengths, random, 2 + int((tokens - have) / lengths.usual))])
    ends = np.cumsum(pieces)
    last = int(np.searchsorted(ends, tokens))
    pieces[last] -= ends[last] - tokens
    return pieces[: last + 1]


def draw(lengths: Lengths, random: np.random.Generator, count: int) -> Numbers:
    """Lengths [count] of documents."""
    if lengths.kind == "uniform":
        return np.asarray(random.integers(lengths.low or 1, (lengths.high or 1) + 1, count))
    if lengths.kind == "lognormal":
        return _lognormal(lengths, random.standard_normal(count))
    if lengths.kind == "recorded":
        values, documents, _ = _histogram(lengths)
        return np.asarray(values[np.searchsorted(documents, random.random(count), "right")])
    return np.full(count, lengths.length, np.int64)


def _lognormal(lengths: Lengths, normal: Array) -> Numbers:
    """Lengths at normal deviates, whole tokens and at least one."""
    assert lengths.median is not None and lengths.sigma is not None
    exact = lengths.median * np.exp(np.minimum(lengths.sigma * normal, math.log(LONGEST)))
    return np.asarray(np.minimum(np.maximum(np.rint(exact), 1), LONGEST), np.int64)


@cache
def _histogram(lengths: Lengths) -> tuple[Numbers, Array, Array]:
    """Lengths that were recorded; and up to each, the part of all documents, and of all tokens."""
    values, counts = np.array(lengths.histogram, np.int64).T
    documents, tokens = np.cumsum(counts.astype(float)), np.cumsum(counts * values.astype(float))
    return values, documents / documents[-1], tokens / tokens[-1]


def _in_progress(lengths: Lengths, random: np.random.Generator, tokens: int) -> int:
    """Tokens that are left of the document in which a stretch of so many tokens begins."""
    length, begun = _by_tokens(lengths, random), random.random()
    common = _common(lengths, tokens)
    return length - common * int(begun * (length // common))


def _by_tokens(lengths: Lengths, random: np.random.Generator) -> int:
    """Length of the document that a token is of. Lognormal ones by tokens are lognormal with a median exp(sigma^2)
    times as long; of uniform ones the sum of lengths up to each is inverted."""
    if lengths.kind == "uniform":
        low, high = lengths.low or 1, lengths.high or 1
        below = low * (low - 1) / 2
        total = below + random.random() * (high * (high + 1) / 2 - below)
        return min(high, max(low, math.ceil((math.sqrt(1 + 8 * total) - 1) / 2)))
    if lengths.kind == "lognormal":
        deviate = (lengths.sigma or 0.0) * (random.standard_normal() + (lengths.sigma or 0.0))
        return min(LONGEST, max(1, round((lengths.median or 1) * math.exp(min(deviate, math.log(LONGEST))))))
    if lengths.kind == "recorded":
        values, _, parts = _histogram(lengths)
        return int(values[np.searchsorted(parts, random.random(), "right")])
    return lengths.length or 1


@cache
def _common(lengths: Lengths, tokens: int) -> int:
    """The greatest common divisor of all lengths and of a sequence: sequences begin nowhere else in documents."""
    if lengths.kind == "recorded":
        return math.gcd(tokens, *(length for length, _ in lengths.histogram or ()))
    return math.gcd(tokens, lengths.only) if lengths.only else 1


@cache
def equal(batch: Batch) -> tuple[int, int]:
    """Number and tokens of equal documents whose tokens meet as many others in a micro-batch as those of packed ones do
    on average: where lengths fit into sequences these documents, else of a sample that depends on no seed."""
    lengths, room = batch.lengths, batch.micro_batch * batch.sequence_length
    assert lengths is not None
    if length := lengths.alike(batch.sequence_length):
        return room // length, length
    random = generator(0, "documents", STEP, ANYBODY)
    squares = sum(int((stretch(lengths, random, batch.sequence_length) ** 2).sum()) for _ in range(SAMPLE))
    mean = squares / (SAMPLE * batch.sequence_length)
    count = max(1, round(room / mean))
    return count, round(math.sqrt(room * mean / count))


def of_step(batch: Batch, seed: int, micro_batches: int, replicas: int) -> Documents | None:
    """Documents of a step where any are told apart: where packed ones differ, or padding follows them."""
    if batch.lengths is None or (batch.packed and not batch.unlike):
        return None
    return drawn(batch, seed, micro_batches, replicas)


def counted(batch: Batch, sequences: int, documents: Documents | None) -> Sequence[tuple[int, int]]:
    """(tokens, pieces) of every length that there is in so many sequences. documents: of the step, as `of_step`."""
    if documents is None:
        length = batch.lengths.alike(batch.sequence_length) if batch.lengths else batch.sequence_length
        return [(length, sequences * batch.sequence_length // length)]
    lengths, counts = np.unique(documents.tokens, return_counts=True)
    return list(zip(lengths.tolist(), counts.tolist(), strict=True))
