"""Low-latency kernels: the bound, and the published latencies, which nothing was fitted to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.communication.exchange.direct import Decode, bound_s, seconds
from tests.sim.communication.exchange.exchanges import BF16_ROW, LINKS

ROW = 7168 + 224 + 16  # values, scales and metadata: csrc/kernels/internode_ll.cu
PUBLISHED = [
    (8, 77, 114), (16, 118, 195), (32, 155, 273), (64, 173, 314), (128, 192, 369), (256, 194, 360),
]  # fmt: skip
"""Ranks, microseconds of dispatch and of combine: 128 tokens, 8 experts, H800 (DeepEP docs/legacy.md)."""


@pytest.mark.parametrize("ranks, dispatch_us, combine_us", PUBLISHED)
def test_published_latencies(ranks: int, dispatch_us: float, combine_us: float) -> None:
    """Over the network within 10 %; inside one node 30 % too fast (its copies over NVLink are not modelled)."""
    for combine, row, published in ((False, ROW, dispatch_us), (True, BF16_ROW, combine_us)):
        found = seconds(Decode(combine, 128, 8, row, ranks, 8), LINKS, 132) * 1e6
        assert abs(found / published - 1) < (0.10 if ranks > 8 else 0.30)


@given(st.booleans(), st.integers(1, 512), st.sampled_from([2, 4, 8, 16, 64, 320]), st.sampled_from([78, 132]))
def test_never_below_the_bound(combine: bool, tokens: int, ranks: int, sms: int) -> None:
    decode = Decode(combine, tokens, 8, ROW, ranks, 8)
    assert seconds(decode, LINKS, sms) > bound_s(decode, LINKS)


def test_bytes_are_split_between_own_gpu_nvlink_and_network() -> None:
    decode = Decode(False, 128, 8, ROW, 64, 8)
    assert decode.network_bytes == decode.bytes * 56 / 64 and decode.nvlink_bytes == decode.bytes * 7 / 64
    assert Decode(False, 128, 8, ROW, 8, 8).network_bytes == 0
