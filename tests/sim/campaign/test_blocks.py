"""Steps of a phase: tokens add up exactly, and the published ramp has the steps that its formula says."""

from dataclasses import replace
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.campaign.blocks import blocks
from sim.campaign.values import Phase
from tests.sim.campaign.plans import small

PHASE = Phase("grows", small(1).phases[0].scenario, 4096, 3072, 15360, 256, 469 * 10**9, None)


def one_by_one(phase: Phase) -> list[int]:
    """Sequences of every step, by the rule itself."""
    trained, steps = 0, list[int]()
    assert phase.tokens
    while trained < phase.tokens:
        grown = (phase.last - phase.first) * trained / phase.tokens / phase.by
        steps.append(phase.first + phase.by * int(grown + 0.5))
        trained += steps[-1] * phase.length
    return steps


def test_published_ramp() -> None:
    """14,997 steps by the integral T / (12,288 x 4,096) ln 5 (row CA-V3-STEPS); batches of whole micro-batches begin
    with half of one too few, which adds eight."""
    closed = 469e9 / (12288 * 4096) * log(5)
    assert int(closed) == 14997
    fine = sum(block.steps for block in blocks(0, replace(PHASE, by=1)))
    assert fine == pytest.approx(closed, abs=2)
    assert sum(block.steps for block in blocks(0, PHASE)) == pytest.approx(closed, abs=8)
    after = replace(PHASE, first=15360, tokens=14_800 * 10**9 - 469 * 10**9)
    (rest,) = blocks(0, after)
    assert rest.steps in (227_785, 227_786)


@given(
    first=st.integers(1, 40), more=st.integers(0, 30), by=st.integers(1, 9), length=st.integers(1, 99),
    tokens=st.integers(1, 200_000),
)  # fmt: skip
def test_tokens_add_up(first: int, more: int, by: int, length: int, tokens: int) -> None:
    """As many as asked for and less than a step more; batches only grow, and each step is by the rule."""
    phase = replace(PHASE, first=first, last=first + more * by, by=by, length=length, tokens=tokens)
    made = list(blocks(0, phase))
    assert 0 <= sum(block.tokens for block in made) - tokens < made[-1].sequences * length
    sequences = [block.sequences for block in made]
    assert sequences == sorted(set(sequences))
    assert [block.sequences for block in made for _ in range(block.steps)] == one_by_one(phase)
