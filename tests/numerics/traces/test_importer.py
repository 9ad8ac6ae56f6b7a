"""The importer: by hand on a made-up trace, on torch's own, and on the published profile where that is at hand."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from numerics.traces import rules
from numerics.traces.importer import Analysis, analyse
from numerics.traces.operations import Shape, from_dims, rows
from numerics.traces.samples import expert_turns, precision, products, samples
from numerics.traces.summary import classes, overlap, quantiles
from numerics.traces.trace import read_trace
from numerics.traces.unknowns import shares, unknown

TINY = Path(__file__).parent / "two_streams.json"
H200 = Path(__file__).parent / "h200_mlp.json.gz"
SHARED = Path(__file__).parents[4] / "shared"
PROFILE = SHARED / "data" / "deepseek_v3_train_profile.json"
OPS, FACTS = (SHARED / "facts" / f"h800_dualpipe_trace{end}" for end in ("_ops.csv", ".json"))
CUTLASS = "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<int>>(int)"
needs_profile = pytest.mark.skipif(not (PROFILE.exists() and OPS.exists()), reason="the published profile is not here")


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Analysis:
    return analyse(read_trace(TINY), rules.load("torch"))


def test_overlap_by_hand(tiny: Analysis) -> None:
    """compute 100-140, 142-150, 200-232; all-reduce 120-180; the fill at 240 takes no time but ends the trace."""
    (o,) = (device.overlap for device in tiny.devices)
    assert (o.total, o.compute, o.data, o.sync) == (140_000, 80_000, 60_000, 0)
    assert o.data_exposed == 60_000 - 20_000 - 8_000
    assert o.idle == 20_000 + 8_000
    assert o.data_beside_gemm == 20_000
    assert o.launch_gaps().tolist() == [2_000]
    assert o.waits().tolist() == [[50_000, 50_000]]
    assert tiny.sms == (10, 8, 2)


def test_kernels_are_joined_to_annotation_repeat_and_dimensions(tiny: Analysis) -> None:
    gemm = next(op for op in tiny.operations if "gemm" in op.kernel)
    assert (gemm.phase, gemm.repeats, gemm.us, gemm.beside) == ("layer", (0, 1), (40.0, 32.0), (0.5, 0.0))
    assert gemm.shapes == (Shape(256, 128, 512),) * 2
    strange = next(op for op in tiny.operations if op.kernel == "strange_kernel")
    assert strange.phase == "layer", "launched by a thread without annotations, while the main one is in the layer"
    assert gemm.without_communication() == 32.0 and gemm.with_communication() is None
    assert products(tiny)[0][0][:3] == (256, 128, 512)
    assert products(tiny)[0][0].precision == "bf16"


def test_what_was_not_understood_is_listed_with_its_share(tiny: Analysis) -> None:
    first, second = unknown(tiny)
    assert second.what == "launch not in the trace, or not the only one with its correlation id"
    assert second.share == 0, "the fill takes no time"
    assert next(op for op in tiny.operations if op.kernel.startswith("Memset")).phase == "", "nothing says which"
    assert (first.name, first.kernels, first.share) == ("strange_kernel", 1, pytest.approx(8 / 140))
    assert str(first) == "no rule for: strange_kernel (1 times, 5.71% of kernel time)"
    assert second.kernels == 1
    assert shares(tiny) == pytest.approx((8 / 140, 8 / 140, 0))


def test_a_phase_that_differs_from_its_sequence_is_aligned_and_reported(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "kernels: [{class: gemm, match: gemm}, {class: comm_data, match: nccl}, {class: norm, match: strange}]\n"
        "sequences: {layer: [gemm up, norm rms]}\n"
    )
    found = analyse(read_trace(TINY), rules.load(own))
    assert {op.op: op.position for op in found.phase("layer")}["up"] == 0
    assert {op.op: op.us for op in found.operations}["rms"] == (8.0,)
    whats = {u.what for u in unknown(found)}
    assert "not in the sequence of layer" in whats, "the all-reduce has no place there"
    with pytest.raises(ValueError, match="samples need rules with sequences"):
        samples(found, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ("[[64, 32], [32, 16]]", Shape(64, 16, 32)),
        ("[[16], [64, 32], [32, 16], [], []]", Shape(64, 16, 32)),
        ("[[2, 64, 32], [2, 32, 16]]", Shape(128, 16, 32)),
        ("[[2, 8, 32], [16, 32], [16]]", Shape(16, 16, 32)),
        ("[[64, 32], [32, 16], [64, 1], [1, 16], [], []]", Shape(64, 16, 32)),
        ("[[256, 256], [256, 512], [512, 256], [], []]", Shape(256, 256, 512)),
        ("[[64, 32]]", Shape()), ("[[4, 5], [6, 7]]", Shape()), ("nonsense", Shape()), ("", Shape()),
        ("[[1e9, 2], [2, 3]]", Shape()), ("[[-4, 5], [5, 4]]", Shape()), ("[" * 100_000, Shape()),
        ("1", Shape()), ("true", Shape()), ('{"a": 1}', Shape()),
    ],
)  # fmt: skip
def test_dimensions_of_operators(dims: str, shape: Shape) -> None:
    assert from_dims(dims) == shape


def kernels(folder: Path, events: list[dict[str, Any]]) -> Analysis:
    path = folder / "trace.json"
    path.write_text(json.dumps(events))
    return analyse(read_trace(path), rules.load("torch"))


def span(category: str, name: str, ts: float, dur: float, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": ts, "dur": dur, "pid": 1, "tid": 1, "args": args}


def test_a_correlation_id_of_two_launches_joins_nothing(tmp_path: Path) -> None:
    """As in a file that two ranks' traces were merged into: a wrong phase is worse than none."""
    host = [span("user_annotation", "layer", 0, 100), span("cuda_runtime", "cudaLaunchKernel", 5, 1, correlation=1)]
    once = kernels(tmp_path, [*host, span("kernel", "sgemm", 20, 5, correlation=1)])
    assert (once.operations[0].phase, once.unjoined) == ("layer", 0)
    host.append(span("cuda_runtime", "cudaLaunchKernel", 900, 1, correlation=1))
    twice = kernels(tmp_path, [*host, span("kernel", "sgemm", 20, 5, correlation=1)])
    assert (twice.operations[0].phase, twice.unjoined) == ("", 1)
    graph = kernels(tmp_path, [*host[:2], *(span("kernel", "sgemm", 20 + t, 5, correlation=1) for t in (0, 10))])
    assert graph.unjoined == 0, "the kernels of a CUDA graph share one launch"


@pytest.mark.parametrize(
    ("kernel", "types", "said"),
    [
        ("nvjet_tst_128x256", "['float', 'float']", "bf16"), ("nvjet_qqtst_128x256", "", "fp8"),
        ("ampere_sgemm_128x64_tn", "['float', 'float']", "fp32"), ("dgemm", "['double', 'double', '']", "fp64"),
        (CUTLASS, "['c10::Float8_e4m3fn', 'c10::Float8_e4m3fn', 'float', 'float']", "fp8"),
        (CUTLASS, "['c10::BFloat16', 'c10::BFloat16']", "bf16"), ("gemm", "", "unsaid"),
    ],
)  # fmt: skip
def test_precision_is_what_the_name_or_the_operands_tell(tmp_path: Path, kernel: str, types: str, said: str) -> None:
    given = {"Input Dims": [[64, 32], [32, 16]], "Input type": json.loads(types.replace("'", '"') or "[]")}
    found = kernels(tmp_path, [
        span("cpu_op", "aten::mm", 0, 10, **given), span("cuda_runtime", "cudaLaunchKernel", 5, 1, correlation=1),
        span("kernel", kernel, 20, 5, correlation=1),
    ])  # fmt: skip
    ((gemm, op),) = products(found)
    assert gemm[:6] == (64, 16, 32, "fprop", said, 1) and precision(op) == said


# --- a GPU ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def h200() -> Analysis:
    return analyse(read_trace(H200), rules.load("torch"))


def test_every_kernel_of_a_gpus_trace_is_understood_and_joined(h200: Analysis) -> None:
    assert unknown(h200) == () and shares(h200) == (0, 0, 0)
    assert (h200.kernels, h200.unjoined, h200.device, h200.sms.device) == (132, 0, "NVIDIA H200", 132)
    assert set(h200.phases()) == {"forward", "backward", "optimizer"}
    assert all(op.phase for op in h200.operations), "autograd's thread, too, launches within a phase"
    assert {r for op in h200.operations for r in op.repeats} == {0, 1, 2}


def test_classes_of_a_gpus_trace_are_those_of_its_program(h200: Analysis) -> None:
    """5 products a step (the first layer's input needs no gradient), GELU, LayerNorm, sums of bias gradients, AdamW."""
    found = classes(h200)
    kernels = {kind: entry["kernels"] for kind, entry in found.items()}
    assert kernels == {
        "gemm_bf16": 15, "activation": 6, "norm": 9, "reduce": 9, "copy": 9, "elementwise": 36, "optimizer": 48,
    }  # fmt: skip
    assert found["gemm_bf16"]["share"] == pytest.approx(0.514, abs=1e-3)
    assert found["optimizer"]["share"] == pytest.approx(0.276, abs=1e-3)
    assert sum(entry["us"] for entry in found.values()) == pytest.approx(h200.devices[0].overlap.compute / 1000)


def test_products_of_a_gpus_trace_have_their_sides_and_plausible_rates(h200: Analysis) -> None:
    """Forward and both gradients of 2048 -> 8192 -> 2048 at 4,096 tokens; a dense peak of 989 TFLOP/s in BF16."""
    found = {(op.phase, *op.shapes[0]): op for _, op in products(h200)}
    assert sorted(found) == [
        ("backward", 2048, 8192, 4096), ("backward", 4096, 8192, 2048), ("backward", 8192, 2048, 4096),
        ("forward", 4096, 2048, 8192), ("forward", 4096, 8192, 2048),
    ]  # fmt: skip
    for gemm, op in products(h200):
        assert gemm.precision == "bf16" and len(op.us) == 3
        assert 0.7 < gemm.flop() / (op.median_us * 1e-6) / 989e12 < 0.9


def test_quantiles_and_gaps_of_a_gpus_trace(h200: Analysis) -> None:
    listed = list(quantiles(h200))
    assert [r["us"] for r in listed] == sorted((r["us"] for r in listed), reverse=True)
    assert sum(r["kernels"] for r in listed) == 132 and sum(r["share"] for r in listed) == pytest.approx(1, abs=2e-3)
    first = {key: listed[0][key] for key in ("phase", "m", "n", "k", "p50_us")}
    assert first == {"phase": "forward", "m": 4096, "n": 8192, "k": 2048, "p50_us": 181.31}
    assert all(r["p10_us"] <= r["p50_us"] <= r["p90_us"] for r in listed)
    (o,) = (device.overlap for device in h200.devices)
    assert o.total == o.compute + o.idle and o.data == o.sync == 0, "one stream, no communication"
    assert int(o.gaps[:, 0].sum()) == o.idle
    assert len(o.launch_gaps()) == 80 and o.launch_gaps().mean() == pytest.approx(1271, abs=1)


# --- torch ------------------------------------------------------------------------------------------------------------


def test_a_training_loop_profiled_on_the_cpu_imports(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(
        torch.nn.Linear(48, 96), torch.nn.GELU(), torch.nn.LayerNorm(96), torch.nn.Linear(96, 8)
    )
    optimizer = torch.optim.AdamW(model.parameters())
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, record_shapes=True) as profile:
        for _ in range(3):
            with torch.profiler.record_function("forward"):
                loss = model(torch.randn(32, 48)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    packed = tmp_path / "trace.json.gz"
    profile.export_chrome_trace(str(packed))
    (tmp_path / "trace.json").write_bytes(gzip.decompress(packed.read_bytes()))
    for name in ("trace.json", "trace.json.gz"):
        found = analyse(read_trace(tmp_path / name), rules.load("torch"))
        assert shares(found).no_rule < 0.01, [str(u) for u in unknown(found)]
        assert shares(found).general < 0.1, [str(u) for u in unknown(found)]
        first = next(op for op in found.operations if op.shapes == (Shape(32, 96, 48),) * 3)
        assert (first.kind, first.phase, first.repeats) == ("gemm", "forward", (0, 1, 2))
        kinds = {op.kind for op in found.operations}
        assert {"gemm", "norm", "activation"} <= kinds and found.device == "CPU"
        assert {g.m * g.n * g.k for g, _ in products(found)} >= {32 * 96 * 48, 32 * 96 * 8}
        (o,) = (device.overlap for device in found.devices)
        assert 0 < o.compute <= o.total
        nothing_twice = sum(sum(op.us) for op in found.operations) * 1000
        assert nothing_twice == pytest.approx(o.compute, rel=0.02)


# --- the published profile --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profile() -> Analysis:
    return analyse(read_trace(PROFILE), rules.load("deepseek"))


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return json.loads(FACTS.read_text())


@needs_profile
def test_every_kernel_of_the_profile_is_understood(profile: Analysis) -> None:
    assert (profile.kernels, profile.unjoined) == (983, 0)
    assert sum(len(op.us) for op in profile.operations) == 983
    assert unknown(profile) == () and shares(profile) == (0, 0, 0)
    assert (profile.sms, profile.device, profile.world_size) == ((132, 112, 20), "NVIDIA H800", 64)


@needs_profile
def test_labels_times_shares_and_shapes_are_those_of_the_analysis_by_hand(profile: Analysis) -> None:
    placed = {(op.phase, op.position): op for op in profile.operations}
    listed = list(csv.DictReader(OPS.open()))
    assert len(listed) == sum(op.position >= 0 for op in profile.operations) == 245
    for row in listed:
        op = placed[row["phase"], int(row["pos"])]
        assert (op.op, op.kind) == (row["op"], row["class"])
        assert op.us == tuple(float(row[f"L{i}"]) for i in range(4))
        assert op.median_us == float(row["median_us"])
        assert op.beside == pytest.approx([float(row[f"f_data_L{i}"]) for i in range(4)], abs=0.00501)
        if row["M"]:
            assert op.shapes[0] == tuple(float(row[side]) for side in "MNK")
        else:
            assert op.shapes == ()


@needs_profile
def test_widths_agree_with_the_weight_transposes(profile: Analysis) -> None:
    """A block transposes 128 x 128 elements: blocks = N x K x experts / 16384. Independent of shared memory."""
    ops = {(op.phase, op.op): op for op in profile.operations}
    pairs = (
        ("attn(B)", "q_b_WT", "q_b_dgrad"),
        ("attn(B)", "kv_b_WT", "kv_b_dgrad"),
        ("attn(B)", "o_WT", "o_proj_dgrad"),
    )
    for phase, transpose, product in (*pairs, ("mlp(B)", "shared_W1T", "shared_gateup_dgrad")):
        shape = ops[phase, product].shapes[0]
        assert ops[phase, transpose].grids[0][0] == shape.n * shape.k / 16384
    shape = ops["mlp(F)", "routed_gateup"].shapes[0]
    assert ops["mlp(F)", "routed_W1T"].grids[0][0] == 4 * shape.n * shape.k / 16384


@needs_profile
def test_overlap_rows_groups_and_barriers_are_exact(profile: Analysis, facts: dict[str, Any]) -> None:
    (o,), counts = (device.overlap for device in profile.devices), rows(profile.operations, profile.rules)
    assert overlap(o) | {"big_gaps": (o.waits() // 1000).tolist()} == facts["overlap"]
    for name, ours in (("padded_routed_rows", counts.padded), ("received_tokens", counts.received)):
        assert {f"{d}{i}": n for d in "FB" for i, n in enumerate(ours[d])} == facts["_meta"][name]
    spans = {name: entry["span_us_4_experts"] for name, entry in facts["wgrad_groups"].items()}
    assert {name: [ns / 1000 for ns in profile.groups[name]] for name in spans} == spans
    barriers = {op.op: list(op.us) for op in profile.operations if op.kind == "comm_sync" and "layout" not in op.op}
    assert barriers == facts["comm"]["barriers_us"]


@needs_profile
def test_samples_join_the_model_of_the_layer(profile: Analysis) -> None:
    shape = shape_of_v3()
    found = samples(profile, shape)
    assert {len(s.us) for s in found} == {4}
    gemms = {s.name: s for s in found if hasattr(s.ops[0], "n")}
    by_name = {op.op: op for op in profile.operations if op.shapes and op.kind != "gemm_grouped"}
    for name, sample in gemms.items():
        if name in by_name and "_wgrad_e" not in name:
            op = sample.ops[0]
            assert (op.m, op.n, op.k) == by_name[name].shapes[0], name
            assert sample.us == by_name[name].us
    routed = gemms["routed_gateup"]
    assert [op.rows for op in routed.ops] == [31104, 30976, 36864, 31104]
    work = sum(sum(s.us) for s in found)
    barriers = sum(sum(op.us) for op in profile.operations if op.kind == "comm_sync" and op.op != "dispatch_layout")
    loose = sum(sum(op.us) for op in profile.operations if op.position < 0)
    assert work + barriers + loose == pytest.approx(sum(sum(op.us) for op in profile.operations)), "no time is lost"
    assert expert_turns(profile)["routed_down_wgrad"][0] == pytest.approx(1_362_000 / 4)


@needs_profile
def test_a_model_that_runs_other_kernels_is_refused(profile: Analysis) -> None:
    import dataclasses

    shape = dataclasses.replace(shape_of_v3(), q_rank=0)
    with pytest.raises(ValueError, match=r"attn\(F\): the trace runs 'q_a', the model does not"):
        samples(profile, shape)


def shape_of_v3() -> Any:
    from hwmodels.document import read
    from sim.models.deepseek.shape import DeepSeekShape

    path = Path(__file__).parents[3] / "scenarios" / "models" / "deepseek_v3.yaml"
    fields = read(path).content
    values = {k: v["value"] if isinstance(v, dict) else v for k, v in fields.items()}
    return DeepSeekShape(**{k: values.get(k, "") for k in DeepSeekShape.__dataclass_fields__})
