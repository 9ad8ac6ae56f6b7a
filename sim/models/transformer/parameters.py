"""What a dense transformer weighs: parameters of its units, training FLOPs of a token, and its key-value cache.

Closed forms from the dimensions; Llama-3 70B: 70.55 B parameters, 327,680 bytes of cache a token.
"""

from hwmodels.formats import PLAIN_BF16
from sim.models.layer import Unit
from sim.models.transformer.shape import TransformerShape
from sim.models.weights import Parameters


def weights(s: TransformerShape, unit: Unit) -> Parameters:
    """Parameters of one unit: no product has a bias. A tied head is a second use of the embedding's table."""
    table = s.vocabulary * s.hidden
    if unit.kind == "embedding":
        return Parameters(other=table)
    if unit.kind == "head":
        again = table if s.tied else 0
        return Parameters(other=table + s.hidden, shared=again, table=again)
    a = s.attention
    attention = s.hidden * a.qkv + a.q * s.hidden
    return Parameters(linear=attention + 3 * s.hidden * s.intermediate, other=2 * s.hidden)


def flop(s: TransformerShape, length: int, causal: bool) -> float:
    """Forward and backward of one token at sequence `length`: 6 a weight of a product that it meets (each multiplies
    and adds once forward and twice backward), and thrice attention's two products forward, of which causal attention
    does half. Left out, as publishers do: the input embedding, a look-up; norms; products that a kernel does again
    (arXiv:2204.02311 appendix B, arXiv:2205.05198 appendix A).
    """
    layer = weights(s, Unit("dense", 0)).linear
    pairs = length / 2 if causal else length
    attention = 2.0 * pairs * 2 * s.attention.q
    return 6.0 * (s.layers * layer + s.vocabulary * s.hidden) + 3.0 * s.layers * attention


def cache(s: TransformerShape) -> float:
    """Keys and values of every layer, in BF16."""
    return s.layers * 2 * PLAIN_BF16.row_bytes(s.attention.kv)
