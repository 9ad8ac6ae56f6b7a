"""What a transformer weighs: parameters of its units, training FLOPs of a token, its key-value cache and its state.

Closed forms from the dimensions; Llama-3 70B: 70.55 B parameters, 327,680 bytes of cache a token.
"""

from hwmodels.formats import PLAIN_BF16
from sim.models.blocks import projection
from sim.models.layer import Unit
from sim.models.transformer.layers import attends
from sim.models.transformer.shape import TransformerShape, halves
from sim.models.weights import Parameters


def weights(s: TransformerShape, unit: Unit) -> Parameters:
    """Parameters of one unit. A tied head is a second use of the embedding's table; a prediction module has the
    model's table and head. The bias that corrects a sigmoid gate (arXiv:2412.19437 sec 2.1.2) counts."""
    table = s.vocabulary * s.hidden
    if unit.kind == "embedding":
        return Parameters(other=table + s.positions * s.hidden)
    if unit.kind == "head":
        again = table if s.tied or unit.beside else 0
        return Parameters(other=table + s.norm_parameters, shared=again, table=again if s.tied else 0)
    if unit.kind == "projection":
        return projection.parameters(s.vocabulary, s.hidden, s.norm_parameters)
    mixer, network = halves(unit.kind)
    norms = (bool(mixer) + bool(network)) * (2 if s.post_norms else 1) * s.norm_parameters
    return _mixer(s, mixer) + _network(s, network) + Parameters(other=norms)


def _mixer(s: TransformerShape, mixer: str) -> Parameters:
    if mixer == "mamba":
        return s.mamba.parameters(s.hidden)
    if mixer == "latent":
        return s.latent.parameters(s.hidden)
    return s.attention(mixer).parameters(s.hidden) if mixer else Parameters()


def _network(s: TransformerShape, network: str) -> Parameters:
    if network == "dense":
        return Parameters(linear=s.dense.weights(s.hidden), other=s.dense.biases(s.hidden))
    if network == "moe":
        gate = s.experts * (s.hidden + s.gate_bias)
        return s.mixed.parameters(s.hidden) + Parameters(other=gate)
    return Parameters()


def flop(s: TransformerShape, length: int, causal: bool) -> float:
    """Forward and backward of one token at sequence `length`: 6 a weight of a product that it meets (each multiplies
    and adds once forward and twice backward), and thrice what attention's two products and scans do forward.

    A query meets all keys before it, or those of its window or chunk; causal: half of the stretch in which causality
    decides, not causal: all of it. Left out, as publishers do: the input embedding, a look-up; norms, biases and the
    experts' gates; prediction modules; products that a kernel does again (arXiv:2204.02311 appendix B,
    arXiv:2205.05198 appendix A). Scans of Mamba-2 count as NVIDIA counts them, see `sim.models.blocks.mamba`.
    """
    total = float(s.vocabulary * s.hidden * 6)
    for number in range(s.layers):
        mixer, network = halves(s.kind(number))
        total += 6.0 * (_mixer(s, mixer).linear + _multiplying(s, network)) + 3.0 * _mixing(s, mixer, length, causal)
    return total


def _multiplying(s: TransformerShape, network: str) -> int:
    """Weights of feed-forward products that a token meets."""
    if network != "moe":
        return _network(s, network).linear
    latent = 2 * s.expert_latent * s.hidden
    return s.mixed.shared.weights(s.hidden) + latent + s.experts_per_token * s.mixed.routed.weights(s.sent)


def _mixing(s: TransformerShape, mixer: str, length: int, causal: bool) -> float:
    """FLOPs of a token forward in what mixes tokens."""
    if mixer == "mamba":
        return s.mamba.flop()
    if mixer == "latent":
        return s.latent.flop(length / 2 if causal else length)
    heads = s.attention(mixer)
    return heads.flop(heads.keys(length, causal)) if mixer else 0.0


def cache(s: TransformerShape) -> float:
    """Keys and values of a token in every layer that attends, in BF16; of latent attention what it compresses them to.
    Layers with a window or chunks drop older tokens, so their share stops growing there."""
    rows = (s.latent.down if mixer == "latent" else 2 * s.attention(mixer).kv for mixer in attends(s))
    return PLAIN_BF16.row_bytes(sum(rows))
