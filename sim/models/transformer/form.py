"""The YAML form of a dense transformer."""

from sim.models.form import Count, ShapeForm


class ModelForm(ShapeForm):
    """Dimensions of a dense transformer; see sim.models.transformer.shape.TransformerShape."""

    intermediate: Count
    """Width of the feed-forward network, elements."""
    heads: Count
    """Query heads."""
    kv_heads: Count
    """Heads of keys and values, each shared by heads / kv_heads query heads."""
    head_width: Count
    """Elements of a head."""
    tied: bool
    """Whether the head is the table of the input embedding."""
