"""What follows from measured slow-downs; the measuring itself needs two GPUs."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics import contention  # noqa: E402
from numerics.contention import LIKE_PROFILE, RATES, factors  # noqa: E402


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


def test_tables_of_two_gpus_go_over_those_of_one():
    head, gap = {"device": "h200", "sms": 132}, {"launch_gap_us": 1.0}
    assert contention.tables({}, head, gap) == {}
    found = contention.tables({"contention": [{"class": "norm"}], "push": []}, head, gap)
    assert found["contention"] == {**head, **gap, "rate_gb_per_s": 60, "rows": [{"class": "norm"}]}
    assert found["push"] == {**head, "rows": []}


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="two GPUs are here")
def test_one_gpu_cannot_tell():
    with pytest.raises(ValueError, match="needs two GPUs that see each other"):
        contention.Bench.open(20)
