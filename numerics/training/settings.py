"""A training run in one YAML file: its model, data, optimizer and schedules, checked key by key."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from hwmodels.document import Document, DocumentError, Problem, read, unknown
from numerics.layers.config import Config
from numerics.layers.emulated import RECIPES, Emulated
from numerics.layers.precision import Precision
from numerics.training.schedules import Ramp, Rate, Switch
from sim.models.deepseek.shape import DeepSeekShape

PRECISIONS: dict[str, Precision | Emulated] = {**{one.value: one for one in Precision}, **RECIPES}
"""Legal values of `precision`."""
MOMENTS = ("bf16", "fp32")


@dataclass(frozen=True)
class Settings:
    """What a run is.

    model: its dimensions. precision: a key of PRECISIONS. length: tokens of a sequence; batch: sequences of a
    micro-batch; micro_batches: of a step, ramped; steps: of the optimizer. rate, bias_speed (gamma), mtp_weight
    (lambda): schedules. balance (alpha): weight of the balance loss. moments: their type. recompute: V3's (the same
    bits in BF16). seed: of weights and order. evaluate: steps between evaluations (0: at the end alone) on `held`
    micro-batches of held-out tokens.
    average: decay of the weights' moving average, kept on the host (0: none), updated every average_every steps.
    """

    model: DeepSeekShape
    length: int
    batch: int
    steps: int
    rate: Rate
    precision: str = "fp8"
    micro_batches: Ramp = Ramp(1, 1)  # noqa: RUF009 - frozen
    bias_speed: Switch = Switch(1e-3, 0.0, 0.967)  # noqa: RUF009
    mtp_weight: Switch = Switch(0.3, 0.1, 0.676)  # noqa: RUF009
    balance: float = 1e-4
    moments: str = "bf16"
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    decay: float = 0.1
    clip: float = 1.0
    init_std: float = 0.006
    recompute: bool = True
    seed: int = 0
    evaluate: int = 0
    held: int = 16
    average: float = 0.0
    average_every: int = 10

    @property
    def config(self) -> Config:
        """Of the layers; what schedules rule is set by them, step by step."""
        return Config(
            self.model, PRECISIONS[self.precision], self.recompute, init_std=self.init_std, balance=self.balance,
            bias_speed=self.bias_speed.before, mtp_weight=self.mtp_weight.before,
        )  # fmt: skip


def load(path: Path) -> Settings:
    """The run in a file. Raises DocumentError with all that is wrong."""
    document = read(path)
    wrong: list[Problem] = []
    settings = _value(Settings, document, "", wrong)
    if not wrong:
        wrong = list(_unfit(settings, document))
    if wrong:
        raise DocumentError(wrong)
    return settings


def _value(kind: type, document: Document, key: str, wrong: list[Problem]) -> Any:
    """A dataclass from a mapping, its parts likewise; None where something is wrong with it."""
    content, place, before = document.content, document.place(()), len(wrong)
    known = {field.name: field for field in fields(kind)}
    if not isinstance(content, Mapping):
        wrong.append(Problem(place, key, f"expected a mapping with {', '.join(known)}; found {content!r}"))
        return None
    wrong += [Problem(document.place((name,)), _dotted(key, name), unknown(name, "key", tuple(known)))
              for name in content if name not in known]  # fmt: skip
    made = {}
    for name, field in known.items():
        part = document.at(name)
        if name in content:
            made[name] = _part(field.type, part, _dotted(key, name), wrong)
        elif field.default is MISSING:
            wrong.append(Problem(place, _dotted(key, name), "missing; expected a value"))
    return None if len(wrong) > before else kind(**made)


def _part(kind: Any, document: Document, key: str, wrong: list[Problem]) -> Any:
    if hasattr(kind, "__dataclass_fields__"):
        return _value(kind, document, key, wrong)
    kinds, value = ((int, float) if kind is float else (kind,)), document.content
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(one.__name__ for one in kinds)
        wrong.append(Problem(document.place(()), key, f"expected {names}; found {value!r}"))
    return value


def _dotted(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _unfit(settings: Settings, document: Document) -> list[Problem]:
    """Values that are of the right kind and no run."""
    s, least = settings, ("length", "batch", "steps")
    wrong = {name: f"expected 1 or more; found {getattr(s, name)}" for name in least if getattr(s, name) < 1}
    for name, legal in (("precision", tuple(PRECISIONS)), ("moments", MOMENTS)):
        if getattr(s, name) not in legal:
            wrong[name] = unknown(getattr(s, name), "value", legal)
    if min(s.micro_batches.first, s.micro_batches.last) < 1:
        wrong["micro_batches"] = "a step has 1 micro-batch or more"
    if not wrong:
        try:
            _ = s.config
        except ValueError as error:
            wrong["model"] = str(error)
    return [Problem(document.place((name,)), name, text) for name, text in wrong.items()]
