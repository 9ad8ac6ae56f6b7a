"""What a DeepSeek model weighs: parameters of its units, training FLOPs of a token, and its key-value cache.

Closed forms from the dimensions; DeepSeek-V3: 671.03 B parameters, 37.55 B active, 249.8 GFLOP a token.
"""

from hwmodels.formats import PLAIN_BF16
from sim.models.blocks import projection
from sim.models.deepseek.layers import mixture, units
from sim.models.deepseek.shape import DeepSeekShape
from sim.models.family import main_units
from sim.models.layer import Unit
from sim.models.weights import Parameters


def attention_parameters(s: DeepSeekShape) -> Parameters:
    """MLA, and the norms of the layer."""
    return s.latent.parameters(s.hidden) + Parameters(other=2 * s.hidden)


def weights(s: DeepSeekShape, unit: Unit) -> Parameters:
    """Parameters of one unit. A prediction module shares the embedding and the head of the model."""
    table = s.vocabulary * s.hidden
    if unit.kind == "embedding":
        return Parameters(other=table)
    if unit.kind == "head":
        return Parameters(other=table + s.hidden, shared=table if unit.beside else 0)
    if unit.kind == "projection":
        return projection.parameters(s.vocabulary, s.hidden, s.hidden)
    if unit.kind == "dense":
        return attention_parameters(s) + Parameters(linear=s.dense.weights(s.hidden))
    bias = s.experts if s.score == "sigmoid" else 0
    gate = s.experts * s.hidden + bias
    return attention_parameters(s) + s.mixed.parameters(s.hidden) + Parameters(other=gate)


def flop(s: DeepSeekShape, length: int, causal: bool) -> float:
    """Forward and backward of one token at sequence `length`: 6 a weight that multiplies it, and attention's products.

    Left out, as publishers do: the input embedding, a look-up; norms and the experts' gates; prediction modules. MFU,
    step and peak (989 TFLOP/s) of arXiv 2505.09343 table 4 come to 249.80 and 280.53 GFLOP a token; with the gates it
    would be 0.26 % more.
    """
    main = main_units(units(s))
    total = sum((weights(s, unit) for unit in main), Parameters())
    idle = total.other - total.shared - s.vocabulary * s.hidden  # all but the head
    multiplying = total.active(mixture(s)) - idle
    pairs = length / 2 if causal else length
    attention = 2.0 * s.heads * pairs * (s.qk_nope + s.qk_rope + s.v_head)
    return 6.0 * multiplying + 3.0 * sum(unit.block for unit in main) * attention


def cache(s: DeepSeekShape) -> float:
    """MLA caches the compressed kv and the shared rotary key, in BF16."""
    return s.layers * PLAIN_BF16.row_bytes(s.kv_rank + s.qk_rope)
