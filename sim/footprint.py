"""What the units of a model weigh: parameters, FLOPs a token, KV cache, and the activations that wait for backward.

Closed forms from the dimensions; DeepSeek-V3: 671.03 B parameters, 37.55 B active, 250 GFLOP a token.
"""

from dataclasses import dataclass

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from sim.models.layer import Site, Unit
from sim.models.shape import ModelShape
from sim.precision import Recipe


@dataclass(frozen=True)
class Parameters:
    """Counts of one unit. linear: in quantised linear layers, outside experts. experts: in all routed experts. other:
    norms, gate, embedding, head (BF16). shared: of `other`, a second use of a tensor that another unit holds."""

    linear: int = 0
    experts: int = 0
    other: int = 0
    shared: int = 0

    @property
    def total(self) -> int:
        """Without what is held elsewhere."""
        return self.linear + self.experts + self.other - self.shared

    def __add__(self, more: "Parameters") -> "Parameters":
        return Parameters(
            self.linear + more.linear, self.experts + more.experts, self.other + more.other, self.shared + more.shared
        )


def attention_parameters(s: ModelShape) -> Parameters:
    """MLA: down- and up-projections of q and kv, output; the norms of both latents and of the layer."""
    q = s.heads * (s.qk_nope + s.qk_rope)
    kv = s.heads * (s.qk_nope + s.v_head)
    query = s.hidden * s.q_rank + s.q_rank * q if s.q_rank else s.hidden * q
    linear = query + s.hidden * (s.kv_rank + s.qk_rope) + s.kv_rank * kv + s.heads * s.v_head * s.hidden
    return Parameters(linear=linear, other=s.q_rank + s.kv_rank + 2 * s.hidden)


def parameters(s: ModelShape, unit: Unit) -> Parameters:
    """Parameters of one unit."""
    if unit.kind == "embedding":
        return Parameters(other=s.vocabulary * s.hidden)
    if unit.kind == "head":
        size = s.vocabulary * s.hidden
        return Parameters(other=size + s.hidden, shared=size if unit.layer >= 0 else 0)
    if unit.kind == "projection":
        table = s.vocabulary * s.hidden  # the embedding, shared with the first stage
        return Parameters(linear=2 * s.hidden * s.hidden, other=2 * s.hidden + table, shared=table)
    if unit.kind == "dense":
        return attention_parameters(s) + Parameters(linear=3 * s.hidden * s.dense_intermediate)
    expert = 3 * s.hidden * s.expert_intermediate
    bias = s.experts if s.score == "sigmoid" else 0
    gate = s.experts * s.hidden + bias
    return attention_parameters(s) + Parameters(s.shared_experts * expert, s.experts * expert, gate)


def total_parameters(s: ModelShape, units: tuple[Unit, ...]) -> int:
    return sum(parameters(s, u).total for u in units)


def main_units(units: tuple[Unit, ...]) -> tuple[Unit, ...]:
    """The model without its multi-token-prediction modules."""
    first = next((i for i, u in enumerate(units) if u.kind == "projection"), len(units))
    return units[:first]


def active_parameters(s: ModelShape, units: tuple[Unit, ...]) -> int:
    """Parameters one token meets: of the routed experts only the chosen ones."""
    idle = sum(1 for u in units if u.kind == "moe") * (s.experts - s.experts_per_token)
    return total_parameters(s, units) - idle * 3 * s.hidden * s.expert_intermediate


def training_flop_per_token(s: ModelShape, units: tuple[Unit, ...], length: int, causal: bool) -> float:
    """Forward and backward of one token at sequence `length`: 6 a weight that multiplies it, and attention's products.

    The input embedding is a look-up and is left out (arXiv 2505.09343 table 2 counts so).
    """
    weights = active_parameters(s, units) - s.vocabulary * s.hidden
    layers = sum(1 for u in units if u.kind in ("dense", "moe"))
    pairs = length / 2 if causal else length
    attention = 2.0 * s.heads * pairs * (s.qk_nope + s.qk_rope + s.v_head)
    return 6.0 * weights + 3.0 * layers * attention


def kv_cache_bytes_per_token(s: ModelShape) -> float:
    """MLA caches the compressed kv and the shared rotary key, in BF16."""
    return s.layers * PLAIN_BF16.row_bytes(s.kv_rank + s.qk_rope)


# --- memory -----------------------------------------------------------------------------------------------------------


def weight_bytes(p: Parameters, local: float, recipe: Recipe) -> float:
    """Compute copies on one rank; `local`: the part of the routed experts it holds. Shared tensors are held once."""
    quantised = p.linear + p.experts * local
    return recipe.weight.row_bytes(round(quantised)) + PLAIN_BF16.row_bytes(p.other - p.shared)


def kept_for_backward(site: Site, unit: Unit) -> float:
    """Bytes of activations from a unit's forward to its input gradient, by what the recipe stores."""
    s, t, r = site.shape, site.tokens, site.recipe
    if unit.kind == "embedding":
        return 0.0
    if unit.kind == "head":  # input of the norm, and logits whose gradient is written in place
        return t * (PLAIN_BF16.row_bytes(s.hidden) + PLAIN_BF16.row_bytes(s.vocabulary))
    if unit.kind == "projection":
        return 2 * t * PLAIN_BF16.row_bytes(s.hidden)
    latent = (s.q_rank or 0) + s.kv_rank + s.qk_rope
    residuals = 2 * PLAIN_BF16.row_bytes(s.hidden) + PLAIN_BF16.row_bytes(latent)
    out = r.attention_output.row_bytes(s.heads * s.v_head) + PLAIN_FP32.row_bytes(s.heads)  # and log-sum-exp
    total = t * (residuals + out)
    if unit.kind == "dense":
        return total + t * r.gate_up.row_bytes(2 * s.dense_intermediate)
    token, row = routed_for_backward(site)
    return total + (site.received * token + site.rows * row) + t * r.gate_up.row_bytes(
        2 * s.shared_experts * s.expert_intermediate
    )


def routed_for_backward(site: Site) -> tuple[float, float]:
    """Bytes of what a MoE layer keeps for backward of each token received, and of each expert row."""
    s, r = site.shape, site.recipe
    return r.dispatch.row_bytes(s.hidden), r.gate_up.row_bytes(2 * s.expert_intermediate)


def kept_for_weight(site: Site, unit: Unit) -> float:
    """Bytes from a unit's input gradient to its weight gradient, when the two are split: both sides of each product."""
    s, t, r = site.shape, site.tokens, site.recipe
    row = r.activation.row_bytes
    if unit.kind == "embedding":
        return 0.0
    if unit.kind == "head":
        return t * (PLAIN_BF16.row_bytes(s.hidden) + PLAIN_BF16.row_bytes(s.vocabulary))
    if unit.kind == "projection":
        return t * row(3 * s.hidden)
    q, kv = s.heads * (s.qk_nope + s.qk_rope), s.heads * (s.qk_nope + s.v_head)
    inputs = 2 * s.hidden + s.q_rank + s.kv_rank + s.heads * s.v_head
    outputs = s.q_rank + s.kv_rank + s.qk_rope + q + kv + s.hidden
    ffn = s.dense_intermediate if unit.kind == "dense" else s.shared_experts * s.expert_intermediate
    total = t * (row(inputs + outputs) + row(2 * s.hidden + 3 * ffn))
    if unit.kind == "moe":
        each_token, each_row = routed_for_weight(site)
        total += site.received * each_token + site.rows * each_row
    return total


def routed_for_weight(site: Site) -> tuple[float, float]:
    """Bytes of what a MoE layer keeps for a split weight gradient of each token received, and of each expert row."""
    s, r = site.shape, site.recipe
    return 2 * r.dispatch.row_bytes(s.hidden), r.activation.row_bytes(3 * s.expert_intermediate)


def workspace_bytes(site: Site) -> float:
    """Largest set of temporaries alive at once: attention's backward (q, k, v, o, their gradients, dQ in FP32)."""
    s, t = site.shape, site.tokens
    q, v = s.heads * (s.qk_nope + s.qk_rope), s.heads * s.v_head
    return t * (PLAIN_BF16.row_bytes(2 * (2 * q) + 4 * v) + PLAIN_FP32.row_bytes(q))


def exchange_buffer_bytes(site: Site) -> float:
    """Landing zones of the expert exchange: dispatched rows, and expert outputs on their way back."""
    return site.received * landing_bytes(site)


def landing_bytes(site: Site) -> float:
    """Of the landing zones, what each token received takes."""
    h = site.shape.hidden
    return site.recipe.dispatch.row_bytes(h) + site.recipe.combine.row_bytes(h)
