"""Warps and what they copy: the fit is repeated here from the measurements it names."""

import numpy as np
import pytest

from sim.exchange.roles import COPY, INTRANODE, PACKERS, PEERS, PUT_S, buffers, reducing_warps

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
    """Two H20 nodes, 12 channels: chunks so small that posting binds (DeepEP issue 137)."""
    assert 12 * rows * row_bytes / rate == pytest.approx(PUT_S, rel=0.02)


def test_h20_nodes_say_that_hopper_warps_are_no_slower() -> None:
    """42.54 GB/s logical is 139.3 GB/s through the forwarding warps of 12 channels (DeepEP issue 137)."""
    assert COPY.seconds(False, 7392) == pytest.approx(7392 * 12 * PEERS / 139.3e9, rel=0.02)


def test_blocks_have_the_threads_of_the_profile() -> None:
    """512 threads for dispatch and 800 for combine over 8 nodes, a coordinating warp included."""
    assert (PACKERS + 1 + PEERS) * 32 == 512
    forwarders, receivers = reducing_warps(8)
    assert (forwarders + 1) * 32 == 800 and receivers + PEERS == forwarders


@pytest.mark.parametrize("nodes", range(2, 41))
def test_combine_fits_a_block_on_any_number_of_nodes(nodes: int) -> None:
    forwarders, receivers = reducing_warps(nodes)
    assert receivers >= 1 and forwarders + 1 <= 32


def test_buffers_follow_the_group() -> None:
    assert buffers(64, 8, False) == (28, 128, 288) and buffers(64, 8, True).send == 20
    assert buffers(8, 1, False).network == 0 and buffers(320, 40, False).nvlink == 720
