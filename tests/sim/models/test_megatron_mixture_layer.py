"""A mixture's layer of Megatron Core beside what its own performance test keeps of one on eight H100s.

NVIDIA/Megatron-LM tests/functional_tests/test_cases/common/moe_perf @bd0872dda0 (test_cases.py, DEEPSEEK_PROXY;
baseline.json of December 2025). Each pass there begins on a rested card, whose products are faster than a training
step's, so what dispatchers differ in is compared, not the layer.
"""

import pytest

from sim.assembly import machine
from sim.layout.plan import lay_out
from sim.scenario import from_mapping

PUBLISHED_MS = {
    ("alltoall", "bf16"): (7.119, 10.483), ("hybridep", "bf16"): (5.391, 8.795),
    ("alltoall", "fp8_block"): (7.609, 10.126), ("hybridep", "fp8_block"): (5.143, 7.687),
}  # fmt: skip
"""Dispatcher and precision -> forward and backward."""


def layer_ms(dispatcher, precision):
    """Forward and backward of router, exchanges and experts, every kernel alone."""
    own = machine(lay_out(from_mapping({
        "cluster": {"node": "h100x8", "nodes": 1}, "precision": precision,
        "model": {"base": "deepseek_v3", "experts": 32, "mtp_depth": 0, "layers": 4},
        "parallel": {"expert": 8}, "schedule": "1f1b", "outputs": ["result"],
        "stack": {"name": "megatron", "dispatcher": dispatcher, "gating": "fp32"}, "comm": {"collectives": "nccl"},
        "batch": {"sequences": 8, "sequence_length": 4096},
    })))  # fmt: skip
    unit, gap = own.routed[0], own.pricer.launch_gap_ns
    parts = [[part for direction in each for part in own.parts(unit, direction)] for each in ("F", "BW")]
    kernels = [[kernel for part in some if part.name != "attn" for kernel in part.kernels] for some in parts]
    return [sum(own.pricer.price(k.op).ns + gap * k.op.kernels for k in some) / 1e6 for some in kernels]


@pytest.mark.parametrize("precision", ["bf16", "fp8_block"])
def test_an_all_to_all_takes_so_much_more_than_hybridep(precision):
    """Chunks of rows sorted, rows padded, more bytes sent: within 10 % of what was measured, both ways."""
    here = [
        other - one for other, one in zip(layer_ms("alltoall", precision), layer_ms("hybridep", precision), strict=True)
    ]
    there = [
        other - one
        for other, one in zip(PUBLISHED_MS["alltoall", precision], PUBLISHED_MS["hybridep", precision], strict=True)
    ]
    assert here == pytest.approx(there, rel=0.1)
