"""The YAML form of a DeepSeek model."""

from typing import Annotated, Literal

from pydantic import Field

from sim.models.form import Count, Layers, Natural, ShapeForm


class ModelForm(ShapeForm):
    """Dimensions of a DeepSeek model; see sim.models.deepseek.shape.DeepSeekShape."""

    dense_layers: Layers
    """The first so many layers have a dense feed-forward network instead of experts."""
    dense_intermediate: Count
    """Width of that network, elements."""
    expert_intermediate: Count
    """Width of an expert, elements."""
    experts: Count
    """Routed experts of a layer."""
    shared_experts: Natural
    """Experts of a layer that every token passes."""
    experts_per_token: Count
    """Routed experts that a token chooses."""
    groups: Count
    """Groups that routed experts are divided into."""
    groups_per_token: Count
    """Groups that a token may choose experts from."""
    route_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Factor on the weights of chosen experts."""
    score: Literal["sigmoid", "softmax"]
    """How router logits become affinities."""
    heads: Count
    """Attention heads."""
    qk_nope: Count
    """Query and key elements of a head without rotary position."""
    qk_rope: Natural
    """Query and key elements of a head with rotary position."""
    v_head: Count
    """Value elements of a head."""
    q_rank: Natural
    """Width of the compressed query; 0: queries are not compressed."""
    kv_rank: Count
    """Width of the compressed keys and values."""
    mtp_depth: Layers
    """Multi-token prediction modules, which only train beside the model."""
