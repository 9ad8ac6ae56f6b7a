"""The committed H800 tables are what one command makes of the published profile, byte for byte; and what they say."""

import dataclasses
from pathlib import Path

import pytest

from hwmodels.op import AllToAll, Gemm
from hwmodels.price import waves
from hwmodels.refused import Refused
from numerics.tables import calibrate, recording
from numerics.traces.samples import JoinError, samples

ROOT = Path(__file__).parents[3]
PROFILE = ROOT.parent / "shared" / "data" / "deepseek_v3_train_profile.json"
MODEL = ROOT / "scenarios" / "models" / "deepseek_v3.yaml"
TABLES = ROOT / "hwmodels" / "tables" / "h800"

pytestmark = pytest.mark.skipif(not PROFILE.exists(), reason="the published profile is not here")


@pytest.fixture(scope="module")
def recorded():
    return recording.calibrated(PROFILE, None, MODEL)


@pytest.fixture(scope="module")
def made(recorded):
    return recorded.tables


def test_tables_are_the_committed_ones(made, tmp_path):
    calibrate.write(made, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in TABLES.iterdir())
    for fresh in tmp_path.iterdir():
        assert fresh.read_bytes() == (TABLES / fresh.name).read_bytes(), fresh.name


def test_a_foreign_file_is_not_replaced(made, tmp_path):
    """None of the tables is written then; tables of ours are replaced."""
    (tmp_path / "gemm.json").write_text('{"mine": 1}')
    with pytest.raises(Refused, match="is no table of ours and would be replaced"):
        calibrate.write(made, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["gemm.json"]
    (tmp_path / "gemm.json").unlink()
    calibrate.write(made, tmp_path)
    calibrate.write(made, tmp_path)


def test_it_says_what_it_read(recorded):
    assert (recorded.device, recorded.whole) == ("h800", True)
    (line,) = recording.report(recorded)
    assert "983 pieces of work on NVIDIA H800, rules DeepSeek; all understood" in line
    assert "deepseek-ai/profile-data" in recorded.tables["gemm"]["source"], "a published trace is known by its digest"


@pytest.mark.parametrize(
    ("name", "published", "slack"),
    [("gemm", 1.032, 0.01), ("wgrad", 1.081, 0.01), ("memory", 1.144, 0.01), ("norm", 1.368, 0.01)],
)
def test_contention(made, name, published, slack):
    """Slow-downs beside communication, as the analysis by hand found them (one or two standard errors)."""
    (row,) = (r for r in made["contention"]["rows"] if r["class"] == name)
    assert row["factor"] == pytest.approx(published, abs=slack)
    assert row["error"] < 0.06


def test_wave_model(made):
    """a = 1.70 us, b = 0.4266 us a K block and wave for forward and input gradients (3.2 % rms)."""
    fit = made["gemm"]["fit"]["fprop"]
    assert fit["a_us"] == pytest.approx(1.70, abs=0.1)
    assert fit["b_us"] == pytest.approx(0.4266, rel=0.04)
    assert fit["rms"] < 0.035
    weight = made["gemm"]["fit"]["wgrad"]
    assert weight["a_us"] == pytest.approx(4.37, rel=0.1)
    assert weight["b_us"] == pytest.approx(0.573, rel=0.06)


def test_an_experts_turn_by_hand(made, recorded):
    """1276.5 us of four products on two streams: a quarter each, less the slow-down beside communication."""
    (turn,) = (t for t in made["gemm"]["fit"]["wgrad"]["expert_turns"] if t["name"] == "routed_down_wgrad")
    (factor,) = (r["factor"] for r in made["contention"]["rows"] if r["class"] == "wgrad")
    assert (turn["experts"], turn["span_us"], turn["m"], turn["n"]) == (4, 1276.5, 7168, 2048)
    assert turn["turn_us"] == pytest.approx(1276.5 / 4 / (1 + (factor - 1) * turn["beside"]), rel=1e-3)
    assert made["contention"]["launch_gap_us"] == 1.99


def test_every_kernel_is_used(made, recorded):
    """Samples in the tables are the kernels of the trace's layers, of all but what is known to be left out."""
    found = samples(recorded.analysis, recording.shape_of(MODEL))
    kept = [s for s in found if "_wgrad_e" not in s.name and s.name != "cast_dY_for_dispatch"]
    in_tables = sum(r["samples"] for name in ("gemm", "memory", "attention", "exchange") for r in made[name]["rows"])
    assert in_tables == sum(len(s.us) for s in kept)
    assert sum(isinstance(s.ops[0], AllToAll) for s in found) == 4
    assert len(found) - len(kept) == 8 + 1


def test_times_alone_by_hand(made, recorded):
    """kv_b runs twice a layer, eight times in all: the median of each over its slow-down."""
    (factor,) = (r["factor"] for r in made["contention"]["rows"] if r["class"] == "gemm")
    found = [s for s in samples(recorded.analysis, recording.shape_of(MODEL)) if s.ops[0] == Gemm(4096, 32768, 512)]
    alone = sorted(us / (1 + (factor - 1) * beside) for s in found for us, beside in zip(s.us, s.beside, strict=True))
    (row,) = (r for r in made["gemm"]["rows"] if (r.get("m"), r["n"], r["k"]) == (4096, 32768, 512))
    assert row["names"] == ["kv_b", "kv_b_recompute"] and row["samples"] == len(alone) == 8
    assert row["us"] == pytest.approx((alone[3] + alone[4]) / 2, rel=1e-3)
    assert (row["low_us"], row["high_us"]) == pytest.approx((alone[0], alone[-1]), rel=1e-3)


def test_nothing_streams_faster_than_memory(made):
    for kind, fit in made["memory"]["fit"].items():
        assert fit["bytes_per_s"] <= 3.35e12 and fit["fixed_us"] >= 0, kind


def test_exchanges_respect_the_bound(made):
    """In the profile no exchange is faster than its bytes over a NIC at 40 GB/s."""
    rows = made["exchange"]["rows"]
    assert {r["beside"] for r in rows} == {"dispatch(F)", "combine(F)", "dispatch(B)", "combine(B)"}
    for r in rows:
        assert r["stretch"] > 1
        assert r["alone_us"] == pytest.approx(r["wire_bytes"] / 40e9 * 1e6, rel=1e-3)


def changed(analysis, phase, name, op):
    """The analysis with one operation of a phase replaced (None: gone)."""
    operations = tuple(o if (o.phase, o.op) != (phase, name) else op and op(o) for o in analysis.operations)
    return dataclasses.replace(analysis, operations=tuple(o for o in operations if o))


@pytest.mark.parametrize(
    ("phase", "name", "op", "message"),
    [
        ("attn(B)", "o_proj_dgrad", None, "attn(B): the model runs o_proj_dgrad, the trace does not"),
        (
            "attn(F)", "flash_fwd", lambda o: dataclasses.replace(o, op="mystery"),
            "attn(F): the trace runs 'mystery', the model does not",
        ),
        (
            "attn(F)", "flash_fwd", lambda o: dataclasses.replace(o, us=o.us[:3]),
            "attn(F): 'flash_fwd' ran 3 times, others 4; is the trace whole?",
        ),
    ],
)  # fmt: skip
def test_kernels_that_do_not_join(recorded, phase, name, op, message):
    with pytest.raises(JoinError) as caught:
        calibrate.tables(changed(recorded.analysis, phase, name, op), recording.shape_of(MODEL), {})
    assert str(caught.value) == message


def test_only_single_kernels_are_read(recorded, made):
    """The pair and its phases, which are predicted, can be anything: the tables do not change."""
    (device,) = recorded.analysis.devices
    overlap = device.overlap._replace(total=1, compute=2, data=3, sync=4, data_exposed=5, idle=6)
    devices = (device._replace(overlap=overlap),)
    other = dataclasses.replace(recorded.analysis, devices=devices)
    head = {key: made["gemm"][key] for key in ("device", "source", "reference", "provenance")}
    assert calibrate.tables(other, recording.shape_of(MODEL), head) == made


def test_products_of_less_than_a_wave_are_not_in_the_bf16_fit():
    """A library takes other tiles for them: their time says nothing of a wave of 128 x 128 tiles."""
    shapes = [(4096, 7168, k) for k in (256, 1024, 4096)] + [(8192, 7168, k) for k in (256, 1024, 4096)]
    rows = [{"op": "gemm", "precision": "bf16", "role": "fprop", "m": m, "n": n, "k": k,
             "us": waves(m, n, 132) * (0.8 + 0.75 * k / 128)} for m, n, k in shapes]  # fmt: skip
    few = {"op": "gemm", "precision": "bf16", "role": "wgrad", "m": 256, "n": 7168, "k": 4096, "us": 35.0}
    fp8 = [{"op": "gemm", "precision": "fp8", "role": role, "m": 4096, "n": 7168, "k": k, "us": 14 * (1 + k / 256)}
           for role in ("fprop", "wgrad") for k in (1024, 2048)]  # fmt: skip
    found = calibrate.wave_fits([*rows, few, *fp8], 132, [])["bf16"]
    assert (found["a_us"], found["b_us"], found["shapes"]) == (pytest.approx(0.8), pytest.approx(0.75), 6)
    assert "bf16" not in calibrate.wave_fits([*rows[1:], few, *fp8], 132, [])
