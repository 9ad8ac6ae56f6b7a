"""What a call would launch, without a GPU: kernels with their argument types, ready for `compile_for_hopper`.

Run a kernel's wrapper on tensors of the "meta" device, which have shapes and types and no memory, under `recorded()`:
each launch is written down instead of made. So the cross-compilation checks exactly the variants that a bench launches.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.experimental.gluon.nvidia import hopper as gluon
from triton.runtime.interpreter import InterpretedFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from numerics.kernels.compile import ALIGNED, Report, compile_for_hopper

TYPES = {
    torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5", torch.uint8: "u8", torch.int8: "i8", torch.int16: "i16", torch.int32: "i32",
    torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip
"""Triton's names of torch's types."""
OPTIONS = ("num_warps", "num_stages", "maxnreg")
"""Keywords of a launch that are no arguments of the kernel."""


@dataclass(frozen=True)
class Launch:
    """One specialisation of a kernel: types of its arguments, constants, and warps."""

    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    options: Mapping[str, int]

    @property
    def key(self) -> str:
        """Equal for launches that run the same compiled code."""
        return repr((self.kernel.__name__, sorted(self.signature.items()), sorted(self.constants.items(), key=repr),
                     sorted(self.options.items())))  # fmt: skip

    def compile(self) -> Report:
        """The code for sm_90a. Raises RuntimeError with the compiler's words."""
        return compile_for_hopper(self.kernel, self.signature, self.constants, **self.options)


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """A list that every kernel launch inside the block is appended to; nothing runs."""
    launches: list[Launch] = []

    def run(self: Any, *args: Any, grid: Any, warmup: bool = False, **named: Any) -> None:
        launches.append(_launch(self, args, named))

    with patch.object(triton.JITFunction, "run", run), patch.object(InterpretedFunction, "run", run):
        yield launches


def variants(call: Callable[[], Any]) -> list[Launch]:
    """The distinct launches of one call."""
    with recorded() as launches:
        call()
    return list({launch.key: launch for launch in launches}.values())


def _launch(kernel: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Launch:
    options = {name: named.pop(name) for name in OPTIONS if name in named}
    options = {name: value for name, value in options.items() if value is not None}
    bound = inspect.signature(kernel.fn).bind(*args, **named)
    bound.apply_defaults()
    general = {p.name for p in getattr(kernel, "params", ()) if p.do_not_specialize}
    signature, constants = {}, {}
    for name, value in bound.arguments.items():
        annotation = inspect.signature(kernel.fn).parameters[name].annotation
        if annotation is tl.constexpr or value is None or isinstance(value, bool | tl.dtype):
            constants[name] = value
        else:
            signature[name] = "i32" if name in general else _type(name, value)
    return Launch(kernel, signature, constants, options)


def _type(name: str, value: Any) -> str:
    """A launch argument's type as `compile_for_hopper` writes it."""
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}" + f":{ALIGNED}" * (value.data_ptr() % ALIGNED == 0)
    if isinstance(value, TensorDescriptor | gluon.TensorDescriptor):
        layout = f",{value.layout!r}" if isinstance(value, gluon.TensorDescriptor) else ""
        return f"tensordesc<{TYPES[value.base.dtype]}[{', '.join(map(str, value.block_shape))}]{layout}>"
    if isinstance(value, int):
        wide = "i32" if -(2**31) <= value < 2**31 else "i64"
        return f"{wide}:1" if value == 1 else wide + f":{ALIGNED}" * (value % ALIGNED == 0)
    if isinstance(value, float):
        return "fp32"
    raise TypeError(f"{name}: no type for {value!r}")
