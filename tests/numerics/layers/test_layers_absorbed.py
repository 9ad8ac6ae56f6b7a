"""The absorbed form gives what the training form gives, at once or token by token, from as small a cache as said."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from numerics.layers.config import Precision  # noqa: E402
from numerics.reference.compare import gate  # noqa: E402
from sim.models.deepseek import cache  # noqa: E402
from tests.numerics.layers import tiny  # noqa: E402

TOLERANCE = {Precision.FP32: 5e-6, Precision.BF16: 0.02, Precision.FP8: 0.2}
"""FP32: other order of sums only. BF16: keys and values are rounded here and absorbed queries there, three layers deep
(0.01 seen). FP8: the training form rounds W_uk, W_uv and their inputs to E4M3, the absorbed form does not, and what
differs then meets the E4M3 grids of all later products (0.14 seen); which of both is nearer to FP32 is the test."""


@torch.no_grad()
@pytest.mark.parametrize("shape", [tiny.V3, tiny.V2_LITE], ids=lambda s: s.name)
@pytest.mark.parametrize("parts", [(20,), (1,) * 20, (7, 1, 12)], ids=["prefill", "decode", "mixed"])
@pytest.mark.parametrize("yarn", [None, tiny.YARN], ids=["plain", "yarn"])
def test_absorbed_equals_training_form(shape, parts, yarn):
    model = tiny.model(shape, yarn=yarn).eval()
    tokens = tiny.tokens(shape, 2, 20)
    caches = model.new_caches()
    found = torch.cat([model(part, caches) for part in tokens.split(parts, 1)], 1)
    gate(found, model(tokens), TOLERANCE[Precision.FP32])


@torch.no_grad()
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP8])
def test_in_low_precision_both_are_as_near_the_truth(precision):
    """Dense layers only: noise can tip a gate's choice, and then outputs jump."""
    shape = replace(tiny.V3, dense_layers=3)
    exact = tiny.model(shape).eval()
    model = tiny.model(shape, precision).eval()
    model.load_state_dict(exact.state_dict())
    tokens = tiny.tokens(shape, 2, 20)
    trained, absorbed, truth = model(tokens), model(tokens, model.new_caches()), exact(tokens)
    tiny.hold(absorbed, trained, TOLERANCE[precision])
    assert (absorbed - truth).norm() < 1.1 * (trained - truth).norm()


@torch.no_grad()
def test_cache_bytes_are_the_simulators():
    model = tiny.model(tiny.V3, Precision.BF16).eval()
    caches = model.new_caches()
    model(tiny.tokens(tiny.V3, 2, 9), caches)
    model(tiny.tokens(tiny.V3, 2, 2), caches)
    assert [len(c) for c in caches] == [11] * tiny.V3.layers
    found = sum(c.latent.nbytes + c.key.nbytes for c in caches)
    assert found == 2 * 11 * cache(tiny.V3)


@torch.no_grad()
def test_a_stale_position_is_caught():
    """The comparison can fail: a cache that forgot one token shifts every rotation."""
    model = tiny.model(tiny.V3).eval()
    tokens = tiny.tokens(tiny.V3, 2, 20)
    caches = model.new_caches()
    model(tokens[:, 1:10], caches)
    assert tiny.far(model(tokens[:, 10:], caches), model(tokens)[:, 10:]) > 1e-3
