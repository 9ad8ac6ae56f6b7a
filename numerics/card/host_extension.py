"""What stands in for the compiled parts of a library whose Python is timed (`numerics.card.host_library`).

`Extension` is TransformerEngine's `transformer_engine_torch`: enums, and functions that make the tensors and objects
that theirs return and launch nothing; how they are called is in TransformerEngine 2.12, pytorch/csrc/extensions.
"""

import contextlib
import enum
import time
import types
from collections import Counter, defaultdict
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

NOW = time.perf_counter if torch.cuda.is_available() else time.thread_time
"""Without a device all is done by one thread, whose own time does not grow with what runs beside it."""
TOP = 4
"""Experts of a token."""


class Clock:
    """Seconds and calls by name of what is told apart from Python."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self.depth = 0

    def clear(self) -> None:
        self.spent.clear()
        self.calls.clear()

    def apart(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, its time counted under `name` unless it is called by another such."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.depth += 1
            start = NOW()
            try:
                return call(*args, **kwargs)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.spent[name] += NOW() - start
                self.calls[name] += 1

        return timed


CLOCK = Clock()
ENUMS = {
    "DType": "kByte kInt32 kFloat32 kFloat16 kBFloat16 kFloat8E4M3 kFloat8E5M2 kFloat4E2M1",
    "NVTE_Bias_Type": "NVTE_NO_BIAS NVTE_PRE_SCALE_BIAS NVTE_POST_SCALE_BIAS NVTE_ALIBI",
    "NVTE_Mask_Type": "NVTE_NO_MASK NVTE_PADDING_MASK NVTE_CAUSAL_MASK NVTE_PADDING_CAUSAL_MASK "
    "NVTE_CAUSAL_BOTTOM_RIGHT_MASK NVTE_PADDING_CAUSAL_BOTTOM_RIGHT_MASK",
    "NVTE_Softmax_Type": "NVTE_VANILLA_SOFTMAX NVTE_OFF_BY_ONE_SOFTMAX NVTE_LEARNABLE_SOFTMAX",
    "NVTE_QKV_Format": "NVTE_BSHD NVTE_SBHD NVTE_THD NVTE_SBHD_2BSHD NVTE_BSHD_2SBHD NVTE_THD_2BSHD NVTE_THD_2SBHD",
    "NVTE_Fused_Attn_Backend": "NVTE_F16_max512_seqlen NVTE_F16_arbitrary_seqlen NVTE_FP8 NVTE_No_Backend",
    "Float8BlockScaleTensorFormat": "GEMM_READY COMPACT INVALID",
    "CommOverlapType": "RS AG",
    "FP8FwdTensors": " ".join(f"GEMM{i}_{what}" for i in (1, 2, 3) for what in ("INPUT", "WEIGHT", "OUTPUT")),
    "FP8BwdTensors": "GRAD_OUTPUT1 GRAD_INPUT1 GRAD_OUTPUT2 GRAD_INPUT2 GRAD_OUTPUT3 GRAD_INPUT3",
}


class Named(type):
    """A class that has each name it is asked for, as its own value."""

    def __getattr__(cls, name: str) -> str:
        return name


class Layout(metaclass=Named):
    """NVTE_QKV_Layout and CommOverlapAlgo, which have dozens."""


def _made(quantizer: Any, tensor: torch.Tensor) -> Any:
    """A quantised tensor, as the extension makes it: data and scales of each side, and Python's object over them."""
    rows, columns = quantizer.rowwise_usage, quantizer.columnwise_usage
    shape = tuple(tensor.shape)

    def bytes_of(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, device=tensor.device)

    named: dict[str, Any] = {"fp8_dtype": quantizer.dtype, "quantizer": quantizer}
    if type(quantizer).__name__ == "MXFP8Quantizer":
        kind, place = "MXFP8Tensor", "mxfp8_tensor"
        for name, side in (("rowwise", rows), ("columnwise", columns)):
            named[f"{name}_data"] = bytes_of(*shape) if side else None
            named[f"{name}_scale_inv"] = bytes_of(*shape) if side else None
        named["with_gemm_swizzled_scales"] = True
    else:
        kind, place = "Float8Tensor", "float8_tensor"
        turned = bytes_of(shape[-1], tensor.numel() // shape[-1]) if columns else None
        scale = torch.empty(1, device=tensor.device)
        named |= {"data": bytes_of(*shape), "fp8_scale_inv": scale, "data_transpose": turned}
    folder = "transformer_engine.pytorch.tensor"
    if quantizer.internal:
        return getattr(import_module(f"{folder}.storage.{place}_storage"), f"{kind}Storage")(**named)
    return getattr(import_module(f"{folder}.{place}"), kind)(shape=shape, dtype=tensor.dtype, **named)


class Extension(types.ModuleType):
    """`transformer_engine_torch`: its enums, and functions that make what theirs return."""

    def __init__(self) -> None:
        super().__init__("transformer_engine_torch")
        for name, values in ENUMS.items():
            setattr(self, name, enum.IntEnum(name, values.split(), start=0))
        self.NVTE_QKV_Layout = self.CommOverlapAlgo = Layout
        for name in ("CommOverlap", "CommOverlapP2P", "CommOverlapHelper", "CommOverlapCore", "FP8TensorMeta"):
            setattr(self, name, type(name, (), {}))
        for name in [key for key in vars(Extension) if key.startswith("c_")]:
            setattr(self, name[2:], CLOCK.apart(f"extension {name[2:]}", getattr(self, name)))
        for name in [key for key in vars(Extension) if key.startswith("get_")]:
            setattr(self, name, getattr(self, name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(name)

        return missing

    def c_quantize(self, tensor: Any, quantizer: Any, output: Any = None, noop: Any = None) -> Any:
        return output if output is not None else _made(quantizer, tensor)

    def c_split_quantize(self, tensor: Any, parts: Any, quantizers: Any, disable_bulk_allocation: bool = False) -> Any:
        return [_made(quantizer, part) for quantizer, part in zip(quantizers, torch.split(tensor, parts), strict=True)]

    def c_te_general_grouped_gemm(self, *args: Any) -> Any:
        return args[7]

    def c_generic_gemm(self, *args: Any, **named: Any) -> Any:
        one, turn_one, other, turn_other, out = args[:5]
        if out is None:
            a, b = (x.shape if hasattr(x, "shape") else x.size() for x in (one, other))
            shape = (*(b[-1:] if turn_other else b[:-1]), a[0] if turn_one else a[-1])
            out = torch.empty(shape, dtype=torch.bfloat16, device=getattr(one, "device", None))
        return out, None, None, None

    def c_rmsnorm_fwd(self, x: Any, weight: Any, eps: Any, out: Any, quantizer: Any, *rest: Any) -> Any:
        made = torch.empty_like(x) if quantizer is None else _made(quantizer, x)
        return made, None, torch.empty(x.shape[0], device=x.device)

    def c_rmsnorm_bwd(self, down: Any, x: Any, scale: Any, weight: Any, *rest: Any) -> Any:
        return torch.empty_like(x), torch.empty_like(weight)

    c_layernorm_fwd, c_layernorm_bwd = c_rmsnorm_fwd, c_rmsnorm_bwd

    def c_fused_multi_row_padding(self, *args: Any) -> None:
        return None

    c_fused_multi_row_unpadding = c_fused_multi_row_padding
    c_multi_tensor_quantize = c_fused_multi_row_padding

    def c_fused_topk_with_score_function_fwd(self, logits: Any, top: int, *rest: Any, **named: Any) -> Any:
        chosen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        chosen.view(-1, logits.shape[-1]).copy_(balanced(logits))
        return torch.empty_like(logits), chosen, torch.empty_like(logits)

    def c_fused_topk_with_score_function_bwd(self, *args: Any, **named: Any) -> Any:
        given = [x for x in (*args, *named.values()) if isinstance(x, torch.Tensor) and x.is_floating_point()]
        return torch.empty_like(given[0])

    def c_fused_score_for_moe_aux_loss_fwd(self, logits: Any, *rest: Any, **named: Any) -> Any:
        return torch.empty_like(logits), balanced(logits).view(logits.shape), torch.empty_like(logits)

    c_fused_score_for_moe_aux_loss_bwd = c_fused_topk_with_score_function_bwd

    def c_fused_moe_aux_loss_fwd(self, probs: Any, *rest: Any, **named: Any) -> Any:
        return torch.empty((), device=probs.device), torch.empty(1, device=probs.device)

    def c_fused_moe_aux_loss_bwd(self, *args: Any, **named: Any) -> Any:
        return torch.empty(named["num_rows"], named["num_cols"], device=named["grad_aux_loss"].device)

    def c_fused_rope_forward(self, x: Any, *args: Any, **named: Any) -> Any:
        return torch.empty_like(x)

    c_fused_rope_backward = c_fused_rope_forward

    def c_fused_attn_fwd(self, *args: Any) -> Any:
        q, _, v = args[14:17]
        out = torch.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype, device=q.device)
        return [out, torch.empty(1, device=q.device), torch.empty(2, dtype=torch.int64, device=q.device)]

    def c_fused_attn_bwd(self, *args: Any) -> Any:
        kept = [x for x in args if isinstance(x, torch.Tensor) and x.dim() >= 3][:3]
        return [*(torch.empty_like(x) for x in kept), torch.empty(1, device=kept[0].device)]

    def get_fused_attn_backend(self, *args: Any) -> Any:
        return self.NVTE_Fused_Attn_Backend.NVTE_F16_arbitrary_seqlen

    def get_cublasLt_version(self) -> int:  # noqa: N802 (theirs)
        return 130100

    def get_cudnn_version(self) -> int:
        return 91500

    def get_num_cublas_streams(self) -> int:
        return 4


_KEPT: dict[Any, torch.Tensor] = {}


def balanced(logits: torch.Tensor) -> torch.Tensor:
    """Who chose what, each expert the same number of tokens."""
    experts, tokens = logits.shape[-1], logits.numel() // logits.shape[-1]
    key = (experts, tokens, logits.device)
    if key not in _KEPT:
        chosen = torch.zeros(tokens, experts, dtype=torch.bool)
        for token in range(tokens):
            for place in range(TOP):
                chosen[token, (token * TOP + place) % experts] = True
        _KEPT[key] = chosen.to(logits.device)
    return _KEPT[key]


MAKERS = (
    "empty", "zeros", "ones", "full", "arange", "tensor", "rand", "randn", "empty_like", "zeros_like", "ones_like",
)  # fmt: skip


def _on_cpu(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, what it is asked to make on a CUDA device made on the CPU."""

    def made(*args: Any, **named: Any) -> Any:
        if named.get("device") is not None:
            named["device"] = "cpu"
        return call(*args, **named)

    return made


class _Nothing:
    """A stream or an event where there is no device."""

    device, cuda_stream = torch.device("cpu"), 0

    def __init__(self, *args: Any, **named: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **named: _Nothing()

    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *args: Any) -> None:
        pass


def without_device() -> None:
    cuda: Any = torch.cuda
    for name in ("Stream", "Event", "stream", "device"):
        setattr(cuda, name, _Nothing)
    cuda.current_device = lambda: torch.device("cpu")
    cuda.current_stream = lambda *a: _Nothing()
    cuda.is_available = lambda: True
    cuda.is_current_stream_capturing = lambda: False
    cuda.device_count = lambda: 1
    cuda.synchronize = lambda *a: None
    cuda.get_device_capability = lambda *a: (10, 0)
    cuda.get_device_properties = lambda *a: types.SimpleNamespace(
        major=10, minor=0, multi_processor_count=148, name="none", total_memory=1 << 37
    )
    with contextlib.suppress(ImportError):
        triton = import_module("triton.runtime")
        for kernel in (triton.JITFunction, triton.Autotuner):
            kernel.run = CLOCK.apart("triton", lambda *args, **named: None)
    for name in MAKERS:
        setattr(torch, name, _on_cpu(getattr(torch, name)))
    kind: Any = torch.Tensor
    kind.to, kind.cuda = _on_cpu(kind.to), lambda tensor, *args, **named: tensor
    kind.is_cuda = property(lambda tensor: True)
    kind.record_stream = lambda *a: None
