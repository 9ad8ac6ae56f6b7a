"""The dimensions that models of every family have; a family adds its own in `sim/models/<family>/shape.py`."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of a model, as `scenarios/models/*.yaml` give them. family: its folder in sim/models. vocabulary:
    tokens it knows. hidden: width of the residual stream, in elements. layers: transformer layers, without those of
    modules that only train beside it. source: where the dimensions come from. unmodelled: what the real model has
    beside all that, in words (empty: nothing), and its parameters.
    """

    family: str
    name: str
    vocabulary: int
    hidden: int
    layers: int
    source: str
    unmodelled: str = field(default="", kw_only=True)
    unmodelled_parameters: int = field(default=0, kw_only=True)
