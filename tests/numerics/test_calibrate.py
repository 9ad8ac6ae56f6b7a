"""The committed H800 tables are what the program makes of the facts, byte for byte; and they say what was published."""

import csv
import json
from pathlib import Path

import pytest

from numerics import calibrate
from sim.scenario import from_mapping

ROOT = Path(__file__).parents[2]
FACTS = ROOT.parent / "shared" / "facts"
OPS, SUMMARY = FACTS / "h800_dualpipe_trace_ops.csv", FACTS / "h800_dualpipe_trace.json"
TABLES = ROOT / "hwmodels" / "tables" / "h800"

pytestmark = pytest.mark.skipif(not OPS.exists(), reason="the analysis of the published profile is not here")


@pytest.fixture(scope="module")
def shape():
    return from_mapping(
        {
            "cluster": {"node": "h800x8", "nodes": 16}, "model": "deepseek_v3", "schedule": "1f1b",
            "batch": {"micro_batches": 1},
        }
    ).model  # fmt: skip


@pytest.fixture(scope="module")
def made(shape):
    return calibrate.tables(OPS, SUMMARY, shape)


def test_tables_are_the_committed_ones(made, tmp_path):
    calibrate.write(made, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in TABLES.iterdir())
    for fresh in tmp_path.iterdir():
        assert fresh.read_bytes() == (TABLES / fresh.name).read_bytes(), fresh.name


@pytest.mark.parametrize(
    ("name", "published", "slack"),
    [("gemm", 1.032, 0.01), ("wgrad", 1.081, 0.01), ("memory", 1.144, 0.01), ("norm", 1.368, 0.01)],
)
def test_contention(made, name, published, slack):
    """Slow-downs beside communication, as the analysis found them (one or two standard errors)."""
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


def test_every_kernel_is_used(made):
    """Samples in the tables are the kernels of the profile: four layers of all but what is known to be left out."""
    with OPS.open() as file:
        rows = list(csv.DictReader(file))
    tiny = sum(r["class"] == "routing" for r in rows) - 2  # merged into one row each way
    barriers = sum(r["class"] == "comm_sync" and r["op"] != "dispatch_layout" for r in rows)
    experts = sum("_wgrad_e" in r["op"] for r in rows)
    beside = sum(r["op"] == "cast_dY_for_dispatch" for r in rows)
    found = sum(r["samples"] for name in ("gemm", "memory", "attention", "exchange") for r in made[name]["rows"])
    assert found == 4 * (len(rows) - tiny - barriers - experts - beside)


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


def edited(tmp_path, change):
    """The facts with the list of kernels changed."""
    with OPS.open() as file:
        reader = csv.DictReader(file)
        fields, rows = reader.fieldnames, list(reader)
    rows = change(rows)
    path = tmp_path / OPS.name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_missing_kernel(shape, tmp_path):
    path = edited(tmp_path, lambda rows: [r for r in rows if r["op"] != "o_proj_dgrad"])
    with pytest.raises(ValueError) as caught:
        calibrate.tables(path, SUMMARY, shape)
    assert str(caught.value) == "attn(B): the model runs o_proj_dgrad, the profile does not"


def test_extra_kernel(shape, tmp_path):
    def add(rows):
        at = next(i for i, r in enumerate(rows) if r["op"] == "flash_fwd")
        return [*rows[:at], rows[at] | {"op": "mystery"}, *rows[at:]]

    with pytest.raises(ValueError) as caught:
        calibrate.tables(edited(tmp_path, add), SUMMARY, shape)
    assert str(caught.value) == "attn(F): the profile runs 'mystery', the model does not"


def test_only_single_kernels_are_read(shape, made, tmp_path):
    """The pair and its phases, which are predicted, can be anything: the tables do not change."""
    content = json.loads(SUMMARY.read_text())
    for key in ("totals_us", "phases_us_per_layer_sum_of_kernels", "calibration_us_per_layer"):
        content.pop(key, None)
    content["overlap"] = {"launch_gap_mean": content["overlap"]["launch_gap_mean"]}
    path = tmp_path / SUMMARY.name
    path.write_text(json.dumps(content))
    assert calibrate.tables(OPS, path, shape) == made
