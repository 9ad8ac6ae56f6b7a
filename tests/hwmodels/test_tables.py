"""Calibration tables: every row has its provenance, and what is fitted is what the rows give."""

import json
import math
from typing import Any

import pytest

from hwmodels import tables
from hwmodels.op import Memory
from hwmodels.price import TILE

NAMES = ("gemm", "memory", "attention", "exchange", "contention")
RAW: dict[str, dict[str, Any]] = {n: json.loads((tables.FOLDER / "h800" / f"{n}.json").read_text()) for n in NAMES}
TIMED = [row for name in ("gemm", "memory", "attention", "exchange") for row in RAW[name]["rows"]]
FOUND = tables.load("h800")


def test_all_tables_are_of_one_machine_and_one_source() -> None:
    for key in ("device", "sms", "reference", "source"):
        assert len({json.dumps(table[key]) for table in RAW.values()}) == 1, key
    assert (FOUND.device, FOUND.sms, FOUND.reference["sms"]) == ("h800", 112, 132)
    assert "profile-data" in FOUND.source


def test_every_row_says_how_often_and_how_long() -> None:
    for row in TIMED:
        assert row["samples"] >= 1 and row["us"] > 0, row
        assert 0 < row["low_us"] <= row["us"] * (1 + 1e-3) and row["us"] <= row["high_us"] * (1 + 1e-3), row
        assert row.get("names") or row.get("beside"), row


def test_every_row_can_be_looked_up_and_none_hides_another() -> None:
    rows = [row for name in ("gemm", "memory", "attention") for row in RAW[name]["rows"]]
    assert len(FOUND.exact) == len(rows)
    assert all(row in rows for row in FOUND.exact.values())
    assert sum(len(rows) for rows in FOUND.kinds.values()) == len(RAW["memory"]["rows"])
    assert set(FOUND.attention) == {"forward", "backward"}
    assert set(FOUND.exchanges) == {"dispatch(F)", "dispatch(B)", "combine(F)", "combine(B)"}


def test_communication_never_speeds_compute_up() -> None:
    for row in RAW["contention"]["rows"]:
        assert row["factor"] >= 1 and row["error"] >= 0
        assert row["kernels"] or row["kind"] == "assumed"
    assert FOUND.launch_gap_us == 1.99


def test_stretches_are_times_over_bytes_at_the_effective_rate() -> None:
    for row in RAW["exchange"]["rows"]:
        assert row["stretch"] == pytest.approx(row["us"] / row["alone_us"], rel=1e-3)
        assert row["alone_us"] == pytest.approx(row["wire_bytes"] / 40e9 * 1e6, rel=1e-3)
        assert row["stretch"] >= 1


def wave_errors(role: str) -> list[float]:
    fit, errors = RAW["gemm"]["fit"][role], []
    for row in RAW["gemm"]["rows"]:
        if row["precision"] == "fp8" and tables.role_class(row["role"]) == role:
            tiles = math.ceil(row.get("m", row.get("rows")) / TILE) * math.ceil(row["n"] / TILE)
            us = math.ceil(tiles / 112) * (fit["a_us"] + fit["b_us"] * math.ceil(row["k"] / TILE))
            errors.append(us / row["us"] - 1)
    return errors


def rms(errors: list[float]) -> float:
    return math.sqrt(sum(e * e for e in errors) / len(errors))


def test_the_forward_wave_fit_is_what_its_rows_give() -> None:
    errors, fit = wave_errors("fprop"), RAW["gemm"]["fit"]["fprop"]
    assert len(errors) == fit["shapes"]
    assert rms(errors) == pytest.approx(fit["rms"], abs=2e-5)


def test_the_weight_gradient_wave_fit_agrees_with_the_rows_it_shares() -> None:
    """Two of its shapes, the experts' gradients on two streams, come from spans and have no row of their own."""
    errors, fit = wave_errors("wgrad"), RAW["gemm"]["fit"]["wgrad"]
    assert len(errors) == fit["shapes"] - 2
    assert rms(errors) == pytest.approx(fit["rms"], rel=0.1)


@pytest.mark.parametrize("kind", sorted(FOUND.memory_fit))
def test_memory_fits_are_what_their_rows_give(kind: str) -> None:
    fit, rows = FOUND.memory_fit[kind], FOUND.kinds[kind]
    sizes = [r["rows"] * (r["read"] + r["write"]) for r in rows]
    slope = 1e6 / fit["bytes_per_s"] if fit["bytes_per_s"] else 0.0
    errors = [(fit["fixed_us"] + size * slope) / r["us"] - 1 for size, r in zip(sizes, rows, strict=True)]
    assert fit["points"] == len(rows)
    assert (fit["low_bytes"], fit["high_bytes"]) == pytest.approx((min(sizes), max(sizes)), rel=1e-3)
    assert rms(errors) == pytest.approx(fit["rms"], abs=1e-3)
    assert fit["bytes_per_s"] <= FOUND.reference["hbm_bytes_per_s"]


def test_nothing_streams_faster_than_hbm_by_much() -> None:
    """Up to the cache: only rows that fit the 50 MB L2 may."""
    for kind, rows in FOUND.kinds.items():
        for r in rows:
            size = r["rows"] * (r["read"] + r["write"])
            assert size / r["us"] * 1e6 < 3.35e12 * 1.02 or size < 60e6, (kind, r)


def test_near_rows_have_the_same_kind_and_width() -> None:
    assert {r["rows"] for r in tables.near(FOUND, Memory("permute", 33_000, 6640.0, 7168.0))} >= {34688, 32512}
    assert tables.near(FOUND, Memory("permute", 33_000, 1000.0, 1000.0)) == []
    assert tables.near(FOUND, Memory("no such kind", 1, 1.0, 1.0)) == []
    assert tables.near(FOUND, Memory("cast", 4096, 14336.0, 7392.0, kernels=2)) == []


@pytest.mark.parametrize(("role", "expected"), [("fprop", "fprop"), ("dgrad", "fprop"), ("wgrad", "wgrad")])
def test_input_gradients_cost_like_forward(role: str, expected: str) -> None:
    assert tables.role_class(role) == expected


def test_a_device_without_tables_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="tables/b300 holds no tables"):
        tables.load("b300")


def test_tables_are_read_once() -> None:
    assert tables.load("h800") is tables.load("h800")


def test_twins_have_the_rest_from_their_card_and_are_no_library() -> None:
    own, twins = tables.load("h200"), tables.load("h200/twins")
    assert tables.libraries("h200") == ("torch",) and twins.device == "h200" and twins.library is None
    assert twins.exact.keys() == own.exact.keys() and twins.exact != own.exact
    assert (twins.contention, twins.exchanges) == (own.contention, own.exchanges)
