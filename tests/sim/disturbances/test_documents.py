"""Documents drawn and packed: stretches of one stream, keyed, with the mean that renewal theory says."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.disturbances.documents import counted, drawn, equal, of_step
from sim.scenario.values import Batch, Lengths

S = 1024
RECORDED = Lengths("recorded", histogram=((40, 5), (300, 2), (5000, 1)))
LAWS = {
    "uniform": Lengths("uniform", low=1, high=S),
    "lognormal": Lengths("lognormal", median=150, sigma=1.2),
    "recorded": RECORDED,
}


def batch(lengths, micro_batch=1, packed=True):
    return Batch(None, S, micro_batch, None, lengths, packed)


def met(lengths):
    """Mean length of the document that a token of a sequence is in, as far as it is in that sequence: two tokens t
    apart share one with the chance E[(L - t)+] / E[L], whatever the law, for a stretch that begins at any token."""
    apart = np.arange(1, S)
    if lengths.kind == "lognormal":
        mu, s = math.log(lengths.median), lengths.sigma
        normal = lambda z: (1 + math.erf(z / math.sqrt(2))) / 2
        share = [
            normal((mu + s * s - math.log(t)) / s) - t / lengths.mean * normal((mu - math.log(t)) / s) for t in apart
        ]
    else:
        rows = lengths.histogram or [(n, 1) for n in range(lengths.low, lengths.high + 1)]
        length, count = np.array(rows, float).T
        share = [(np.maximum(length - t, 0) @ count) / (length @ count) for t in apart]
    return (S + 2 * ((S - apart) @ np.array(share))) / S


@pytest.mark.parametrize("name", LAWS)
def test_tokens_meet_as_many_others_as_in_an_endless_stream(name):
    documents = drawn(batch(LAWS[name]), 0, 16, 512)
    each = documents.mean(documents.tokens.astype(float))
    error = each.std() / math.sqrt(each.size)
    assert abs(each.mean() - met(LAWS[name])) < 4 * error
    count, length = equal(batch(LAWS[name], micro_batch=8))
    assert count * length**2 == pytest.approx(8 * S * met(LAWS[name]), rel=0.03)
    assert count * length == pytest.approx(8 * S, rel=0.05)


LENGTHS = st.one_of(
    st.builds(Lengths, st.just("fixed"), length=st.integers(1, 3 * S)),
    st.builds(lambda a, b: Lengths("uniform", low=min(a, b), high=max(a, b)), st.integers(1, 2 * S),
              st.integers(1, 2 * S)),
    st.builds(Lengths, st.just("lognormal"), median=st.integers(1, 4 * S), sigma=st.floats(0, 8)),
    st.builds(lambda rows: Lengths("recorded", histogram=tuple(sorted(rows.items()))),
              st.dictionaries(st.integers(1, 5 * S), st.integers(1, 9), min_size=1, max_size=4)),
)  # fmt: skip


@given(LENGTHS, st.integers(1, 3), st.integers(0, 5))
def test_sequences_are_full_and_no_document_crosses_their_ends(lengths, micro_batch, seed):
    documents = drawn(batch(lengths, micro_batch), seed, 2, 2)
    assert (documents.tokens > 0).all() and (documents.mean(np.ones(len(documents.tokens))) == 1).all()
    for owner in range(4):
        ends = np.cumsum(documents.tokens[documents.owner == owner])
        assert set(range(S, micro_batch * S + 1, S)) <= set(ends.tolist())
    if length := lengths.alike(S):
        assert (documents.tokens == length).all() and equal(batch(lengths, micro_batch))[1] == length


def test_draws_are_keyed():
    """More micro-batches or replicas change none, another seed or another micro-batch all."""
    law = batch(LAWS["lognormal"])
    few, many = drawn(law, 3, 2, 2), drawn(law, 3, 4, 3)
    for micro_batch in range(2):
        for replica in range(2):
            mine = few.tokens[few.owner == micro_batch * 2 + replica]
            assert np.array_equal(mine, many.tokens[many.owner == micro_batch * 3 + replica])
    rows = [tuple(many.tokens[many.owner == owner]) for owner in range(12)]
    assert len(set(rows)) == 12
    assert not np.array_equal(few.tokens, drawn(law, 4, 2, 2).tokens)


def test_not_packed_a_sequence_has_one_document_cut_to_it():
    documents = of_step(batch(RECORDED, packed=False), 0, 50, 4)
    assert set(documents.tokens.tolist()) == {40, 300, S} and len(documents.tokens) == 200
    assert documents.mean(np.ones(200)).max() == 1 and documents.mean(np.ones(200)).min() == 40 / S


def test_what_a_step_has_of_every_length():
    fixed = Lengths("fixed", length=256)
    assert of_step(batch(fixed), 0, 2, 2) is None and counted(batch(fixed), 6, None) == [(256, 24)]
    assert counted(Batch(None, S, 1, None), 6, None) == [(S, 6)]
    odd = replace(fixed, length=384)
    documents = of_step(batch(odd), 0, 8, 8)
    told = counted(batch(odd), 64, documents)
    assert sum(length * pieces for length, pieces in told) == 64 * S
    assert {length for length, _ in told} == {128, 256, 384}  # they and sequences meet at multiples of 128
