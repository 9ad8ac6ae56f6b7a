"""Cards by the names CUDA gives them."""

import pytest

from hwmodels import device
from numerics.tables import cards


def test_every_card_is_a_device_with_a_document():
    for name, of in cards.NAMES.items():
        assert cards.device_of(name) == of
        assert device.load(of).sms == cards.reference(of)["sms"]


def test_a_reference_is_the_data_sheet():
    assert cards.reference("h800") == {
        "sms": 132, "hbm_bytes_per_s": 3.35e12, "bf16_flops": 989e12, "fp8_flops": 1979e12,
    }  # fmt: skip
    assert "fp8_flops" not in cards.reference("a100"), "no FP8 tensor cores, so no peak"


def test_an_unknown_card_is_one_line():
    with pytest.raises(cards.UnknownCardError, match=r"^no device .* 'NVIDIA Abacus' \(known: NVIDIA A100.*\)"):
        cards.device_of("NVIDIA Abacus")
