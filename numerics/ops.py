"""Every operation of the numerics core by one name: Triton kernels for CUDA tensors, the plain reference for the rest.

Signatures and documentation are those of numerics/reference. Triton is imported when the first CUDA tensor comes.
"""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from numerics.reference.permute import Layout
from numerics.reference.rope import rope_tables, yarn_frequencies, yarn_temperature

__all__ = ["Layout", "rope_tables", "yarn_frequencies", "yarn_temperature"]  # tables: made once, no kernel of their own


def _operation(name: str, family: str, kernels: str = "", wide: bool = True) -> Callable[..., Any]:
    """The operation `name` of reference/<family>.py and kernels/<kernels or family>.py, chosen at each call.

    wide: whether the kernel takes FP32; else FP32 operands go to the reference on any device.
    """
    reference = getattr(import_module(f"numerics.reference.{family}"), name)

    @wraps(reference)
    def call(*args: Any, **named: Any) -> Any:
        tensors = [x for x in (*args, *named.values()) if isinstance(x, Tensor)]
        plain = not any(x.is_cuda for x in tensors) or (not wide and tensors[0].dtype == torch.float32)
        return (reference if plain else kernel(name, kernels or family))(*args, **named)

    call.kernels = kernels or family  # type: ignore[attr-defined]  # which module a test or a bench looks in
    return call


def kernel(name: str, module: str) -> Callable[..., Any]:
    """The Triton twin of an operation, which lives in numerics/kernels/<module>.py."""
    twin: Callable[..., Any] = getattr(import_module(f"numerics.kernels.{module}"), name)
    return twin


quantize_rows = _operation("quantize_rows", "casts")
quantize_columns = _operation("quantize_columns", "casts")
requantize_columns = _operation("requantize_columns", "casts")
quantize_blocks = _operation("quantize_blocks", "casts")
dequantize_rows = _operation("dequantize_rows", "casts")
dequantize_blocks = _operation("dequantize_blocks", "casts")
transpose_codes = _operation("transpose_codes", "casts")
store_e5m6 = _operation("store_e5m6", "casts", "e5m6")
load_e5m6 = _operation("load_e5m6", "casts", "e5m6")

quantize_weight = _operation("quantize_weight", "cast_transpose")
rmsnorm_quantize = _operation("rmsnorm_quantize", "cast_transpose")
add_rmsnorm_quantize = _operation("add_rmsnorm_quantize", "cast_transpose")
rmsnorm_quantize_columns = _operation("rmsnorm_quantize_columns", "cast_transpose")
swiglu_quantize_both = _operation("swiglu_quantize_both", "cast_transpose")
swiglu_backward_both = _operation("swiglu_backward_both", "cast_transpose")

gemm = _operation("gemm", "gemm")
wgrad_gemm = _operation("wgrad_gemm", "gemm", "wgrad")
grouped_gemm = _operation("grouped_gemm", "gemm", "grouped")
masked_gemm = _operation("masked_gemm", "gemm", "grouped")

grouped_product = _operation("grouped_product", "by_group", wide=False)
grouped_outer = _operation("grouped_outer", "by_group", wide=False)
grouped_wgrad = _operation("grouped_wgrad", "by_group")

cross_entropy = _operation("cross_entropy", "loss")
adamw = _operation("adamw", "adamw")
rounded = _operation("rounded", "rounding")
rmsnorm = _operation("rmsnorm", "norm")
add_rmsnorm = _operation("add_rmsnorm", "norm")
rmsnorm_backward = _operation("rmsnorm_backward", "norm")
swiglu = _operation("swiglu", "swiglu")
swiglu_quantize = _operation("swiglu_quantize", "swiglu")
swiglu_quantize_columns = _operation("swiglu_quantize_columns", "swiglu")
swiglu_backward = _operation("swiglu_backward", "swiglu")
swiglu_forward_backward = _operation("swiglu_forward_backward", "swiglu")
gate_weight_gradient = _operation("gate_weight_gradient", "swiglu")
swiglu_backward_weighed = _operation("swiglu_backward_weighed", "swiglu")
swiglu_backward_quantize = _operation("swiglu_backward_quantize", "swiglu")

dispatch_layout = _operation("dispatch_layout", "permute")
expert_count = _operation("expert_count", "permute")
expert_map = _operation("expert_map", "permute")
layout = _operation("layout", "permute")
permute = _operation("permute", "permute")
unpermute = _operation("unpermute", "permute")
unpermute_backward = _operation("unpermute_backward", "permute")
gate = _operation("gate", "gate")
rope = _operation("rope", "rope")
rope_backward = _operation("rope_backward", "rope")

split_heads = _operation("split_heads", "heads")
split_heads_backward = _operation("split_heads_backward", "heads")

attention = _operation("attention", "attention", wide=False)
backward_prepare = _operation("backward_prepare", "attention")
attention_backward = _operation("attention_backward", "attention", wide=False)
