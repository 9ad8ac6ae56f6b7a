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


class Held:
    """A module's quantizers, and the quantised copies of its weights."""

    def __init__(self, quantizers: list[Quantizer], copies: dict[str, Any]) -> None:
        self.quantizers, self.copies = {"forward": quantizers}, copies
        self.places, self.each = {"input": 0, "weight": 1}, {"forward": 1}

    def listed(self, number: int) -> list[list[Quantizer]]:
        """Quantizers of so many inputs and weights, a list each, told what to make."""
        lists = []
        for name in ("input", "weight"):
            chosen = [self.quantizers["forward"][self.places[name] + i * self.each["forward"]] for i in range(number)]
            for quantizer in chosen:
                quantizer.internal = True
                quantizer.optimize = True
            lists.append(chosen)
        return lists

    def copy_of(
        self, *, tensor: Any = None, quantizer: Quantizer | None = None, name: str | None = None, update: bool = True,
        skip: Any = None, group: Any = None, dtype: Any = None,
    ) -> Any:  # fmt: skip
        """A weight's quantised copy, looked up and found to be whole."""
        if isinstance(tensor, Stored):
            return tensor
        out = self.copies.get(name, None) if name is not None else None
        if out is not None and quantizer is not None:
            if isinstance(out, Quantised):
                if quantizer.rows and out._rows is None:
                    raise ValueError(name)
                if quantizer.columns and out._rows is None:
                    raise ValueError(name)
            if isinstance(out, Held) != isinstance(quantizer, Held):
                raise ValueError(name)
        if out is not None and tensor is not None and group is not None and out.shape != tensor.shape:
            raise ValueError(name)
        if out is None or update:
            raise ValueError(name)
        return out


def _handed(weight: nn.Parameter, empties: dict[Any, torch.Tensor]) -> torch.Tensor:
    """What stands for the gradient of a weight whose own was added where it is kept, but for the view that is made."""
    if hasattr(weight, "added"):
        weight.added = True
        shape = list(weight.main.shape) if not getattr(weight, "zeroed", False) else []
        return empties[(shape[0], shape[1], weight.dtype)]
    raise ValueError(weight)


def _hooked(weight: nn.Parameter, groups: dict[Any, "Group"]) -> None:
    """What a hook of a parameter's gradient does: it is let go, and its group told."""
    if weight in groups:
        if not weight.requires_grad or weight.grad is None:
            raise ValueError(weight)
        if not weight.added or getattr(weight, "zeroed", False):
            raise ValueError(weight)
        groups[weight].register(weight)


class Group:
    """Parameters whose gradients are reduced together, behind the last micro-batch."""

    def __init__(self) -> None:
        self.overlapped, self.last, self.ready = True, False, set()  # type: bool, bool, set[Any]

    def register(self, weight: nn.Parameter) -> None:
        if not self.overlapped:
            raise ValueError(weight)
        if self.last:
            self.ready.add(weight)


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
    held_by = Held([Quantizer() for _ in range(33)], {"weight9": made})
    yield "listed", (each(lambda: held_by.listed(32)) - each(lambda: held_by.listed(1))) / 31
    tensor = module.weight9
    yield (
        "cached",
        each(
            lambda: held_by.copy_of(
                tensor=tensor, quantizer=quantizer, name=f"weight{9}", update=False, skip=None, dtype=x.dtype
            )
        ),
    )
    tensor.added, tensor.main, tensor.grad = False, x, x.clone()  # type: ignore[attr-defined]
    empties = {(*x.shape, x.dtype): x}
    yield "handed", each(lambda: _handed(tensor, empties))
    groups = {tensor: Group()}
    yield "hooked", each(lambda: _hooked(tensor, groups))
    identity = nn.Identity()
    yield "module", each(lambda: identity(x))
