"""Random numbers by name: a draw depends on what it is for and whose it is, never on what was drawn before it."""

from typing import Literal, get_args

import numpy as np

Purpose = Literal[
    "popularity", "tokens", "loads", "bias", "gate", "jitter", "documents", "lengths", "arrivals", "drafts",
    "failures", "answers", "prices", "drift",
]  # fmt: skip
"""What is drawn: experts' popularity, tokens' affinities, loads without tokens, steps of the bias, a gate's moments,
how far kernels vary, how long documents are; of serving, how long requests are, when they come, which drafts stand,
when nodes fail; of reinforcement learning, how long answers are;
of a served load, how wrong prices are, and how far a step's popularity of experts is from the one that is known."""

WORD = (1 << 64) - 1


def generator(seed: int, purpose: Purpose, layer: int = 0, micro_batch: int = 0, rank: int = 0) -> np.random.Generator:
    """The generator of one place: its own Philox stream of 2^64 blocks (Salmon et al., SC 2011).

    Seed and purpose are the key; layer, micro-batch and rank are the high words of the counter.
    """
    key = np.array([seed & WORD, get_args(Purpose).index(purpose)], dtype=np.uint64)
    counter = np.array([0, layer, micro_batch, rank], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
