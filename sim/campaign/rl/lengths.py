"""How long answers are, the longest of them, and how they fill sequences."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.campaign.rl.values import Answers
from sim.disturbances import documents
from sim.routing.keyed import generator

Numbers = npt.NDArray[np.int64]
DRAWS = 1 << 16
"""Answers that a distribution is told from."""
ANYBODY = (1 << 62) - 1
"""The step for which those are drawn."""


def drawn(answers: Answers, seed: int, step: int) -> Numbers:
    """Tokens of a step's answers [answers], each cut off where it is too long."""
    random = generator(seed, "answers", micro_batch=step)
    return np.minimum(documents.draw(answers.lengths, random, answers.count), answers.most)


def longest(answers: Answers) -> float:
    """Tokens that the longest answer of a step has on average: the sum over t of the chance that not all have t or
    fewer, which is 1 - F(t)^count."""
    random = generator(0, "answers", micro_batch=ANYBODY)
    each = np.sort(np.minimum(documents.draw(answers.lengths, random, DRAWS), answers.most))
    below = np.arange(1, DRAWS + 1) / DRAWS
    steps = np.diff(each, append=each[-1])
    return float(each[0] + (steps * (1 - below**answers.count)).sum())


def packed(tokens: Sequence[int], room: int) -> list[int]:
    """Tokens of the sequences that pieces fill, each piece whole: the longest first, each into the first sequence that
    has room for it (first fit decreasing, of which frameworks' packers are variants). Room: of a sequence, at least the
    longest piece."""
    filled = np.zeros(len(tokens), np.int64)
    used = 0
    for piece in sorted(tokens, reverse=True):
        at = int(np.argmax(filled + piece <= room))
        filled[at] += piece
        used = max(used, at + 1)
    return [int(each) for each in filled[:used]]


def alike(tokens: Numbers, room: int) -> int:
    """Tokens of equal pieces of a sequence whose attention is nearest to that of these, packed: a divisor of its
    length. Attention goes with the square of a piece, so with the mean piece by tokens."""
    mean = float((tokens**2).sum() / tokens.sum())
    return min((room // n for n in range(1, room + 1) if room % n == 0), key=lambda piece: abs(piece - mean))
