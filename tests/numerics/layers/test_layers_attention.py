"""Latent attention in low precision against its FP32 self, and what FP8 training keeps of it."""

import pytest

torch = pytest.importorskip("torch")

from numerics.layers.attention import LatentAttention  # noqa: E402
from numerics.layers.config import Precision  # noqa: E402
from numerics.layers.norm import RMSNorm  # noqa: E402
from numerics.layers.rotation import table  # noqa: E402
from tests.numerics.layers import saved, tiny  # noqa: E402

LENGTH = 40
TOLERANCE = {Precision.BF16: 0.02, Precision.FP8: 0.15}
"""Five products in a row with a softmax between them; FP8: sqrt(5) of 0.037 forward, twice as many backward."""


def run(precision, shape=tiny.V3, recompute=True):
    torch.manual_seed(0)
    c = tiny.config(shape, precision, recompute=recompute)
    layer, norm = tiny.disturb(LatentAttention(c)), RMSNorm(shape.hidden, c.eps)
    x = torch.randn(2 * LENGTH, shape.hidden).bfloat16().to(precision.dtype).requires_grad_()
    with saved.Count(layer, but=[x, norm.weight]) as count:
        y = layer(x, norm, table(c, 0, LENGTH, x.device), batch=2)
    y.backward(torch.randn(y.shape).bfloat16().to(y.dtype))
    return y.detach(), x.grad, {name: p.grad for name, p in layer.named_parameters()}, count


@pytest.mark.parametrize("shape", [tiny.V3, tiny.V2_LITE], ids=lambda s: s.name)
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP8])
@pytest.mark.parametrize("recompute", [True, False])
def test_low_precision_stays_near_fp32(shape, precision, recompute):
    y, dx, gradients, _ = run(precision, shape, recompute)
    expected, dx_expected, gradients_expected, _ = run(Precision.FP32, shape)
    tolerance = TOLERANCE[precision]
    tiny.hold(y, expected, tolerance)
    tiny.hold(dx, dx_expected, tolerance)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        gain = 0.04 if gradient.dim() == 1 else 0.025  # noise in the scores shrinks dq by a per cent; few numbers, wide
        tiny.hold(gradient, gradients_expected[name], tolerance, name, gain)


def test_fp8_keeps_latents_and_e5m6_only():
    s, t = tiny.V3, 2 * LENGTH
    kept = set(run(Precision.FP8)[3].sizes)
    bf16, f32 = torch.bfloat16, torch.float32
    expected = {
        ((t, s.q_rank), bf16), ((t, s.kv_rank + s.qk_rope), bf16),
        ((t, s.heads * s.v_head * 12 // 8), torch.uint8), ((t, 1), f32),
        ((2, s.heads, LENGTH), f32), ((LENGTH, s.qk_rope // 2), f32), ((t,), f32),
    }  # fmt: skip
    assert kept == expected


def test_rotary_tables_start_where_asked():
    c = tiny.config()
    whole, later = table(c, 0, 30, torch.device("cpu")), table(c, 11, 19, torch.device("cpu"))
    assert torch.equal(whole.cos[11:], later.cos) and torch.equal(whole.sin[11:], later.sin)
