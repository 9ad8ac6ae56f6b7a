"""Warps and what they copy: the fit is repeated here from the measurements it names."""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sim.communication.exchange.cut import cut
from sim.communication.exchange.roles import (
    COPY,
    FIXED,
    FOLLOW,
    INTRANODE,
    PACKERS,
    PEERS,
    PUT_S,
    buffers,
    combining,
    dispatching,
    reducing_warps,
    shared,
)
from sim.validation.exchanges import TOKENS
from tests.sim.communication.exchange.exchanges import SPREAD

SMS = np.array([16, 24, 28])
B200 = {"fp8": (7392, (246, 349, 397)), "bf16": (14336, (348, 494, 560)), "combine": (14336, (302, 420, 477))}
"""Row bytes; GB/s of DeepEP V1 inside a node of 8 B200s at SMS (DeepEP Hybrid-EP_Implementation.md), links idle."""


def warp_row_s(name: str) -> tuple[float, float]:
    """Seconds a warp needs for a row, by least squares of time a row on 1/channels; and the worst relative residual."""
    row, rates = B200[name]
    time = row / (np.array(rates) * 1e9)
    columns = np.stack([np.ones(3), 2 / SMS], axis=1)
    found, *_ = np.linalg.lstsq(columns, time, rcond=None)
    return float(found[1]) * INTRANODE, float(abs(columns @ found / time - 1).max())


@pytest.mark.parametrize("name", sorted(B200))
def test_time_a_row_is_straight_in_channels_and_gives_the_constants(name: str) -> None:
    seconds, residual = warp_row_s(name)
    assert residual < 0.005
    assert COPY.seconds(name == "combine", B200[name][0]) == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize("rows, row_bytes, rate", [(4, 7392, 17.86e9), (8, 7392, 35.70e9), (4, 14336, 35.72e9)])
def test_a_posted_chunk_costs_the_same_whatever_it_holds(rows: int, row_bytes: int, rate: float) -> None:
    """Two H20 nodes, 12 channels: chunks so small that posting binds (DeepEP issue 137). Chunks as the kernel cuts
    them; tokens of its benchmark."""
    nodes, _ = SPREAD[16]
    chunks = cut(TOKENS, nodes, 2, rows, 12).chunks
    assert TOKENS * nodes * row_bytes / rate / chunks == pytest.approx(PUT_S, rel=0.02)


def test_h20_nodes_say_that_hopper_warps_are_no_slower() -> None:
    """42.54 GB/s logical is 139.3 GB/s through the forwarding warps of 12 channels (DeepEP issue 137)."""
    assert COPY.alone(False, 7392) < COPY.seconds(False, 7392) < 1.02 * 7392 * 12 * PEERS / 139.3e9


FEW = {"dispatch": (7392, {4: 14472, 8: 7761, 16: 3835}), "combine": (14336, {4: 36376, 8: 18425, 16: 9433})}
"""Row bytes; SMs -> us of DeepEP V1 on two nodes of H100s, 16,384 tokens a rank (aiconfigurator @095f58a51c4c)."""


@pytest.mark.parametrize("name", sorted(FEW))
def test_time_of_a_warp_alone_is_the_mean_of_few_sms(name: str) -> None:
    """Eight warps of a channel forward, or send, a rank's rows: 2.26 us a row (rms 3 %), 5.53 us (rms 1.5 %)."""
    row, times = FEW[name]
    seconds = np.array([us * 1e-6 * sms / 2 * PEERS for sms, us in times.items()]) / (16384 * SPREAD[16][1])
    mean = seconds.mean()
    assert COPY.alone(name == "combine", row) == pytest.approx(mean, rel=0.005)
    assert np.sqrt(((seconds / mean - 1) ** 2).mean()) < (0.016 if name == "combine" else 0.032)


def test_so_few_warps_do_not_fill_an_sm_and_a_whole_block_does() -> None:
    """What tells the two figures apart: eight at the pace of one alone are slower than the SM, 24 would be faster."""
    for combine, row in ((False, 7392), (True, 14336)):
        assert COPY.alone(combine, row) / INTRANODE < COPY.sm(combine, row) < COPY.alone(combine, row) / PEERS


def test_blocks_have_the_threads_of_the_profile() -> None:
    """512 threads for dispatch and 800 for combine over 8 nodes, a coordinating warp included."""
    assert (PACKERS + 1 + PEERS) * 32 == 512
    forwarders, receivers = reducing_warps(8)
    assert (forwarders + 1) * 32 == 800 and receivers + PEERS == forwarders


@pytest.mark.parametrize("nodes", range(2, 41))
def test_combine_fits_a_block_on_any_number_of_nodes(nodes: int) -> None:
    forwarders, receivers = reducing_warps(nodes)
    assert receivers >= 1 and forwarders + 1 <= 32


loads = st.integers(2, 3).flatmap(
    lambda roles: arrays(float, st.tuples(st.just(roles), st.integers(1, 4)), elements=st.floats(0, 1e6))
)


def whole_splits(roles: int, warps: int) -> Iterator[tuple[int, ...]]:
    """Every way to give `warps` warps to `roles` roles, at least one each."""
    for cuts in combinations(range(1, warps), roles - 1):
        yield tuple(b - a for a, b in pairwise((0, *cuts, warps)))


@given(loads, st.integers(3, 25))
def test_no_other_split_makes_the_slowest_role_faster(load: np.ndarray, warps: int) -> None:
    """Against all splits of a block, rank by rank."""
    given = shared(load, warps)
    assert (given.sum(axis=0) == warps).all() and given.min() >= 1
    for rank, own in enumerate(load.T):
        least = min((own / split).max() for split in whole_splits(len(load), warps))
        assert (own / given[:, rank]).max() == least


@given(arrays(float, st.tuples(st.just(2), st.integers(1, 4)), elements=st.floats(0, 1e6)), st.integers(2, 60))
def test_blocks_hold_their_warps_and_every_role_has_one(load: np.ndarray, nodes: int) -> None:
    """As many threads a block as DeepEP's, one warp of them coordinating, on either SM of a channel."""
    for kind in (FOLLOW, FIXED):
        there, back = dispatching(kind, *load), combining(kind, nodes, *load)
        for (first, middle, last), most in ((there, PACKERS + PEERS), (back, reducing_warps(nodes)[0])):
            assert min(first.min(), middle.min(), last.min()) >= 1
            assert (first + last <= most).all() and (middle <= most).all()


@given(arrays(float, st.tuples(st.just(2), st.integers(1, 4)), elements=st.floats(0, 1e6)), st.integers(2, 60))
def test_a_block_that_follows_is_never_slower_than_a_fixed_one(load: np.ndarray, nodes: int) -> None:
    """The fixed split is one of those that are open to it."""

    def slowest(kind: str) -> np.ndarray:
        there, back = dispatching(kind, *load), combining(kind, nodes, *load)
        return np.array([np.maximum(load[0] / a, load[1] / b) for a, _, b in (there, back)])

    assert (slowest(FOLLOW) <= slowest(FIXED)).all()


def test_v3_s_warps_follow_where_its_tokens_go() -> None:
    """64 ranks on 8 nodes, 7.49 ranks and 3.96 nodes a token: most of a shared block works on NVLink."""

    def warps(nodes: float, ranks: float) -> tuple[list[int], ...]:
        one, sent, received = (np.array([rows]) for rows in (1.0, nodes, ranks))
        found = (*dispatching(FOLLOW, one, received), *combining(FOLLOW, 8, received, sent))
        return tuple(each.tolist() for each in found)

    assert warps(*SPREAD[64]) == ([2], [15], [13], [16], [24], [8])
    assert warps(*SPREAD[16])[3:] == ([18], [24], [6])  # two nodes: less to reduce from the network
    assert warps(1.0, 1.0)[:3] == ([8], [15], [7])  # one rank a token: as much to pack as to receive


def test_ranks_that_differ_have_splits_of_their_own() -> None:
    packers, _, receivers = dispatching(FOLLOW, np.ones(3), np.array([1.0, 4.0, 20.0]))
    assert packers.tolist() == [8, 3, 1] and receivers.tolist() == [7, 12, 14]


def test_buffers_follow_the_group() -> None:
    assert buffers(64, 8, False) == (28, 128, 288) and buffers(64, 8, True).send == 20
    assert buffers(8, 1, False).network == 0 and buffers(320, 40, False).nvlink == 720
