"""The census: real layers against the simulator's lowering, for V3, V2, V2-Lite; drift on either side shows."""

from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hwmodels.document import read  # noqa: E402
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory  # noqa: E402
from numerics import ops  # noqa: E402
from numerics.census import census, recorder  # noqa: E402
from numerics.census.rehearsal import rehearse, site  # noqa: E402
from numerics.layers import kept, products  # noqa: E402
from numerics.reference.permute import layout  # noqa: E402
from sim.models import deepseek  # noqa: E402
from sim.models.deepseek.shape import DeepSeekShape  # noqa: E402
from sim.models.stacks.deepseek import gate as lowered_gate  # noqa: E402

MODELS = Path(__file__).parents[3] / "scenarios" / "models"
NAMES = ("deepseek_v3", "deepseek_v2", "deepseek_v2_lite")


@cache
def shape(name):
    return DeepSeekShape(**read(MODELS / f"{name}.yaml").content)


ODD = replace(
    shape("deepseek_v3"), name="no two widths equal", vocabulary=1000, hidden=384, layers=3, dense_layers=1,
    dense_intermediate=704, expert_intermediate=256, experts=8, experts_per_token=3, shared_experts=2, groups=4,
    groups_per_token=2, heads=4, qk_nope=128, qk_rope=32, v_head=64, q_rank=512, kv_rank=256,
)  # fmt: skip
"""Finds differences that equal widths (V3: nope = v_head = 128) would hide."""
SMALL = replace(ODD, experts=4, experts_per_token=4, groups=2, hidden=128, dense_intermediate=192, vocabulary=64)
"""Every expert is chosen by every token, so real loads are even too."""


@cache
def findings(name):
    return census.census(ODD) if name == "odd" else census.census(shape(name))


def wrong(found):
    return [(f.unit, f.part, *row) for f in found for row in (*f.unlisted, *f.stale)]


@pytest.mark.parametrize("name", [*NAMES, "odd"])
def test_the_layers_run_what_the_simulator_lowers(name):
    assert wrong(findings(name)) == []


@pytest.mark.parametrize("name", [*NAMES, "odd"])
def test_every_unit_and_part_is_there(name):
    expected = {("embedding", "embedding(F)"), ("dense", "attn(B+W)"), ("moe", "mlp(F)"), ("head", "head(B+W)")}
    found = {(f.unit, f.part) for f in findings(name)}
    assert expected <= found and len(found) == (14 if name in ("deepseek_v3", "odd") else 12)
    assert all(f.simulator and f.layers for f in findings(name))


@pytest.mark.parametrize("name", [*NAMES, "odd"])
def test_fp8_products_and_attention_are_equal_without_exception(name):
    """GEMMs of every role, grouped ones, and attention's FLOPs: no entry of the table adds or takes an FP8 product."""
    for finding in findings(name):
        assert fp8(finding.simulator) == fp8(finding.layers)
        attention = [sum(op.flop() for op in side.elements() if isinstance(op, Attention))
                     for side in (finding.simulator, finding.layers)]  # fmt: skip
        assert attention[0] == attention[1]
        for difference, simulator, layers in finding.explained:
            assert fp8(simulator) == fp8(layers), difference.reason


def fp8(side):
    """Its FP8 products; a grouped weight gradient is a product an expert, however many launches either side makes."""
    found = Counter()
    for op in side.elements():
        if isinstance(op, GroupedGemm) and op.role == "wgrad":
            assert op.precision == "fp8" and op.rows % op.groups == 0
            found[Gemm(op.n, op.k, op.rows // op.groups, "wgrad", "fp8")] += op.groups
        elif isinstance(op, Gemm | GroupedGemm) and op.precision == "fp8":
            found[op] += 1
    return found


def test_every_listed_difference_occurs_somewhere():
    used = {entry[0].reason for name in (*NAMES, "odd") for f in findings(name) for entry in f.explained}
    assert {d.reason for d in census.DIFFERENCES} == used
    assert len({d.reason for d in census.DIFFERENCES}) == len(census.DIFFERENCES)
    assert {d.view for d in census.DIFFERENCES} == {"simulator", "layers", "both"}


def test_products_of_v3_are_those_of_the_paper():
    """FP8 products of one mixture layer: forward, input and weight gradient do 6 FLOPs a weight and token."""
    s, where = shape("deepseek_v3"), site(shape("deepseek_v3"), census.TOKENS)
    found = [op for f in findings("deepseek_v3") if f.unit == "moe" for op in f.layers.elements()]
    work = sum(op.flop() for op in found if isinstance(op, Gemm | GroupedGemm) and op.precision == "fp8")
    q, kv = s.heads * 192, s.heads * 256
    linear = s.hidden * (s.q_rank + s.kv_rank + 64 + s.heads * 128) + s.q_rank * q + s.kv_rank * kv
    expert = 3 * s.hidden * s.expert_intermediate
    again = 2 * where.tokens * (s.q_rank * q + s.kv_rank * kv)  # up-projections of the backward pass
    assert work == 6 * (where.tokens * (linear + expert) + where.rows * expert) + again


def test_bytes_of_products_are_those_of_the_tensors(monkeypatch):
    """`op.bytes()` of what is recorded, against the tensors at hand: operands, and the result (FP32: read too)."""
    seen, notes = {}, dict(recorder.OPERATIONS)

    def weighed(name, args, out, launches):
        (op,) = notes[name](args, out, launches)
        result = out[0] if name == "attention" else out
        tensors = args[:3] if name == "attention" else args[:3:2]
        moved = sum(map(recorder.size, tensors)) + recorder.size(result) * (2 if name == "wgrad_gemm" else 1)
        seen.setdefault(name, []).append((op.bytes(), moved))
        return (op,)

    names = ("gemm", "wgrad_gemm", "grouped_gemm", "attention")
    for name in names:
        monkeypatch.setitem(recorder.OPERATIONS, name, partial(weighed, name))
    rehearse(site(shape("deepseek_v3"), 512), "moe")
    assert seen.keys() == set(names) and all(said == moved for pairs in seen.values() for said, moved in pairs)


@pytest.mark.parametrize("unit", ["dense", "moe", "head"])
def test_a_real_step_runs_what_the_meta_device_shows(unit):
    """The same layers with the reference, on real numbers: same FP8 operations, casts, norms, rope, permutes, gates."""
    where = site(SMALL, 256)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "kernel", lambda name, module: getattr(ops, name).__wrapped__)
        real = core(rehearse(where, unit, "cpu", lambda experts, tile, idx: layout(idx, experts, tile)))
    assert real and core(rehearse(where, unit)) == real


def core(seen):
    """Operations of numerics/ops.py by part: torch's own run inside the reference too, and launches differ."""
    torchs = {"copy", "elementwise", "fill", "tiny", "weight_transpose", "scale_transpose", "routing_backward"}
    found = Counter()
    for part, op in seen:
        if isinstance(op, Memory):
            if op.kind not in torchs:
                found[part, census.canonical(op)._replace(kernels=1)] += 1
        elif getattr(op, "precision", "fp8") == "fp8":
            found[part, op._replace(kernels=1)] += 1
    return found


# --- drift ------------------------------------------------------------------------------------------------------------


def sides(unit, shape=ODD):
    where = site(shape, 512)
    return where, census.lowered(where, unit), census.recorded(where, unit)


def problems(where, unit, simulator, layers):
    return wrong(list(census.compared(where, unit, simulator, layers)))


@pytest.mark.parametrize("unit", ["dense", "moe", "projection", "head", "embedding"])
def test_any_operation_more_or_less_on_either_side_shows(unit):
    where, simulator, layers = sides(unit)
    assert problems(where, unit, simulator, layers) == []
    for side in (simulator, layers):
        for part in list(side):
            for op in list(side[part]):
                for step in (1, -1):
                    side[part][op] += step
                    assert problems(where, unit, simulator, layers), (part, op, step)
                    side[part][op] -= step
    assert problems(where, unit, simulator, layers) == []


@pytest.mark.parametrize("change", [
    lambda op: op._replace(write=op.write * 0.97) if isinstance(op, Memory) else op._replace(n=op.n - 1)
    if hasattr(op, "n") else op._replace(v=op.v - 1),
    lambda op: op._replace(rows=op.rows + 1) if hasattr(op, "rows") else op._replace(kernels=3),
])  # fmt: skip
def test_an_operation_of_another_size_shows(change):
    where, simulator, layers = sides("dense")
    for part, ops_of_part in simulator.items():
        for op in [op for op in ops_of_part if op.bytes()]:
            moved = Counter(ops_of_part)
            moved[op] -= 1
            moved[census.canonical(change(op))] += 1
            assert problems(where, "dense", {**simulator, part: +moved}, layers), (part, op)


def test_a_layer_that_stops_fusing_shows(monkeypatch):
    """SwiGLU and its transposed cast in two kernels instead of one."""
    monkeypatch.setattr(kept.Activated, "columns", lambda self: ops.quantize_columns(ops.swiglu(self.gate_up)))
    where, simulator, layers = sides("dense")
    found = problems(where, "dense", simulator, layers)
    assert {(row[2], row[3].kind) for row in found} == {
        ("layers", "swiglu"), ("layers", "cast_transpose"), ("layers", "swiglu_transpose")
    }  # fmt: skip


def test_a_layer_that_leaves_fp8_shows(monkeypatch):
    def plain(x, w, precision):
        return x.value() @ w.codes[0].to(precision.dtype).t()

    from numerics.layers import feedforward

    monkeypatch.setattr(feedforward, "fprop", plain)
    where, simulator, layers = sides("dense")
    found = problems(where, "dense", simulator, layers)
    assert any(isinstance(row[3], Gemm) and row[2] == "simulator" for row in found)
    assert products.fprop is not plain


def test_a_simulator_that_drops_the_routing_kernels_shows(monkeypatch):
    monkeypatch.setitem(lowered_gate.ROUTING_KERNELS, "F", 1)
    where, simulator, layers = sides("moe")
    kinds = {(row[1], row[2], row[3].kind, row[3].kernels) for row in problems(where, "moe", simulator, layers)}
    assert kinds == {("attn(F)", "simulator", "routing_forward", 1), ("attn(F)", "simulator", "routing_forward", 37)}


def test_a_simulator_that_forgets_a_recompute_shows(monkeypatch):
    true = deepseek.parts

    def parts(where, unit, direction):
        return tuple(
            part._replace(kernels=tuple(k for k in part.kernels if k.name != "kv_b_recompute"))
            for part in true(where, unit, direction)
        )

    monkeypatch.setattr(deepseek, "parts", parts)
    where, simulator, layers = sides("dense")
    assert [(row[1], row[2]) for row in problems(where, "dense", simulator, layers)] == [("attn(B+W)", "layers")]


# --- the command's table ----------------------------------------------------------------------------------------------


def test_main_prints_the_table_and_the_reasons(capsys):
    assert census.main(shape("deepseek_v2_lite")) == 0
    text = capsys.readouterr().out
    rows = {tuple(line.split()[:2]): line.split() for line in text.splitlines()}
    assert "gemm fprop fp8" in text and "DeepSeek's GEMMs want scales transposed" in text
    assert rows["dense", "attn(B+W)"]
    lines = [line for line in text.splitlines() if line.startswith("moe        attn(F)")]
    line = next(line for line in lines if "gemm fprop fp8" in line)
    assert line.split()[-3:] == ["4", "4", "-"]


def test_main_says_what_is_not_listed(capsys, monkeypatch):
    monkeypatch.setattr(census, "DIFFERENCES", census.DIFFERENCES[1:])
    assert census.main(shape("deepseek_v2_lite")) == 1
    assert "dense attn(F): not listed: " in capsys.readouterr().out
