"""What a configuration refuses, and the constants it derives."""

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from numerics.layers.config import Config, Precision, Yarn
from tests.numerics.layers import tiny


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "relu"}, "score is one of sigmoid, softmax; got 'relu'"),
        ({"groups": 3}, "8 experts do not divide into 3 groups"),
        ({"groups_per_token": 1}, "3 experts a token, but its groups hold 2"),
        ({"qk_rope": 7}, "rotary elements come in pairs; got qk_rope = 7"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        Config(replace(tiny.V3, **change))


def test_attention_scale():
    plain = Config(tiny.V3).attention_scale
    assert plain == 24**-0.5
    # DeepSeek-V3's released configuration: factor 40, mscale 1, so (0.1 ln 40 + 1)^2 = 1.8738542070926265
    assert Config(tiny.V3, yarn=Yarn()).attention_scale / plain == pytest.approx(1.8738542070926265)
    assert Config(tiny.V3, yarn=Yarn(factor=1.0)).attention_scale == plain


def test_fp8_is_bf16_between_products():
    assert Precision.FP8.dtype == Precision.BF16.dtype == Precision.FP8.plain.dtype
    assert Precision.FP8.quantized and not Precision.FP8.plain.quantized
