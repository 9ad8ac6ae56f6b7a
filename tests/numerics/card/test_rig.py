"""Every operation that the reference scenario needs becomes a launch of its own shape, and is held to its reference.

No GPU runs: launches are read off, and what is verified runs in Triton's interpreter at small shapes.
"""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hwmodels.op import Attention, Gemm, GroupedGemm, Memory  # noqa: E402
from numerics.card import bench, campaign, needs, rig, streams  # noqa: E402
from numerics.kernels.launches import recorded, variants  # noqa: E402
from numerics.reference.permute import permute, unpermute  # noqa: E402
from numerics.tables import cards  # noqa: E402
from sim.scenario import load  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()
V3 = load(str(Path(__file__).parents[3] / "scenarios" / "v3_2048gpu.yaml"))
NEEDED = needs.operations(V3)
TORCH = {"copy", "broadcast", "scale_transpose", "elementwise", "tiny", "BF16 product",
         "attention_finish", "routing_backward"}  # fmt: skip
SMALL_KERNELS = {"tiny", "dispatch_layout", "expert_count", "expert_map", "routing_forward", "routing_backward"}
"""Bound by their launches: their tables are not the bytes that the vocabulary says."""


def test_what_the_plan_asks_can_be_launched():
    """Nothing of V3 is Unmeasurable; what no kernel of ours does is torch's and is known to be."""
    for task in campaign.plan(NEEDED, cards.reference("h200"), 112, quick=True):
        found = variants(rig.call_of(task.op, V3.model, task.sms, "meta"))
        assert bool(found) != (needs.kind_of(task.op) in TORCH), task


def tensors(value, seen):
    """Tensors that a call holds, through closures and tuples."""
    if isinstance(value, torch.Tensor):
        seen[id(value)] = value
    elif isinstance(value, tuple | list):
        for one in value:
            tensors(one, seen)
    for cell in getattr(value, "__closure__", None) or ():
        tensors(cell.cell_contents, seen)
    return seen


def moved_bytes(call):
    """What a call reads, its operands, and writes, its results."""
    with recorded():
        out = call()
    read, written = tensors(call, {}), tensors(out if isinstance(out, tuple) else (out,), {})
    return sum(t.numel() * t.element_size() for part in (read, written) for t in part.values())


def streamed(op):
    """The bytes of `op` that ours moves too.

    Our attention writes dQ in BF16 and sums it in registers; a scale of a ragged tile is a whole one; the tables of a
    single head's rope are as large as its rows.
    """
    if isinstance(op, Attention) and op.direction == "backward":
        return op.bytes() - 2.0 * op.batch * op.sequence * op.heads * op.qk
    if isinstance(op, Memory) and op.kind == "scale_transpose":
        return 2 * op.rows * 4 * -(-op.read // 4)
    tables = op.rows * V3.model.qk_rope * 4 if getattr(op, "kind", "") == "rope" else 0
    return op.bytes() + tables


@pytest.mark.parametrize("op", [op for op in NEEDED if needs.kind_of(op) not in SMALL_KERNELS], ids=str)
def test_a_call_moves_the_bytes_of_its_operation(op):
    """Scales, rstd and index tables are beside them: 4 % of E4M3 with scales both ways, at most 5."""
    assert moved_bytes(rig.call_of(op, V3.model, device="meta")) == pytest.approx(streamed(op), rel=0.05)


ROUTED = replace(V3.model, experts=16, experts_per_token=4, groups=4, groups_per_token=2)
FEW_HEADS = replace(V3.model, heads=4)
SMALL = [
    Gemm(192, 256, 256), Gemm(256, 128, 256, "wgrad"), GroupedGemm(2, 384, 128, 128),
    Attention("forward", 1, 3, 128, 192, 128), Attention("backward", 1, 3, 128, 192, 128),
    Memory("cast", 5, 512, 264), Memory("cast_transpose", 130, 512, 264), Memory("recast_transpose", 130, 264, 264),
    Memory("dequantize", 5, 264, 512), Memory("store_e5m6", 5, 512, 392), Memory("dequantize_e5m6", 5, 392, 512),
    Memory("norm_forward", 4, 1024, 1024), Memory("norm_forward", 4, 28672, 28672),
    *(Memory("norm_backward", 9, 1024 * reads, 1024) for reads in (2, 3, 5)), Memory("swiglu", 65, 1024, 264),
    *(Memory("swiglu_backward", 65, 1536, 512 * writes) for writes in (2, 3)),
    Memory("gate_weight_gradient", 65, 1024, 4), Memory("rope", 9, 256, 256), Memory("routing_forward", 9, 32, 32),
    Memory("routing_backward", 9, 32, 32), Memory("dispatch_layout", 9, 32, 32), Memory("expert_count", 70, 16, 16),
    Memory("expert_map", 70, 16, 16), Memory("permute", 256, 50, 128), Memory("unpermute", 256, 256, 100),
    Memory("attention_prepare", 3, 4 * 4 * 16, 4 * 4 * 24), Memory("attention_finish", 3, 96, 48),
    Memory("elementwise", 8, 48, 32), Memory("elementwise", 8, 512, 4),
]  # fmt: skip


@pytest.fixture
def few_ranks(monkeypatch):
    monkeypatch.setattr(streams, "RANKS", 4)


@pytest.mark.parametrize("op", SMALL, ids=str)
def test_every_kernel_verifies(op, few_ranks):
    shape = ROUTED if op[0] in {*SMALL_KERNELS, "permute", "unpermute"} else V3.model
    shape = FEW_HEADS if op[0] == "attention_prepare" else shape
    torch.manual_seed(1)
    work = rig.work_of(op, shape, device="cpu")
    rig.verified(work)()
    assert bool(work.unverified) == (needs.kind_of(op) in TORCH)


@pytest.mark.parametrize("op", [SMALL[i] for i in (0, 1, 2, 5, 11, 12, 19)], ids=str)
def test_a_wrong_kernel_is_refused(op):
    """A row of the whole that is sampled, or a scale: either is found."""
    work = rig.work_of(op, V3.model, device="cpu")

    def broken():
        out = rig.call(work)()
        parts = out if isinstance(out, tuple) else (out,)
        parts[-1].mul_(1.03)
        return out

    with pytest.raises(rig.Wrong, match="the output is not the reference's: "):
        rig.verified(replace(work, ours={rig.OURS: broken}))


def test_a_tile_left_out_is_found():
    """Rows are sampled, but of each tile: zeros in the last tile of a product do not pass."""
    work = rig.work_of(Gemm(256, 128, 128), V3.model, device="cpu")

    def broken():
        out = rig.call(work)()
        out[128:192] = 0
        return out

    assert "all zero" in bench.verify(work, broken)


def test_sampled_rows_are_in_every_tile():
    for rows in (1, 64, 100, 4096, 33024):
        found = rig._sample(rows, "cpu")
        assert found.max() < rows and len(found) == -(-rows // rig.EVERY)
        assert torch.equal(found // rig.EVERY, torch.arange(len(found)))


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
    with recorded():
        out = rig.call_of(Memory(kind, 256, read, write), V3.model, device="meta")()
    parts = out if isinstance(out, tuple) else (out,)
    assert sum(p.numel() * p.element_size() for p in parts) == pytest.approx(256 * write, rel=0.03)


def test_rows_come_from_tokens_once_each_and_some_again():
    table = streams.layout(100, 256, "cpu")
    used = table.row_of_pair[table.row_of_pair >= 0]
    assert sorted(used.tolist()) == list(range(256)) and table.row_of_pair.shape == (100, 3)
    x = torch.arange(100, dtype=torch.float32)[:, None].expand(-1, 4).contiguous()
    spread = permute(x, table)
    assert sorted(spread[:, 0].tolist()) == sorted([*range(100)] * 2 + [*range(56)])
    assert torch.equal(unpermute(spread, table)[:, 0], x[:, 0] * torch.tensor([3.0] * 56 + [2.0] * 44))


@pytest.mark.parametrize("op", [
    Memory("norm_forward", 8, 14336, 28672), Memory("norm_backward", 8, 14336, 14336), Memory("loss", 8, 1, 1),
    Memory("norm_forward", 8, 200, 200), Memory("norm_backward", 8, 57344, 28672), Memory("elementwise", 8, 5, 4),
    Memory("swiglu_backward", 8, 12288, 16384), GroupedGemm(1, 128, 128, 128, "fprop", "bf16"),
])  # fmt: skip
def test_what_no_kernel_does_is_refused(op):
    with pytest.raises(rig.Unmeasurable, match=":"):
        rig.call_of(op, V3.model, device="meta")
