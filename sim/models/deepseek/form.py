"""The YAML form of a DeepSeek model."""

from typing import Annotated, Literal

from pydantic import Field

from sim.models.form import Count, Layers, Natural, ShapeForm


class ModelForm(ShapeForm):
    """Dimensions of a DeepSeek model; see sim.models.deepseek.shape.DeepSeekShape."""

    dense_layers: Layers
    dense_intermediate: Count
    expert_intermediate: Count
    experts: Count
    shared_experts: Natural
    experts_per_token: Count
    groups: Count
    groups_per_token: Count
    route_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    score: Literal["sigmoid", "softmax"]
    heads: Count
    qk_nope: Count
    qk_rope: Natural
    v_head: Count
    q_rank: Natural
    kv_rank: Count
    mtp_depth: Layers
