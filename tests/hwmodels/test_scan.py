"""Mamba's scan and convolution beside what was published of them."""

import pytest

from hwmodels.op import Memory
from tests.hwmodels.test_kernels import pricer

CHUNK, WIDTH, STATE, GROUPS = 128, 64, 128, 8


def forward(tokens, heads):
    """Bytes of a token by kernel (sim.models.stacks.deepseek.mamba), with a gate."""
    x, b, cb, head = 2.0 * heads * WIDTH, 2.0 * GROUPS * STATE, 4.0 * GROUPS * CHUNK, 4.0 * heads
    states = 2.0 * heads * WIDTH * STATE / CHUNK
    kinds = {
        "cumsum": (head / 2, 2 * head), "chunk_state": (x + b + 2 * head, 2 * states), "passing": (2 * states, states),
        "bmm": (2 * b, cb), "chunk_scan": (cb + 2 * x + 2 * head + b + states, 2 * x),
    }  # fmt: skip
    return {kind: Memory(f"scan_{kind}", tokens, *each) for kind, each in kinds.items()}


def us(card, op):
    return pricer(card).price(op).ns / 1e3


@pytest.mark.parametrize(("tokens", "heads", "timed"), [
    (32768, 64, 1435), (65536, 64, 2842), (32768, 128, 2835), (32768, 256, 5653), (65536, 256, 9982),
])  # fmt: skip
def test_a_scan_takes_as_long_as_it_was_timed_on_a_b200(tokens, heads, timed):
    """NVIDIA/aiconfigurator @095f58a51c4c, mamba2_perf.parquet of TensorRT-LLM 1.3.0rc15, without a gate."""
    found = sum(us("b200", op) for op in forward(tokens, heads).values())
    assert found == pytest.approx(timed, rel=0.12)


def test_what_waits_for_sms_goes_by_them_and_what_streams_by_bandwidth():
    ops = forward(32768, 64)
    inside, passing = ops["chunk_scan"], ops["passing"]
    assert us("b200", inside) == pytest.approx(1.06 * us("h200", inside), rel=0.01)
    assert us("gb200", inside) == pytest.approx(us("b200", inside) * 148 / 152, rel=0.01)
    assert us("h100", inside) == pytest.approx(us("h200", inside), rel=0.01)
    assert us("h20", inside) == pytest.approx(us("h200", inside) * 132 / 78, rel=0.01)
    assert us("b200", passing) < 0.75 * us("h200", passing) < 0.75 * us("h100", passing)
    timed, untimed = (pricer("b200").price(Memory(kind, 32768, 1e4, 1e4)) for kind in ("scan_chunk_scan", "scan_dx"))
    assert untimed.spread > timed.spread


def test_a_convolution_takes_as_long_as_it_was_timed():
    """Same source, TensorRT-LLM 1.3.0rc20: 32,768 tokens of 6,144 and of 10,240 columns, sequences of 8,192."""
    timed = {("b200", 6144): 219.9, ("gb300", 6144): 204.8, ("gb200", 10240): 348.2, ("h200", 10240): 433.5}
    for (card, columns), measured in timed.items():
        assert us(card, Memory("conv1d", 32768, 2.0 * columns, 2.0 * columns)) == pytest.approx(measured, rel=0.1)


def test_a_card_that_nobody_timed_goes_by_bandwidth():
    op = forward(32768, 64)["chunk_scan"]
    assert us("a100", op) > us("h200", op)
