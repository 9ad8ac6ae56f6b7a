"""Feed-forward networks (SwiGLU, gated GELU, GELU, squared ReLU): what one is, and what it weighs."""

from typing import NamedTuple

GATED = {"swiglu": True, "geglu": True, "gelu": False, "relu2": False}
"""Activation -> whether one product gates another (arXiv:2002.05202); squared ReLU: arXiv:2109.08668."""


class Network(NamedTuple):
    """A feed-forward network: columns of its inner tensor, its activation, and whether its products have biases.
    clamped: whether what the activation reads is held between limits (gpt-oss: arXiv:2508.10925, sec. 2.1)."""

    width: int
    activation: str = "swiglu"
    bias: bool = False
    clamped: bool = False

    @property
    def fan(self) -> int:
        """Columns of the first product for each column of the activation: gate and up, or up alone."""
        return 2 if GATED[self.activation] else 1

    @property
    def first(self) -> int:
        """Columns of the first product."""
        return self.fan * self.width

    @property
    def up(self) -> str:
        """Name of the first product."""
        return "gateup" if GATED[self.activation] else "up"

    def weights(self, hidden: int) -> int:
        """Parameters of its products, without biases."""
        return (self.fan + 1) * hidden * self.width

    def biases(self, hidden: int) -> int:
        """Parameters of its biases."""
        return self.bias * (self.first + hidden)
