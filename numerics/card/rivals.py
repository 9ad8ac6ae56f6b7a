"""The best kernels of others for the same work, where they can be imported: DeepGEMM's products, FlashAttention's.

`python -m numerics bench --rivals FOLDER` puts FOLDER before Python's path; it holds what the measuring machine lacks:
`deep_gemm` (github.com/deepseek-ai/DeepGEMM, the Python version of 2025-07, such as 03d0be3, with CUTLASS's headers in
its include folder; it compiles a kernel a shape with nvcc at the first call) and `flash_attn.cute` with what it needs
(PyPI: flash-attn-4, and of its needs nvidia-cutlass-dsl with its libraries, 240 MB, apache-tvm-ffi, quack-kernels and
einops). Neither is part of this project. A rival is timed only after its output passed our gate; one that is there and
cannot be imported is a row that says why.

Where 240 MB are too much, FlashAttention-4's kernels can be compiled beforehand, on a machine without a GPU: with
FLASH_ATTENTION_ARCH and CUTE_DSL_ARCH sm_90a, FLASH_ATTENTION_NUM_SMS 132 and torch's fake tensors, its interface
compiles each kernel that a call needs, `export_to_c` of what was compiled writes an object file, and the object, the
wheel's libcuda_dialect_runtime_static.a, libcudart and libtvm_ffi link to a library that `tvm_ffi.load_module` opens.
Then FOLDER holds a `flash_attn.cute` of the same launches in the same order, and `tvm_ffi` whole: without its `cpp`
folder or libtvm_ffi_testing.so it cannot be imported.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]


def package(name: str) -> Any:
    """The package, or None where there is none. Raises what its own import raises (without its compiler, say)."""
    try:
        return import_module(name) if find_spec(name.partition(".")[0]) else None
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise


def _broken(name: str, error: Exception) -> dict[str, Call]:
    """A call that fails as the package's import did, so that its row says why it was not timed."""

    def call() -> Any:
        raise error

    return {name: call}


def _deep_gemm(function: str, out: Tensor, *arguments: Any) -> dict[str, Call]:
    """A function of DeepGEMM's on arguments before and behind its output, which lies where None stands; none without a
    GPU or the package."""
    try:
        theirs = package("deep_gemm") if out.is_cuda else None
    except Exception as error:
        return _broken("DeepGEMM", error)
    if theirs is None:
        return {}
    given = [out if each is None else each for each in arguments]

    def call() -> Tensor:
        getattr(theirs, function)(*given)
        return out

    return {"DeepGEMM": call}


def dense(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor) -> dict[str, Call]:
    """a b^T in BF16; a_s with rows next to each other, as DeepGEMM takes scales without a copy."""
    out = torch.empty(a.shape[0], b.shape[0], dtype=torch.bfloat16, device=a.device)
    return _deep_gemm("gemm_fp8_fp8_bf16_nt", out, (a, _by_column(a_s)), (b, b_s), None)


def weight(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, out: Tensor) -> dict[str, Call]:
    """out += a b^T in FP32."""
    return _deep_gemm("wgrad_gemm_fp8_fp8_fp32_nt", out, (a, _by_column(a_s)), (b, _by_column(b_s)), None)


def grouped(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, table: Tensor) -> dict[str, Call]:
    """Rows of a times the weight of their group; table: the group of each 128 rows."""
    out = torch.empty(a.shape[0], b.shape[1], dtype=torch.bfloat16, device=a.device)
    rows = table.repeat_interleave(a.shape[0] // len(table))
    name = "m_grouped_gemm_fp8_fp8_bf16_nt_contiguous"
    return _deep_gemm(name, out, (a, _by_column(a_s)), (b, b_s), None, rows)


def masked(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, rows: Tensor) -> dict[str, Call]:
    """The first rows[g] rows of each group; every row counts here, so the host may know how many are expected."""
    out = torch.empty(*a.shape[:2], b.shape[1], dtype=torch.bfloat16, device=a.device)
    scales = a_s.transpose(1, 2).contiguous().transpose(1, 2)
    name = "m_grouped_gemm_fp8_fp8_bf16_nt_masked"
    return _deep_gemm(name, out, (a, scales), (b, b_s), None, rows, a.shape[1])


def attention(q: Tensor, k: Tensor, v: Tensor, do: Tensor, scale: float, direction: str) -> dict[str, Call]:
    """FlashAttention-4 in CuTe, whose sm_90 path takes 192 and 128. Forward alone, and with the log-sum-exp that ours
    always writes and theirs only where a gradient is asked for; backward replays one kept forward, in any order and in
    its own one."""
    try:
        theirs = package("flash_attn.cute") if q.is_cuda else None
    except Exception as error:
        return _broken("FlashAttention-4", error)
    if theirs is None:
        return {}
    plain, asking = ([x.detach().requires_grad_(asked) for x in (q, k, v)] for asked in (False, True))

    def forward(inputs: list[Tensor], **kinds: Any) -> Tensor:
        out = theirs.flash_attn_func(*inputs, softmax_scale=scale, causal=True, **kinds)
        return out[0] if isinstance(out, tuple) else out

    if direction == "forward":
        with_sums = lambda: forward(asking).detach()
        return {"FlashAttention-4": lambda: forward(plain), "FlashAttention-4, log-sum-exp too": with_sums}

    def backward(**kinds: Any) -> Call:
        kept: list[Tensor] = []

        def gradient() -> Any:
            if not kept:
                kept.append(forward(asking, **kinds))
            return torch.autograd.grad(kept[0], asking, do, retain_graph=True)

        return gradient

    return {"FlashAttention-4": backward(), "FlashAttention-4, repeating bits": backward(deterministic=True)}


def _by_column(scales: Tensor) -> Tensor:
    """The same scales with rows next to each other in memory."""
    return scales.t().contiguous().t()
