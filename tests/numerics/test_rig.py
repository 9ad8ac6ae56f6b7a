"""Every operation that the reference scenario needs becomes a launch of its own shape, or says why not. No GPU runs."""

from collections import Counter
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hwmodels.op import Gemm, GroupedGemm, Memory  # noqa: E402
from numerics import campaign, cards, needs, rig  # noqa: E402
from numerics.kernels.launches import variants  # noqa: E402
from numerics.reference.permute import permute, unpermute  # noqa: E402
from sim.scenario import load  # noqa: E402

V3 = load(str(Path(__file__).parents[2] / "scenarios" / "v3_2048gpu.yaml"))
NEEDED = needs.operations(V3)
TORCH = {"copy", "broadcast", "weight_transpose", "scale_transpose", "elementwise", "tiny", "BF16 product"}


def test_what_the_plan_asks_can_be_launched_or_says_why_not():
    tasks = campaign.plan(NEEDED, cards.reference("h200"), 112, quick=True)
    refused = Counter()
    for task in tasks:
        try:
            found = variants(rig.call_of(task.op, V3.model, task.sms, "meta"))
        except rig.Unmeasurable as why:
            refused[str(why).partition(":")[0]] += 1
            continue
        assert bool(found) != (needs.kind_of(task.op) in TORCH), task
    assert sum(refused.values()) == 13 and not any("product" in why for why in refused), refused


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Gemm(256, 384, 512), (256, 384)), (Gemm(384, 256, 512, "wgrad"), (384, 256)),
        (GroupedGemm(2, 512, 384, 256), (512, 384)), (Gemm(256, 384, 512, "fprop", "bf16"), (256, 384)),
        (Memory("copy", 64, 32, 32), (64, 16)), (Memory("broadcast", 64, 0, 16384), (64, 128, 64)),
        (Memory("weight_transpose", 64, 32, 32), (32, 64)), (Memory("scale_transpose", 64, 32, 32), (8, 64)),
        (Memory("elementwise", 64, 96, 32), (64, 16)), (Memory("rope", 64, 256, 256), (1, 64, 2, 64)),
    ],
)  # fmt: skip
def test_operands_have_the_shape_of_the_operation(op, shape):
    """Bytes of what comes out are the bytes that the operation says it writes."""
    from numerics.kernels.launches import recorded

    with recorded():
        out = rig.call_of(op, V3.model, device="meta")()
    assert tuple(out.shape) == shape
    if isinstance(op, Memory):
        assert out.numel() * out.element_size() == op.bytes() - op.rows * op.read


@pytest.mark.parametrize(("kind", "read", "write"), [
    ("cast", 1024.0, 512 + 16.0), ("cast_transpose", 1024.0, 512 + 16.0), ("recast_transpose", 512.0, 512 + 16.0),
    ("dequantize", 512 + 16.0, 1024.0), ("store_e5m6", 1024.0, 768 + 16.0), ("swiglu", 2048.0, 512 + 16.0),
])  # fmt: skip
def test_casts_work_on_the_widths_their_bytes_say(kind, read, write):
    """512 elements a row: BF16 is 1024 bytes, E4M3 512 and four scales of 4 bytes, E5M6 three bytes a pair."""
    from numerics.kernels.launches import recorded

    with recorded():
        out = rig.call_of(Memory(kind, 256, read, write), V3.model, device="meta")()
    parts = out if isinstance(out, tuple) else (out,)
    assert sum(p.numel() * p.element_size() for p in parts) == pytest.approx(256 * write, rel=0.03)


def test_rows_come_from_tokens_once_each_and_some_again():
    table = rig.layout(100, 256, "cpu")
    used = table.row_of_pair[table.row_of_pair >= 0]
    assert sorted(used.tolist()) == list(range(256)) and table.row_of_pair.shape == (100, 3)
    x = torch.arange(100, dtype=torch.float32)[:, None].expand(-1, 4).contiguous()
    spread = permute(x, table)
    assert sorted(spread[:, 0].tolist()) == sorted([*range(100)] * 2 + [*range(56)])
    assert torch.equal(unpermute(spread, table)[:, 0], x[:, 0] * torch.tensor([3.0] * 56 + [2.0] * 44))


@pytest.mark.parametrize("op", [
    Memory("norm_forward", 8, 28672, 28672), Memory("norm_backward", 8, 71680, 14336), Memory("loss", 8, 1, 1),
    Memory("elementwise", 8, 43008, 28672), GroupedGemm(1, 128, 128, 128, "fprop", "bf16"),
])  # fmt: skip
def test_what_no_kernel_does_is_refused(op):
    with pytest.raises(rig.Unmeasurable, match=":"):
        rig.call_of(op, V3.model, device="meta")
