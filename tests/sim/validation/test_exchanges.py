"""Published exchanges beside the model: complete, compared at their stated errors, and never fitted to."""

import pytest

from hwmodels import node
from hwmodels.collectives import wires
from hwmodels.op import AllToAll
from sim.communication.exchange import kernel
from sim.communication.exchange.ports import of_op
from sim.communication.exchange.roles import COPY, FIXED
from sim.validation import exchanges
from tests.sim.communication.exchange.exchanges import LINKS

ERRORS = {
    "64 ranks, 20 SMs": (-0.045, -0.027), "8 ranks, 24 SMs": (-0.043, -0.011), "16 ranks, 24 SMs": (-0.009, 0.058),
    "32 ranks, 24 SMs": (-0.117, -0.099), "64 ranks, 24 SMs": (-0.139, -0.124),
    "8 ranks, decoding": (-0.285, -0.130), "16 ranks, decoding": (-0.086, 0.035), "32 ranks, decoding": (0.002, 0.075),
    "64 ranks, decoding": (0.035, 0.081), "128 ranks, decoding": (-0.006, -0.018),
    "256 ranks, decoding": (0.014, 0.039),
}  # fmt: skip
"""As docs/COMM_SMS.md prints them: dispatch, combine. A change of these is a change of what we say."""


def test_errors_are_those_the_documents_print() -> None:
    rows = exchanges.bandwidths(LINKS) + exchanges.latencies(LINKS, 132)
    assert [r.name for r in rows[::2]] == list(ERRORS)
    for there, back in zip(rows[::2], rows[1::2], strict=True):
        assert (there.error, back.error) == pytest.approx(ERRORS[there.name], abs=0.002), there.name


MEASURED = (
    (8, 20, 491.2, 972.5), (16, 4, 3674, 9394), (16, 8, 2007, 4867), (16, 16, 1021, 2560), (16, 24, 748.9, 1777),
    (32, 4, 4690, 11763), (32, 8, 2502, 6078), (32, 12, 1834, 4142), (32, 16, 1797, 3545), (32, 24, 1791, 3522),
)  # fmt: skip
"""Ranks, SMs, microseconds of dispatch (FP8) and combine (BF16) on H100s, 4,096 tokens a rank, without notifying
(aiconfigurator, h100_sxm/comm/sglang/0.5.6.post2 @095f58a51c4c: DeepEP V1, tuned chunks). Other
rows of that report, of 16 ranks with 16,384 tokens, are what `sim.communication.exchange.roles.COPY` is fitted to."""
CARDS = {
    "8 ranks, 20 SMs": (0.01, -0.07), "16 ranks, 4 SMs": (0.05, 0.00), "16 ranks, 8 SMs": (-0.02, -0.02),
    "16 ranks, 16 SMs": (0.01, -0.04), "16 ranks, 24 SMs": (0.13, -0.04), "32 ranks, 4 SMs": (0.12, -0.12),
    "32 ranks, 8 SMs": (0.07, -0.13), "32 ranks, 12 SMs": (0.17, 0.00), "32 ranks, 16 SMs": (0.19, 0.17),
    "32 ranks, 24 SMs": (0.19, 0.17),
}  # fmt: skip
"""As the table of H100s in docs/COMM_SMS.md prints them."""


def test_errors_on_other_cards_are_those_the_documents_print() -> None:
    links = wires(node.load("h100x8"), None)
    for ranks, sms, *published in MEASURED:
        printed = CARDS[f"{ranks} ranks, {sms} SMs"]
        for direction, us, error in zip(exchanges.ROWS, published, printed, strict=True):
            one = AllToAll(
                direction, "", 4096, exchanges.ROWS[direction], *exchanges.SPREAD[ranks], ranks, max(1, ranks // 8)
            )
            seconds = kernel.run(of_op(one), links, sms, COPY, FIXED).seconds
            assert seconds / us * 1e6 - 1 == pytest.approx(error, abs=0.006), (ranks, sms, direction)


def test_what_the_cards_say_of_regimes() -> None:
    """Measured alone: on two nodes time goes as one over SMs up to 24; on four the NIC binds, at 45 GB/s and more."""
    us = {(ranks, sms): times for ranks, sms, *times in MEASURED}
    for direction, width in enumerate(exchanges.ROWS.values()):
        four, many = us[16, 4][direction] * 4, us[16, 24][direction] * 24
        assert four < many < 1.25 * four
        assert us[32, 16][direction] == pytest.approx(us[32, 24][direction], rel=0.01)
        wire = 4096 * exchanges.SPREAD[32][0] * width * 3 / 4 / us[32, 24][direction] / 1e3
        assert 45 < wire < 46.2


def test_no_wire_carries_more_than_its_link() -> None:
    for row in exchanges.bandwidths(LINKS) + exchanges.latencies(LINKS, 132):
        link = LINKS.nvlink.effective if row.name.startswith("8 ranks") else LINKS.network
        assert row.wire * 1e9 < link, row


def test_the_kernel_adds_fill_and_drain_to_the_profile_s_bytes_over_links() -> None:
    rows = exchanges.profile("h800", LINKS, 20)
    assert {r.name for r in rows} == {"dispatch(F)", "combine(F)", "dispatch(B)", "combine(B)"}
    for row in rows:
        assert 1.0 <= row.alone / row.closed < 1.06
        assert 1.1 < row.stretch < 1.7 and row.low <= row.measured <= row.high
