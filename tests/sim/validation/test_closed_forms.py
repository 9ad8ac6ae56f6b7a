"""Sizes and schedules: answers that are exact."""

import pytest

from sim.validation import schedules, sizes
from sim.validation.reference import scenario


def test_v3_by_hand():
    """Main model and MTP module share embedding and head: 129,280 x 7,168 each."""
    found = {name: answer.value for name, answer in sizes.answers(scenario("v3_2048gpu")).items()}
    table = 129280 * 7168 / 1e9
    assert found["active"] - found["active without embedding"] == pytest.approx(table)
    assert found["parameters"] == pytest.approx(671.0264, abs=1e-3)
    expert, idle = 3 * 7168 * 2048 / 1e9, 256 - 8
    assert found["mtp"] - (found["mtp active"] - 2 * table) == pytest.approx(idle * expert)
    assert found["kv cache"] == pytest.approx(70.272)


def test_a_model_without_mtp_has_no_module():
    found = sizes.answers(scenario("v2_lite"))
    assert found["mtp"].value == found["mtp active"].value == 0


@pytest.mark.parametrize("ranks", [4, 8])
def test_schedules_meet_the_published_forms(ranks):
    """DeepSeek-V3 report, table 2, with F = W = 1, B = 2, F&B = 3."""
    bubbles = {"1f1b": (ranks - 1) * 3, "zb1p": (ranks - 1) * (3 - 2), "dualpipe": (ranks // 2 - 1) * (3 + 2 - 3)}
    for name, bubble in bubbles.items():
        found = schedules.answers(name, ranks)
        assert found["bubble"].value == pytest.approx(bubble)
        assert found["step"].value == pytest.approx(20 * 3 + bubble)
        assert found["weights"].value == (2 if name == "dualpipe" else 1)
        assert found["activations"].value == (ranks + 1 if name == "dualpipe" else ranks)
