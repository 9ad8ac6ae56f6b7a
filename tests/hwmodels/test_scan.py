"""Mamba's scan and convolution beside what was published of them."""

import pytest

from hwmodels.op import SCAN, SCAN_BACKWARD, GroupedGemm, Memory
from tests.hwmodels.test_kernels import pricer

CHUNK, WIDTH, STATE = 128, 64, 128


def scan_us(card, sequences, length, heads, groups=8):
    """Decays, states of chunks, what they hand on, products of C and B, and the scan itself (Nemotron-3's widths)."""
    chunks = sequences * length // CHUNK
    passed = 4.0 * heads * WIDTH * STATE

    def products(each, rows, n, k):
        return GroupedGemm(chunks * each, chunks * each * rows, n, k, SCAN, "bf16")

    ops = [
        Memory("elementwise", sequences * length, 2.0 * heads, 8.0 * heads), products(heads, WIDTH, STATE, CHUNK),
        Memory("elementwise", chunks, passed, passed), products(groups, CHUNK, CHUNK // 2, STATE),
        products(heads, CHUNK, WIDTH, STATE + CHUNK // 2),
    ]  # fmt: skip
    return sum(pricer(card).price(op).ns for op in ops) / 1e3


@pytest.mark.parametrize(("sequences", "length", "heads", "us"), [
    (4, 8192, 64, 1435), (16, 2048, 64, 1440), (2, 32768, 64, 2842), (4, 8192, 128, 2835), (2, 16384, 256, 5653),
    (8, 8192, 256, 9982),
])  # fmt: skip
def test_a_scan_takes_as_long_as_it_was_timed_on_a_b200(sequences, length, heads, us):
    """NVIDIA/aiconfigurator @095f58a51c4c, mamba2_perf.parquet of TensorRT-LLM 1.3.0rc15; one in ten is farther off."""
    assert scan_us("b200", sequences, length, heads) == pytest.approx(us, rel=0.13)


def test_a_scan_gains_by_sms_and_not_by_tensor_cores():
    op = GroupedGemm(4096, 4096 * 128, 64, 192, SCAN, "bf16")
    h200, b200 = (pricer(card).price(op) for card in ("h200", "b200"))
    assert b200.ns / h200.ns == pytest.approx(0.579 * 132 / (0.529 * 148), rel=1e-3)
    assert b200.ns > 1.3 * pricer("b200").price(op._replace(role="fprop")).ns
    assert pricer("b200").price(op._replace(role=SCAN_BACKWARD)).spread > b200.spread


def test_a_convolution_takes_as_long_as_it_was_timed():
    """Same source, TensorRT-LLM 1.3.0rc20: 32,768 tokens of 6,144 and of 10,240 columns, sequences of 8,192."""
    timed = {("b200", 6144): 219.9, ("gb300", 6144): 204.8, ("gb200", 10240): 348.2, ("h200", 10240): 433.5}
    for (card, columns), us in timed.items():
        op = Memory("conv1d", 32768, 2.0 * columns, 2.0 * columns)
        assert pricer(card).price(op).ns / 1e3 == pytest.approx(us, rel=0.1)


def test_a_card_that_nobody_timed_has_the_products_that_it_had():
    op = GroupedGemm(4096, 4096 * 128, 64, 192, SCAN, "bf16")
    assert pricer("a100").price(op).ns == pricer("a100").price(op._replace(role="fprop")).ns
