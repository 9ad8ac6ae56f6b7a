"""What follows from measured slow-downs; the measuring itself needs two GPUs."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hwmodels import tables as calibration  # noqa: E402
from numerics.card import contention  # noqa: E402
from numerics.card.contention import LIKE_PROFILE, RATES, factors  # noqa: E402


def row(family, *beside):
    return {"family": family, "us": 100.0, "beside": dict(zip(map(str, RATES), beside, strict=True))}


def test_a_family_is_the_median_of_its_operations_at_the_profiles_rate():
    found = factors([row("memory", 1.0, f, 1.3, 1.6) for f in (1.1, 1.12, 1.3)] + [{"names": ["x"], "refused": "no"}])
    assert [(r["class"], r["factor"], r["kernels"]) for r in found] == [("memory", 1.12, 3)]
    assert found[0]["beside_gb_per_s"] == {"0": 1.0, "60": 1.12, "120": 1.3, "240": 1.6} and LIKE_PROFILE == 60
    assert 0.08 < found[0]["error"] < 0.1


def test_what_is_priced_on_fewer_sms_is_not_charged_for_them_twice():
    held, beside = 1.18, 1.239
    factor = {r["class"]: r["factor"] for r in factors([row(f, held, beside, 1.3, 1.4) for f in ("attention", "norm")])}
    assert factor == {"attention": pytest.approx(1.05), "norm": pytest.approx(1.239)}


def test_nothing_gets_faster_beside_communication():
    assert factors([row("gemm", 1.0, 0.98, 0.99, 1.0)])[0]["factor"] == 1.0


def campaign(**gemm):
    row = {"names": ["q_b"], "us": 90.0, "us_on_sms": {"112": 100.0}, **gemm}
    head = {"device": "h200", "source": "made up", "reference": {"sms": 132}, "provenance": {}}
    gap = {"launch_gap_us": 1.0, "launch_gap_kind": "measured"}
    norm = {"names": ["b", "a"], "us": 20.0}
    return {"gemm": {"rows": [row]}, "memory": {"rows": [norm]}, "attention": {"rows": []},
            "contention": {**head, **gap, "empty": "no", "rows": []}}  # fmt: skip


def test_tables_of_two_gpus_go_over_those_of_one():
    assert contention.tables({}, campaign(), 112) == {}
    rows = [{**row("gemm", 1.0, 1.01, 1.02, 1.03), "names": ["q_b"]}]
    found = contention.tables({"beside": rows, "push": []}, campaign(), 112)
    assert set(found) == {"contention", "beside", "push"} and found["beside"]["rows"] == rows
    assert found["contention"]["rate_gb_per_s"] == 60 and "empty" not in found["contention"]
    assert [r["class"] for r in found["contention"]["rows"]] == ["gemm"]
    assert found["push"]["device"] == "h200" and "launch_gap_us" not in found["push"]


def test_a_series_that_the_host_held_up_says_nothing():
    known = contention.single_calls(campaign(), 112, 1.0)
    assert known == {("q_b",): 101.0, ("a", "b"): 21.0}, "each call of a series also has its launch"
    made = [{**row("norm", 1, 1, 1, 1), "names": names, "us": us}
            for names, us in ((["q_b"], 111.0), (["q_b"], 112.0), (["a", "b"], 22.0), (["c"], 1.0))]  # fmt: skip
    assert [r["us"] for r in contention.sound(made, known)] == [111.0, 22.0]


def test_the_committed_factors_follow_from_the_committed_rows():
    folder = calibration.FOLDER / "h200"
    made = contention.again(folder)["contention"]
    assert made["rows"] == json.loads((folder / "contention.json").read_text())["rows"]


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="two GPUs are here")
def test_one_gpu_cannot_tell():
    with pytest.raises(ValueError, match="needs two GPUs that see each other"):
        contention.Bench.open(20)
