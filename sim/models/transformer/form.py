"""The YAML form of a transformer."""

from typing import Annotated, Literal

from pydantic import Field

from sim.models.form import Count, Layers, Natural, ShapeForm


class ModelForm(ShapeForm):
    """Dimensions of a transformer; see sim.models.transformer.shape.TransformerShape."""

    heads: Count
    """Query heads."""
    kv_heads: Count
    """Heads of keys and values, each shared by heads / kv_heads query heads."""
    head_width: Count
    """Elements of a head."""
    tied: bool
    """Whether the head is the table of the input embedding."""
    intermediate: Natural = 0
    """Width of dense feed-forward networks, elements."""
    pattern: str = "attention+dense"
    """A word a layer, repeated to `layers`: a mixer (attention, window, chunk, unrotated, latent, mamba), a network
    (dense, moe), or both with a + between."""
    dense_layers: Layers = 0
    """In the first so many layers moe stands for dense."""
    activation: Literal["swiglu", "geglu", "gelu", "relu2"] = "swiglu"
    """Activation of feed-forward networks and experts; relu2: squared ReLU."""
    norm: Literal["rms", "layer", "layer_unbiased"] = "rms"
    """RMSNorm, LayerNorm with bias, or LayerNorm without."""
    post_norms: bool = False
    """Whether outputs of mixers and networks are normalised too, before they join the residual."""
    mlp_bias: bool = False
    """Whether products of dense networks have biases."""
    qkv_bias: bool = False
    """Whether the product that makes queries, keys and values has a bias."""
    output_bias: bool = False
    """Whether attention's output product has a bias."""
    qk_norm: Literal["none", "rms", "l2"] = "none"
    """How queries and keys are normalised a head: with weights (rms) or without (l2)."""
    rotary: Natural | None = None
    """Elements of a head that turn with the position; null: all, 0: no rope."""
    positions: Natural = 0
    """Learned positions in the input embedding."""
    window: Natural = 0
    """Keys that a query of a window layer sees at most."""
    chunk: Natural = 0
    """Tokens of a chunk, of chunk layers."""
    sinks: bool = False
    """Whether each head has a learned logit beside its keys."""
    experts: Natural = 0
    """Routed experts of a moe layer."""
    experts_per_token: Natural = 0
    """Routed experts that a token chooses."""
    expert_intermediate: Natural = 0
    """Width of an expert, elements."""
    shared_intermediate: Natural = 0
    """Width of all experts together that every token passes, elements."""
    expert_latent: Natural = 0
    """Width that tokens are compressed to before routed experts, and expanded from behind them; 0: they are not."""
    expert_bias: bool = False
    """Whether products of experts have biases."""
    expert_clamp: bool = False
    """Whether what experts' activations read is held between limits."""
    gate_bias: bool = False
    """Whether the gate has a bias a routed expert, also one that only corrects its choice."""
    score: Literal["sigmoid", "softmax"] = "softmax"
    """How router logits become affinities."""
    groups: Count = 1
    """Groups that routed experts are divided into."""
    groups_per_token: Count = 1
    """Groups that a token may choose experts from."""
    capacity: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Tokens that an expert takes at most, over the mean of all; what is more is dropped. 0: none is."""
    mtp_depth: Layers = 0
    """Multi-token prediction modules, which only train beside the model."""
    mtp_layer: str = ""
    """A module's layer, in a word of the pattern; empty: like the model's last."""
    q_rank: Natural = 0
    """Width of the compressed query of latent layers; 0: queries are not compressed."""
    kv_rank: Natural = 0
    """Width of the compressed keys and values of latent layers."""
    qk_nope: Natural = 0
    """Query and key elements of a latent head without rotary position."""
    qk_rope: Natural = 0
    """Query and key elements of a latent head with rotary position."""
    v_head: Natural = 0
    """Value elements of a latent head."""
    mamba_heads: Natural = 0
    """Heads of mamba layers."""
    mamba_width: Natural = 0
    """Channels of such a head."""
    mamba_groups: Count = 1
    """Groups of such heads, each with its own B and C."""
    mamba_state: Natural = 0
    """Elements of state of a channel."""
    mamba_conv: Count = 4
    """Tokens under the convolution of mamba layers."""
    mamba_chunk: Count = 128
    """Tokens that their scan takes at once."""
