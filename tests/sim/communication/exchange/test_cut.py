"""How tokens become chunks: all channels take part, nothing is lost, and more of anything shrinks nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.communication.exchange.cut import Cut, cut

tokens = st.integers(1, 8192)
channels = st.integers(1, 66)
nodes = st.sampled_from([(1.99, 2), (3.62, 4), (3.96, 8), (5.72, 16), (3.99, 40)])
"""Distinct nodes a token, and of the group."""
sends = st.sampled_from([12, 20, 28])


@given(tokens, nodes, sends, channels)
def test_all_rows_are_cut_and_no_chunk_is_larger_than_allowed(
    count: int, spread: tuple[float, int], send: int, most: int
) -> None:
    found = cut(count, *spread, send, most)
    assert found.channels * found.chunks * found.rows * found.filled == pytest.approx(count * spread[0])
    assert 0 < found.rows <= send and found.chunks >= 1 and 0 < found.filled <= 1


@given(tokens, channels)
def test_a_channel_has_whole_tokens_and_all_channels_some(count: int, most: int) -> None:
    found = cut(count, 3.96, 8, 28, most)
    assert found.channels == min(count, most)
    assert found.rows * found.chunks / 3.96 == pytest.approx(-(-count // most))


@given(tokens, nodes, sends, channels)
def test_more_tokens_make_more_and_larger_chunks(count: int, spread: tuple[float, int], send: int, most: int) -> None:
    fewer, more = (cut(n, *spread, send, most) for n in (count, count + 1))
    assert more.rows >= fewer.rows * (1 - 1e-12) and more.chunks >= fewer.chunks * (1 - 1e-12)
    wider = cut(count, *spread, send, most + 1)
    assert wider.rows <= fewer.rows * (1 + 1e-12) and wider.chunks <= fewer.chunks * (1 + 1e-12)


def test_a_token_goes_to_as_many_nodes_as_it_reaches_in_a_chunk_each() -> None:
    assert cut(1, 3.0, 8, 28, 10) == Cut(1, pytest.approx(1), pytest.approx(3), 1, pytest.approx(3))
    assert cut(10, 3.0, 8, 28, 10) == Cut(10, pytest.approx(1), pytest.approx(3), 1, pytest.approx(3))
    assert cut(11, 3.0, 8, 28, 10).filled == 11 / 20


def test_tokens_of_a_channel_meet_at_nodes() -> None:
    """Two that each choose four of eight at random reach six of them, beside a count over draws."""
    random = np.random.default_rng(0)
    drawn = [len({*random.choice(8, 4, False), *random.choice(8, 4, False)}) for _ in range(4000)]
    found = cut(2, 4.0, 8, 28, 1).chunks
    assert found == pytest.approx(6) and np.mean(drawn) == pytest.approx(found, rel=0.01)


def test_the_last_chunk_for_a_node_is_half_full_on_average() -> None:
    """Beside full chunks and a rest at each of eight nodes, counted over random choices of four nodes a token."""
    random = np.random.default_rng(1)
    counts = random.binomial(410, 0.5, 20000)
    assert 8 * np.mean(-(-counts // 20)) == pytest.approx(cut(410, 4.0, 8, 20, 1).chunks, rel=0.01)


def test_nothing_is_one_empty_chunk() -> None:
    assert cut(0, 0.0, 8, 28, 10)[:3] == (1, 0.0, 1.0)
