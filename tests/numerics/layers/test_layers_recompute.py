"""V3's recompute: the same gradients with and without it, and exactly as many bytes waiting as the closed forms say."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from numerics import ops  # noqa: E402
from numerics.layers.config import Precision  # noqa: E402
from sim.models.deepseek import kept, units  # noqa: E402
from sim.models.layer import Site  # noqa: E402
from sim.models.precision import RECIPES  # noqa: E402
from tests.numerics.layers import saved, tiny  # noqa: E402

ROUND = replace(tiny.V3, dense_intermediate=256, v_head=32, mtp_depth=1)
"""Whole tiles wherever something is kept in 1x128 tiles."""
B, S = 2, 24
T = B * S


def gradients(precision, recompute, shape=tiny.TRAINED):
    model = tiny.model(shape, precision, recompute=recompute, balance=1e-2)
    model.losses(tiny.tokens(shape, B, S)).total.backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_recompute_changes_no_bit(precision):
    kept, again = gradients(precision, False), gradients(precision, True)
    for name, gradient in kept.items():
        assert torch.equal(gradient, again[name]), name


def test_recompute_in_fp8_stays_within_its_noise():
    """What runs again feeds the transposed cast directly instead of through row codes: a rounding less, so not equal.

    One recast product differs by 0.026 (a second E4M3 rounding of one side); three layers of them add up.
    """
    kept, again = gradients(Precision.FP8, False), gradients(Precision.FP8, True)
    for name, gradient in kept.items():
        error = (gradient - again[name]).norm() / gradient.norm()
        assert error < 0.1, (name, error)


def count(precision, recompute, shape=ROUND):
    model = tiny.model(shape, precision, recompute=recompute)
    tokens = tiny.tokens(shape, B, S + 1 + shape.mtp_depth)
    with saved.Count(model, but=[tokens]) as found:
        losses = model.losses(tokens)
    rows = [row_count(model, i) for i in range(mixtures(shape))]
    losses.total.backward()
    return found, rows


def mixtures(shape):
    return shape.layers - shape.dense_layers + shape.mtp_depth


def row_count(model, i):
    """Padded rows of the i-th mixture layer in the last pass: its gate's load, rounded up by expert."""
    from numerics.layers.gate import Gate

    load = [m for m in model.modules() if isinstance(m, Gate)][i].load
    return int(((load + 127) // 128 * 128).sum())


def closed_form(precision, rows, shape=ROUND):
    """Bytes by `sim.models.deepseek`, one process holding all experts: every token is received once."""
    recipe, total, rows = RECIPES[precision.value], 0.0, iter(rows)
    for unit in units(shape):
        padded = next(rows) if unit.kind == "moe" else 0
        site = Site(shape, recipe, B, S, T, padded, 1.0, 1.0, shape.experts, 1, 1)
        total += kept(site, unit).at(site)
    return total


def small_print(rows, shape=ROUND):
    """What the closed forms leave out: 1/rms of norms, the gate's choice and layout, rotation tables, scalars."""
    layers, heads = shape.layers + shape.mtp_depth, 1 + shape.mtp_depth
    norms = 4 * T * (2 * layers + heads + 2 * shape.mtp_depth)
    choice = T * (4 * shape.experts + 12 * shape.experts_per_token)  # logits; index, weight and row of each pair
    layouts = sum(4 * r + 4 * (2 * shape.experts + 1) for r in rows)
    tables = 2 * 4 * S * (shape.qk_rope // 2)  # one for all: made once
    return norms + mixtures(shape) * choice + layouts + tables


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP8])
def test_bytes_saved_are_the_simulators(precision):
    found, rows = count(precision, recompute=True)
    assert found.bytes == closed_form(precision, rows) + small_print(rows), found.sizes


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP8])
def test_recompute_saves_queries_keys_values_norms_and_activations(precision):
    s = ROUND
    again, rows = count(precision, True)
    kept, _ = count(precision, False)
    layers, dense, moe = s.layers + s.mtp_depth, s.dense_layers, mixtures(s)
    qkv = 2 * T * s.heads * (2 * (s.qk_nope + s.qk_rope) + s.v_head)
    recipe = RECIPES[precision.value].activation

    def operand(tokens, width):
        codes = ops.quantize_rows(torch.ones(tokens, width))
        return recipe.row_bytes(width) * tokens if precision is Precision.BF16 else sum(t.nbytes for t in codes)

    normed = operand(T, s.q_rank) + operand(T, s.kv_rank) + 4 * 2 * T
    act = dense * operand(T, s.dense_intermediate) + moe * operand(T, s.shared_experts * s.expert_intermediate)
    act += sum(operand(r, s.expert_intermediate) for r in rows)
    assert kept.bytes - again.bytes >= layers * (qkv + normed) + act
