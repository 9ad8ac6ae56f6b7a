"""The YAML form of a dense transformer."""

from sim.models.form import Count, ShapeForm


class ModelForm(ShapeForm):
    """Dimensions of a dense transformer; see sim.models.transformer.shape.TransformerShape."""

    intermediate: Count
    heads: Count
    kv_heads: Count
    head_width: Count
    tied: bool
