"""A run small enough for a test: a tiny model on a made-up text that is worth learning."""

from dataclasses import replace

import numpy as np

from numerics.training.corpus import Corpus
from numerics.training.schedules import Ramp, Rate, Switch
from numerics.training.settings import Settings
from tests.numerics.layers import tiny

MODEL = replace(tiny.TRAINED, hidden=64, layers=2, dense_intermediate=64, expert_intermediate=32, mtp_depth=0)
SETTINGS = Settings(
    model=MODEL, length=16, batch=4, steps=12, rate=Rate(3e-3, 3e-4, 3, 0.5), precision="bf16", init_std=0.05,
    micro_batches=Ramp(1, 2, 6), bias_speed=Switch(0.01, 0.0, 0.5), held=2,
)  # fmt: skip


def corpus(tokens: int = 4000, vocabulary: int = 32) -> Corpus:
    """Counting up by three with a jump now and then: a text with something to learn and something left."""
    rng = np.random.default_rng(0)
    steps = np.where(rng.random(tokens) < 0.9, 3, rng.integers(0, vocabulary, tokens))
    stream = (np.cumsum(steps) % vocabulary).astype(np.uint16)
    return Corpus(stream[: -tokens // 4], stream[-tokens // 4 :], {"vocabulary": vocabulary})
