"""Python that frameworks run around an operation, timed by itself on objects that are made alike.

Which objects TransformerEngine and Megatron Core make and go through is in `sim.models.stacks.megatron.host`; here is
what one of each takes: a call, an attribute of a module, a tensor of a class of its own, and a parameter's turn in an
optimizer that goes through them one by one.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

Each = Callable[[Callable[[], Any]], float]


class Quantizer:
    """What a tensor is quantised by: a few fields, and a copy of it."""

    def __init__(self) -> None:
        self.rows = self.columns = self.internal = True
        self.format, self.optimize = 0, False

    def use(self, *, rows: bool | None = None, columns: bool | None = None) -> None:
        if rows is not None:
            self.rows = rows
        if columns is not None:
            self.columns = columns

    def copy(self) -> "Quantizer":
        other = Quantizer()
        other.rows, other.columns = self.rows, self.columns
        other.internal, other.optimize = self.internal, self.optimize
        return other


FIELDS = ("_rows", "_columns", "_row_scales", "_column_scales")


class Quantised(torch.Tensor):
    """A tensor that presents as BF16 and holds four others."""

    _rows: torch.Tensor
    _quantizer: Quantizer

    @staticmethod
    def __new__(cls, shape: tuple[int, int], quantizer: Quantizer, *held: torch.Tensor) -> "Quantised":
        made = torch.Tensor._make_wrapper_subclass(
            cls, shape, strides=(shape[1], 1), storage_offset=0, dtype=torch.bfloat16, layout=torch.strided,
            requires_grad=False, device=held[0].device,
        )  # fmt: skip
        for name, tensor in zip(FIELDS, held, strict=True):
            setattr(made, name, tensor)
        made._quantizer = quantizer.copy()
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError(func)


class Stored:
    """The same without being a tensor."""

    def __init__(self, quantizer: Quantizer, *held: torch.Tensor) -> None:
        for name, tensor in zip(FIELDS, held, strict=True):
            setattr(self, name, tensor)
        self._quantizer = quantizer.copy()


def _saved(made: Any) -> Any:
    """Its tensors taken out, to be kept by autograd, and put back."""
    held = [getattr(made, name) for name in FIELDS]
    for name in FIELDS:
        setattr(made, name, None)
    for name, tensor in zip(FIELDS, held, strict=True):
        setattr(made, name, tensor)
    return made


def _turn(weight: nn.Parameter, main: torch.Tensor, into: list[torch.Tensor], keyed: dict[Any, Any]) -> None:
    """A parameter in a loop over all: what it is keyed by, a view of its shard, and its shape checked."""
    whole, start, end = keyed[weight]
    shard = main.view(-1)[start:end]
    if whole.nelement() != main.nelement():
        raise ValueError(whole.shape)
    into.append(shard)


def python(each: Each, x: torch.Tensor) -> Iterator[tuple[str, float]]:
    """Names and microseconds."""
    quantizer, held = Quantizer(), [x] * len(FIELDS)
    module = nn.Module()
    for number in range(16):
        module.register_parameter(f"weight{number}", nn.Parameter(x.clone()))
    yield "call", each(lambda: quantizer.use(rows=True, columns=True))
    yield "attribute", each(lambda: getattr(module, f"weight{9}"))
    yield "named_parameters", each(lambda: list(module.named_parameters())) / 16
    yield "quantised", each(lambda: Quantised((64, 64), quantizer, *held))
    yield "stored", each(lambda: Stored(quantizer, *held))
    made = Quantised((64, 64), quantizer, *held)
    yield "saved", each(lambda: _saved(made))
    weight, into = module.weight9, []  # type: list[torch.Tensor]
    keyed = {weight: (weight, 0, x.nelement())}
    yield "turn", each(lambda: _turn(weight, x, into, keyed))  # type: ignore[arg-type]
    identity = nn.Identity()
    yield "module", each(lambda: identity(x))
