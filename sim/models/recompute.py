"""What a backward pass computes again instead of keeping it, as a choice that every stack reads off its site.

A stack's published recipe is one choice; the others name modules, as Megatron-LM's --recompute-modules does, or whole
layers, as its --recompute-method and --recompute-num-layers do (github.com/NVIDIA/Megatron-LM,
megatron/training/arguments.py).
"""

from dataclasses import dataclass

MODULES = ("core_attention", "mla_up_projection", "norm", "activation", "mlp", "moe", "shared_experts")
"""Modules of a layer: attention without its projections; latent attention's up-projections and rope; norms; activations
of feed-forward networks; dense networks; mixtures, with their gate and exchanges; shared experts by themselves. Which
of them a stack knows, and what they are there, is its own affair (docs/MEMORY.md)."""
SELECTIVE = "selective_op"
"""Kind of torchtitan's policy by operators: attention and every second product are kept, all else computed again."""
AGAIN = " again"
"""Ends the name of a part of backward that runs a part of forward a second time."""
FIRST, INSIDE = "first", "inside"
"""Layer of a group that is computed again as a whole: its first one, whose input is kept, or one behind it."""


@dataclass(frozen=True)
class Recompute:
    """kind: recipe (as the stack's publishers did), none, full (every layer whole), modules (those alone), layers, or
    SELECTIVE. method of layers: uniform (all, in groups of `layers`, each of which keeps its input), block (the first
    `layers` of each stage, while the others keep all) or every (one in so many of each stage: torchtitan's selective
    checkpointing with a number)."""

    kind: str = "recipe"
    modules: tuple[str, ...] = ()
    layers: int = 0
    method: str = "uniform"

    def again(self, module: str, published: bool) -> bool:
        """Whether a module's output is computed again. published: whether the stack's recipe does so. Where whole
        layers are computed again, their second forward keeps all."""
        return published if self.kind == "recipe" else module in self.modules

    @property
    def plain(self) -> dict[str, object]:
        """The choice as a scenario says it, in one way."""
        if self.kind == "modules":
            return {"modules": list(self.modules)}
        return {"layers": self.layers, "method": self.method} if self.kind == "layers" else {"kind": self.kind}

    @property
    def everywhere(self) -> bool:
        """Whether every layer is computed again whole."""
        return self.kind == "full" or (self.kind == "layers" and self.method == "uniform")

    def checkpoints(self, layers: int) -> tuple[str, ...]:
        """For each of a stage's layers, in order: FIRST, INSIDE, or "" for one that is not computed again whole."""
        if self.method == "every" and self.kind == "layers":
            return tuple("" if (i + 1) % self.layers else FIRST for i in range(layers))
        if not self.everywhere:
            return tuple(FIRST if i < self.layers else "" for i in range(layers))
        each = self.layers or 1
        return tuple(INSIDE if i % each else FIRST for i in range(layers))


RECIPE = Recompute()
