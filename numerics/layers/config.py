"""What a model is built from: the simulator's dimensions of it, a precision, and the constants of its training."""

from dataclasses import dataclass

from numerics.layers.emulated import Emulated
from numerics.layers.precision import Precision
from numerics.reference.rope import yarn_temperature
from sim.models.deepseek.shape import SCORES, DeepSeekShape


@dataclass(frozen=True)
class Yarn:
    """Context extension (arXiv 2309.00071) with DeepSeek-V3's values (sec 4.3): factor 40 from 4,096 tokens.

    mscale: coefficient of the temperature, which queries and keys are both multiplied by.
    """

    factor: float = 40.0
    original_length: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0


@dataclass(frozen=True)
class Config:
    """A model to train.

    shape: dimensions, as the simulator holds them. recompute: norms, up-projections and SwiGLU run again in the
    backward pass instead of waiting in memory (sec 3.2.3). init_std, balance (alpha of eq. 17), bias_speed (gamma) and
    mtp_weight (lambda): sec 4.2. rope_theta, eps: config.json of huggingface.co/deepseek-ai/DeepSeek-V3.
    Raises ValueError where the shape is no model of the family.
    """

    shape: DeepSeekShape
    precision: Precision | Emulated = Precision.FP8
    recompute: bool = True
    yarn: Yarn | None = None
    rope_theta: float = 10000.0
    eps: float = 1e-6
    init_std: float = 0.006
    balance: float = 1e-4
    bias_speed: float = 1e-3
    mtp_weight: float = 0.3

    def __post_init__(self) -> None:
        s = self.shape
        if s.score not in SCORES:
            raise ValueError(f"score is one of {', '.join(SCORES)}; got {s.score!r}")
        if s.experts % s.groups:
            raise ValueError(f"{s.experts} experts do not divide into {s.groups} groups; use a divisor of {s.experts}")
        held = s.experts // s.groups * s.groups_per_token
        if s.experts_per_token > held:
            raise ValueError(f"{s.experts_per_token} experts a token, but its groups hold {held}; choose more groups")
        if s.qk_rope % 2:
            raise ValueError(f"rotary elements come in pairs; got qk_rope = {s.qk_rope}")

    @property
    def attention_scale(self) -> float:
        """What queries times keys is multiplied by: 1/sqrt(d), and YaRN's temperature."""
        scale = (self.shape.qk_nope + self.shape.qk_rope) ** -0.5
        return scale * yarn_temperature(self.yarn.factor, self.yarn.mscale) ** 2 if self.yarn else scale
