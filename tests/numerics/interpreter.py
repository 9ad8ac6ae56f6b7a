"""Repairs of Triton's interpreter, for tests alone: the one place that touches its private names.

Seen in Triton 3.6.0, 3.7.1 and 3.9.0 (upstream: issue 8322, pull requests 9808, 10945, 11897). Without the repairs a
right kernel fails its test, so each is here once, and `test_interpreter_canary.py` fails when Triton no longer
needs one. Triton 3.6 on NumPy 2.4 also fails on loop bounds that are tensors: interpret with 3.7 or later, as CI does
(cross-compiling and running on a GPU need no interpreter and work with 3.6).

Not modelled, with or without repairs: the tensor core's accumulation, layouts, races, `num_stages`, `warp_specialize`,
`div.full` and other approximate instructions.

Call `install()` at the head of a test file that runs kernels; it does nothing when kernels run on a GPU.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import autotuner, interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

FP8 = {tl.float8e4nv: torch.float8_e4m3fn, tl.float8e5: torch.float8_e5m2}
NARROW = (tl.bfloat16, *FP8)
ORIGINAL: dict[tuple[Any, str], Any] = {}


def decode(data: np.ndarray, dtype: tl.dtype) -> np.ndarray:
    """Numbers from the bit patterns that the interpreter keeps for bf16, e4m3 and e5m2; others pass."""
    if dtype == tl.bfloat16:
        return (data.astype(np.uint32) << 16).view(np.float32)
    if dtype in FP8:
        return _numbers(FP8[dtype])[data]
    return data


@cache
def _numbers(dtype: torch.dtype) -> np.ndarray:
    """Number of each of 256 codes."""
    return torch.arange(256).to(torch.uint8).view(dtype).float().numpy()


def encode(data: np.ndarray, dtype: tl.dtype) -> np.ndarray:
    """Bit patterns, rounded to nearest even; FP8 saturates, inf included, as cvt.rn.satfinite does; NaN stays NaN."""
    if dtype not in NARROW:
        return data.astype(interpreter._get_np_dtype(dtype))
    value = torch.from_numpy(np.array(data, dtype=np.float32))
    if dtype == tl.bfloat16:
        return value.bfloat16().view(torch.int16).numpy().view(np.uint16)
    top = torch.finfo(FP8[dtype]).max
    return value.clamp(-top, top).to(FP8[dtype]).view(torch.uint8).numpy()


def fp_to_fp(self: Any, src: TensorHandle, dst_type: tl.dtype, rounding_mode: Any) -> TensorHandle:
    """fp32 -> e4m3 loses the carry into the next binade, breaks ties away, gives inf, NaN and overflow wrong codes."""
    if str(rounding_mode).endswith("RTZ"):
        return ORIGINAL[InterpreterBuilder, "create_fp_to_fp"](self, src, dst_type, rounding_mode)
    return cast(self, src, dst_type)


def cast(self: Any, src: TensorHandle, dst_type: tl.dtype) -> TensorHandle:
    """fp32 -> bf16 truncates; bf16 to anything but fp32 converts the bit pattern as an integer."""
    value = decode(src.data, src.dtype.scalar)
    return TensorHandle(encode(value, dst_type.scalar), dst_type.scalar)


def binary(self: Any, lhs: TensorHandle, rhs: TensorHandle, op: Callable[..., np.ndarray]) -> TensorHandle:
    """bf16 arithmetic and comparisons run on the bit pattern."""
    if lhs.dtype.scalar != tl.bfloat16 or lhs.data.dtype != np.uint16:
        return ORIGINAL[InterpreterBuilder, "binary_op"](self, lhs, rhs, op)
    value = op(decode(lhs.data, tl.bfloat16), decode(rhs.data, tl.bfloat16))
    if value.dtype == bool:
        return TensorHandle(value, tl.int1)
    return TensorHandle(encode(value, tl.bfloat16), tl.bfloat16)


def unary(self: Any, arg: TensorHandle, op: Callable[[np.ndarray], np.ndarray]) -> TensorHandle:
    """bf16 functions run on the bit pattern."""
    kind = arg.dtype.scalar
    return TensorHandle(encode(op(decode(arg.data, kind)), kind), kind)


def fma(self: Any, x: TensorHandle, y: TensorHandle, z: TensorHandle) -> TensorHandle:
    """bf16 again; also rounded once, where the interpreter rounds the product first."""
    kind = z.dtype.scalar
    wide = [decode(handle.data, kind).astype(np.float64) for handle in (x, y, z)]
    return TensorHandle(encode(wide[0] * wide[1] + wide[2], kind), kind)


def dot(self: Any, a: TensorHandle, b: TensorHandle, d: TensorHandle, *precision: Any) -> TensorHandle:
    """bf16 operands are multiplied as bit patterns; FP8 NaN reads as 480 and e5m2 inf as 65536."""
    left, right = (decode(handle.data, handle.dtype.scalar).astype(d.data.dtype) for handle in (a, b))
    return TensorHandle(np.matmul(left, right) + d.data, d.dtype.scalar)


def clamp(self: Any, arg: TensorHandle, low: TensorHandle, high: TensorHandle, propagate_nans: Any) -> TensorHandle:
    """tl.clamp keeps NaN, which the device replaces by the low bound unless told to propagate."""
    largest = np.maximum if str(propagate_nans).endswith("ALL") else np.fmax
    return self.binary_op(self.binary_op(arg, low, largest), high, np.minimum)


def reduce(self: Any, operands: tuple[tl.tensor, ...]) -> Any:
    """A bf16 sum adds bit patterns. On the device it depends on the order of bf16 additions: refused, not repaired."""
    if operands[0].dtype == tl.bfloat16 and self.combine_fn == tl.standard._sum_combine:
        raise NotImplementedError("sum bf16 in fp32: the device's order of bf16 additions is not defined")
    return ORIGINAL[interpreter.ReduceOps, "apply_impl"](self, operands)


def tune(self: Any, *args: Any, **kwargs: Any) -> Any:
    """@triton.autotune asks for a driver: take the first configuration that survives pruning instead."""
    self.nargs = dict(zip(self.arg_names, args, strict=False))
    config = self.prune_configs(kwargs)[0]
    return self.fn.run(*args, **kwargs, **config.all_kwargs())


def run_grid(self: Any, *args: Any, **kwargs: Any) -> Any:
    """numpy warns where the device is silent (exp overflows to inf, inf - inf), and our pytest makes that an error."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nanmax of nothing but NaN
        return ORIGINAL[interpreter.GridExecutor, "__call__"](self, *args, **kwargs)


def patch_builtins(package: Any, builder: Any, scope: Any) -> None:
    """No repair, but a quarter of the time of small kernels: each launch and each call of a device function looks
    through all of triton.language for what it has to replace. That is the same every time."""
    for name, member in _builtins(package):
        if getattr(package, name) is member:
            interpreter._patch_attr(package, name, member, builder, scope)


@cache
def _builtins(package: Any) -> tuple[tuple[str, Any], ...]:
    """What of a package the interpreter replaces; asked first before anything is."""
    return tuple((name, member) for name, member in inspect.getmembers(package) if tl.core.is_builtin(member))


def numpy_dtype(kind: tl.dtype) -> np.dtype:
    """No repair either: a table of all types is made at each question."""
    scalar = kind.scalar
    return np.dtype(np.uint64) if scalar.is_ptr() else _scalar_dtype(scalar)


@cache
def _scalar_dtype(scalar: tl.dtype) -> np.dtype:
    return ORIGINAL[interpreter, "_get_np_dtype"](scalar)


REPAIRS: dict[tuple[Any, str], Any] = {
    (InterpreterBuilder, "create_fp_to_fp"): fp_to_fp,
    (InterpreterBuilder, "cast_impl"): cast,
    (InterpreterBuilder, "binary_op"): binary,
    (InterpreterBuilder, "unary_op"): unary,
    (InterpreterBuilder, "create_fma"): fma,
    (InterpreterBuilder, "create_dot"): dot,
    (InterpreterBuilder, "create_clampf"): clamp,
    # tl.maximum and tl.minimum give the other operand for NaN on the device; the interpreter gives NaN.
    (InterpreterBuilder, "create_maxnumf"): lambda self, lhs, rhs: self.binary_op(lhs, rhs, np.fmax),
    (InterpreterBuilder, "create_minnumf"): lambda self, lhs, rhs: self.binary_op(lhs, rhs, np.fmin),
    (interpreter.ReduceOps, "apply_impl"): reduce,
    (interpreter.GridExecutor, "__call__"): run_grid,
    (autotuner.Autotuner, "run"): tune,
    (interpreter, "_patch_builtin"): patch_builtins,
    (interpreter, "_get_np_dtype"): numpy_dtype,
}


def active() -> bool:
    """Whether kernels run in the interpreter in this process."""
    return bool(triton.knobs.runtime.interpret)


def install() -> None:
    """Put the repairs in, once, if kernels are interpreted."""
    if not active() or ORIGINAL:
        return
    if _release(triton) < (3, 7) and _release(np) >= (2, 4):
        pytest.skip("Triton 3.6 cannot loop to a computed bound with NumPy 2.4 or later", allow_module_level=True)
    for (owner, name), repair in REPAIRS.items():
        ORIGINAL[owner, name] = getattr(owner, name)
        setattr(owner, name, repair)


def _release(package: Any) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(int(number) for number in package.__version__.split(".")[:2])


def remove() -> None:
    """Take them out again."""
    while ORIGINAL:
        (owner, name), original = ORIGINAL.popitem()
        setattr(owner, name, original)


@contextmanager
def unrepaired() -> Iterator[None]:
    """The interpreter as Triton ships it, for the canaries."""
    remove()
    try:
        yield
    finally:
        install()
