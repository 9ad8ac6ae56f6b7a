"""Layers and whole models against Hugging Face's DeepSeek-V3 and -V2: same weights, FP32, outputs and all gradients.

Tolerance: 2e-5, of the largest element and of every tensor's, row's and column's norm. Both sides compute in FP32 but
add in other orders (sums of up to 160 products; the gate's weight is applied before the down projection here and after
it there), which leaves a few times 2^-24 an operation over some tens of operations in a row: 3e-6 was seen. The last
test shows that one per cent on half the rows of any single tensor does not pass.
"""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5.0")  # experts as one tensor; before, a module each

from torch.nn import functional  # noqa: E402

from numerics.layers.attention import LatentAttention  # noqa: E402
from numerics.layers.experts import MixtureOfExperts  # noqa: E402
from numerics.layers.norm import RMSNorm  # noqa: E402
from numerics.layers.prediction import Prediction  # noqa: E402
from numerics.layers.rotation import table  # noqa: E402
from numerics.reference.compare import gate  # noqa: E402
from tests.numerics.layers import tiny  # noqa: E402

TOLERANCE = 2e-5


def hold(found, expected):
    """Gate on the largest element, and on every row and column by itself."""
    assert tiny.far(found, expected) < TOLERANCE
    gate(found.detach(), expected.detach().view_as(found), TOLERANCE, gain_tolerance=TOLERANCE)


def hold_gradients(theirs, ours, names):
    for name, found, expected in tiny.gradients(theirs, ours, names):
        assert expected.abs().max() > 0, name
        hold(found, expected)


def build(shape, **more):
    """transformers' causal model, ours, and the names between them; same weights."""
    from transformers import DeepseekV2ForCausalLM, DeepseekV3ForCausalLM

    ours = tiny.model(shape, **more)
    cls = DeepseekV3ForCausalLM if shape.score == "sigmoid" else DeepseekV2ForCausalLM
    theirs = cls(tiny.huggingface_config(shape, more.get("yarn")))
    names = tiny.model_names(ours)
    tiny.copy_into(theirs, ours, names)
    return theirs, ours, names


@pytest.mark.parametrize("shape", [tiny.V3, tiny.V2, tiny.V2_LITE], ids=lambda s: s.name)
@pytest.mark.parametrize("recompute", [True, False])
def test_whole_model(shape, recompute):
    theirs, ours, names = build(shape, recompute=recompute)
    tokens = tiny.tokens(shape, 2, 25)
    expected = theirs(tokens[:, :-1]).logits
    hold(ours(tokens[:, :-1]), expected)
    functional.cross_entropy(expected.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    ours.losses(tokens).total.backward()
    hold_gradients(theirs, ours, names)


def test_whole_model_with_yarn_beyond_the_original_length():
    theirs, ours, names = build(tiny.V3, yarn=tiny.YARN)
    tokens = tiny.tokens(tiny.V3, 1, 101)
    expected = theirs(tokens[:, :-1]).logits
    hold(ours(tokens[:, :-1]), expected)
    functional.cross_entropy(expected.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    ours.losses(tokens).total.backward()
    hold_gradients(theirs, ours, names)


def test_yarn_changes_the_model():
    plain, extended = tiny.model(), tiny.model(yarn=tiny.YARN)
    tokens = tiny.tokens(tiny.V3)
    assert tiny.far(plain(tokens), extended(tokens)) > 1e-3


@pytest.mark.parametrize("yarn", [None, tiny.YARN, replace(tiny.YARN, mscale=0.707)], ids=["plain", "yarn", "mscale"])
def test_attention(yarn):
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

    shape, length = tiny.V3, 24
    c, hf = tiny.config(shape, yarn=yarn), tiny.huggingface_config(shape, yarn)
    torch.manual_seed(0)
    ours, norm = tiny.disturb(LatentAttention(c)), RMSNorm(shape.hidden, c.eps)
    theirs, names = DeepseekV3Attention(hf, 0), tiny.attention_names(ours)
    tiny.copy_into(theirs, ours, names)
    mine = torch.randn(2 * length, shape.hidden).requires_grad_()
    yours = mine.detach().clone().requires_grad_()
    y = ours(mine, norm, table(c, 0, length, mine.device), batch=2)
    normed = functional.rms_norm(yours, (shape.hidden,), norm.weight, c.eps).view(2, length, -1)
    positions = DeepseekV3RotaryEmbedding(hf)(normed, torch.arange(length)[None])
    mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
    expected, _ = theirs(normed, positions, mask)
    hold(y.view_as(expected), expected)
    weight = torch.randn_like(expected)
    (y.view_as(expected) * weight).sum().backward()
    (expected * weight).sum().backward()
    hold(mine.grad, yours.grad)
    hold_gradients(theirs, ours, names)


def mixture(shape):
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    torch.manual_seed(0)
    ours = tiny.disturb(MixtureOfExperts(tiny.config(shape)))
    cls = DeepseekV3MoE if shape.score == "sigmoid" else DeepseekV2Moe
    theirs, names = cls(tiny.huggingface_config(shape)), tiny.mixture_names(ours)
    tiny.copy_into(theirs, ours, names)
    return theirs, ours, names


@pytest.mark.parametrize("shape", [tiny.V3, tiny.V2, tiny.V2_LITE], ids=lambda s: s.name)
def test_gate(shape):
    theirs, ours, _ = mixture(shape)
    x = torch.randn(50, shape.hidden)
    logits, weights, idx = theirs.gate(x)
    choice = ours.gate(x)
    hold(choice.logits, logits)
    order, expected = choice.idx.long().argsort(1), idx.argsort(1)
    assert torch.equal(choice.idx.long().gather(1, order), idx.gather(1, expected))
    hold(choice.weights.gather(1, order), weights.gather(1, expected))


@pytest.mark.parametrize("shape", [tiny.V3, tiny.V2, tiny.V2_LITE], ids=lambda s: s.name)
def test_mixture(shape):
    theirs, ours, names = mixture(shape)
    mine = torch.randn(50, shape.hidden).requires_grad_()
    yours = mine.detach().clone().requires_grad_()
    y, expected = ours(mine)[0], theirs(yours[None])[0]
    hold(y, expected)
    weight = torch.randn_like(expected)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    hold(mine.grad, yours.grad)
    hold_gradients(theirs, ours, names)


def test_bias_moves_the_choice_but_not_the_weight():
    _, ours, _ = mixture(tiny.V3)
    x = torch.randn(50, tiny.V3.hidden)
    ours.gate.bias.zero_()
    ours.gate.bias[3] = 10.0
    choice = ours.gate(x)
    assert (choice.idx == 3).any(1).all()
    scores = torch.sigmoid(choice.logits).gather(1, choice.idx.long())
    assert tiny.far(choice.weights, 2.5 * scores / scores.sum(1, keepdim=True)) < TOLERANCE


def test_prediction_module():
    layers = pytest.importorskip("transformers.modeling_layers")
    if not hasattr(layers, "MtpLayer"):
        pytest.skip("this transformers has no multi-token prediction")
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
        DeepseekV3DecoderLayer,
        DeepseekV3RMSNorm,
        DeepseekV3RotaryEmbedding,
    )

    shape, length = tiny.V3, 24
    c, hf = tiny.config(shape), tiny.huggingface_config(shape)
    torch.manual_seed(0)
    ours = tiny.disturb(Prediction(c))
    theirs = layers.MtpLayer(hf, DeepseekV3DecoderLayer, DeepseekV3RMSNorm, shape.dense_layers)
    names = {"embedding_norm.weight": "enorm.weight", "state_norm.weight": "hnorm.weight",
             "projection.weight": "eh_proj.weight", "norm.weight": "post_norm.weight"}  # fmt: skip
    names |= {f"block.{a}": tiny._prefixed("mtp_block.", b) for a, b in tiny.block_names(ours.block).items()}
    tiny.copy_into(theirs, ours, names)
    state, embedded = torch.randn(2, 2 * length, shape.hidden).requires_grad_()
    x, _ = ours(state, embedded, table(c, 0, length, state.device), batch=2)
    y = ours.norm(x)
    positions = DeepseekV3RotaryEmbedding(hf)(embedded, torch.arange(length)[None])
    mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
    expected = theirs(embedded.view(2, length, -1), state.view(2, length, -1), positions, mask, None, None)
    hold(y.view_as(expected), expected)
    weight = torch.randn_like(expected)
    (y.view_as(expected) * weight).sum().backward()
    (expected * weight).sum().backward()
    hold_gradients(theirs, ours, names)


def test_one_per_cent_on_any_tensor_is_caught():
    theirs, ours, _ = build(tiny.V3)
    tokens = tiny.tokens(tiny.V3)
    expected = theirs(tokens).logits.detach()
    for name, p in ours.named_parameters():
        with torch.no_grad():  # half of its rows: a norm behind the layer would undo a factor on all of them
            half = p[: p.shape[0] // 2]
            before = half.clone()
            half.mul_(1.01)
            assert tiny.far(ours(tokens), expected) > TOLERANCE, name
            half.copy_(before)
    hold(ours(tokens), expected)
