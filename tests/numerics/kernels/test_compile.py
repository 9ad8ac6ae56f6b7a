"""Leg 2: the memory-bound kernels cross-compiled for sm_90a, exactly the variants that V3's shapes launch."""

import os

import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from numerics.kernels import attention, cast_transpose, casts, e5m6, gate, heads, norm, permute, rope, swiglu  # noqa: E402
from numerics.kernels.compile import compile_for_hopper, compiler_available  # noqa: E402
from numerics.kernels.launches import variants  # noqa: E402
from numerics.reference.permute import Layout  # noqa: E402

pytestmark = pytest.mark.skipif(not compiler_available(), reason="Triton's wheel has no ptxas or cuobjdump here")

TOKENS, HIDDEN, EXPERT, HEADS, EXPERTS, CHOICES = 4096, 7168, 2048, 128, 256, 8
"""A micro-batch of DeepSeek-V3 (arXiv 2412.19437 sec 4.2)."""
REGISTERS = 128
"""Most registers a thread: 512 threads then share an SM, and cover the latency of memory with 64 bytes each."""


def meta(*shape: int, dtype: "torch.dtype" = torch.bfloat16) -> "torch.Tensor":
    return torch.empty(shape, dtype=dtype, device="meta")


def integers(*shape: int) -> "torch.Tensor":
    return meta(*shape, dtype=torch.int32)


X, FP32, FP8 = meta(TOKENS, HIDDEN), torch.float32, torch.float8_e4m3fn
SCALES = meta(TOKENS, HIDDEN // 128, dtype=FP32)
ROWS = (TOKENS * CHOICES // 128 + EXPERTS) * 128
LAYOUT = Layout(integers(TOKENS, CHOICES), integers(ROWS), integers(EXPERTS), integers(EXPERTS + 1), ROWS)
PACKED = meta(TOKENS, 16384 * 12 // 8, dtype=torch.uint8)
TABLE = meta(TOKENS, 32, dtype=FP32)

CALLS = {
    "quantize_rows": lambda: casts.quantize_rows(X),
    "quantize_rows, power of two": lambda: casts.quantize_rows(X, True),
    "quantize_columns": lambda: casts.quantize_columns(X),
    "quantize_columns, power of two": lambda: casts.quantize_columns(X, True),
    "requantize_columns": lambda: casts.requantize_columns(meta(TOKENS, HIDDEN, dtype=FP8), SCALES),
    "quantize_blocks, bf16": lambda: casts.quantize_blocks(meta(EXPERT, HIDDEN)),
    "quantize_blocks, fp32": lambda: casts.quantize_blocks(meta(EXPERT, HIDDEN, dtype=FP32)),
    "dequantize_rows": lambda: casts.dequantize_rows(meta(TOKENS, HIDDEN, dtype=FP8), SCALES),
    "dequantize_blocks": lambda: casts.dequantize_blocks(
        meta(EXPERT, HIDDEN, dtype=FP8), meta(EXPERT // 128, HIDDEN // 128, dtype=FP32)
    ),
    "store_e5m6": lambda: e5m6.store_e5m6(meta(TOKENS, 16384)),
    "load_e5m6": lambda: e5m6.load_e5m6(PACKED, meta(TOKENS, 128, dtype=FP32), 16384),
    "swiglu": lambda: swiglu.swiglu(meta(TOKENS, 2 * EXPERT)),
    "swiglu_quantize": lambda: swiglu.swiglu_quantize(meta(TOKENS, 2 * EXPERT)),
    "swiglu_quantize_columns": lambda: swiglu.swiglu_quantize_columns(meta(TOKENS, 2 * EXPERT)),
    "swiglu_backward": lambda: swiglu.swiglu_backward(meta(TOKENS, EXPERT), meta(TOKENS, 2 * EXPERT)),
    "swiglu_forward_backward": lambda: swiglu.swiglu_forward_backward(meta(TOKENS, EXPERT), meta(TOKENS, 2 * EXPERT)),
    "swiglu_backward_weighed": lambda: swiglu.swiglu_backward_weighed(
        meta(TOKENS, EXPERT), meta(TOKENS, 2 * EXPERT), meta(TOKENS, dtype=FP32)
    ),
    "gate_weight_gradient": lambda: swiglu.gate_weight_gradient(meta(TOKENS, EXPERT), meta(TOKENS, EXPERT)),
    "swiglu_backward_quantize": lambda: swiglu.swiglu_backward_quantize(meta(TOKENS, EXPERT), meta(TOKENS, 2 * EXPERT)),
    "quantize_weight": lambda: cast_transpose.quantize_weight(meta(4, 2 * EXPERT, HIDDEN, dtype=FP32)),
    "rmsnorm_quantize": lambda: cast_transpose.rmsnorm_quantize(X, meta(HIDDEN, dtype=FP32)),
    "rmsnorm_quantize, both and kept": lambda: cast_transpose.rmsnorm_quantize(
        X, meta(HIDDEN, dtype=FP32), powers=(True, False), keep=True
    ),
    "add_rmsnorm_quantize, both and kept": lambda: cast_transpose.add_rmsnorm_quantize(
        X, X, meta(HIDDEN, dtype=FP32), powers=(True, False), keep=True
    ),
    "rmsnorm_quantize_columns": lambda: cast_transpose.rmsnorm_quantize_columns(
        X, meta(HIDDEN, dtype=FP32), meta(TOKENS, dtype=FP32)
    ),
    "swiglu_quantize_both": lambda: cast_transpose.swiglu_quantize_both(meta(TOKENS, 2 * EXPERT)),
    "swiglu_backward_both": lambda: cast_transpose.swiglu_backward_both(
        meta(TOKENS, EXPERT),
        meta(TOKENS, 2 * EXPERT, dtype=FP8),
        meta(2 * EXPERT // 128, TOKENS, dtype=FP32).t(),
        meta(TOKENS, dtype=FP32),
    ),
    "rmsnorm, hidden": lambda: norm.rmsnorm(X, meta(HIDDEN)),
    "rmsnorm, latent": lambda: norm.rmsnorm(meta(TOKENS, 512), meta(512)),
    "add_rmsnorm": lambda: norm.add_rmsnorm(X, X, meta(HIDDEN)),
    "rmsnorm_backward, 3 streams": lambda: norm.rmsnorm_backward(X, X, meta(HIDDEN), meta(TOKENS, dtype=FP32), X),
    "rmsnorm_backward, 5 streams": lambda: norm.rmsnorm_backward(
        meta(3, TOKENS, HIDDEN), X, meta(HIDDEN), meta(TOKENS, dtype=FP32), X
    ),
    "rmsnorm_backward": lambda: norm.rmsnorm_backward(X, X, meta(HIDDEN), meta(TOKENS, dtype=FP32)),
    "dispatch_layout": lambda: permute.dispatch_layout(integers(TOKENS, CHOICES), EXPERTS, 64),
    "layout": lambda: permute.layout(integers(TOKENS, CHOICES), EXPERTS, rows=ROWS),
    "layout, a rank's experts": lambda: permute.layout(integers(8 * TOKENS, CHOICES), 4, rows=ROWS),
    "backward_prepare": lambda: attention.backward_prepare(*[meta(1, TOKENS, HEADS, 128)] * 2, 192),
    "permute": lambda: permute.permute(X, LAYOUT),
    "unpermute": lambda: permute.unpermute(meta(ROWS, HIDDEN), LAYOUT, meta(TOKENS, CHOICES, dtype=FP32)),
    "unpermute_backward": lambda: permute.unpermute_backward(
        X, meta(ROWS, HIDDEN), LAYOUT, meta(TOKENS, CHOICES, dtype=FP32)
    ),
    "gate, V3": lambda: gate.gate(meta(TOKENS, 256, dtype=FP32), meta(256, dtype=FP32), 8, 4, 8, "sigmoid", 2.5),
    "swiglu_quantize_both, one tile": lambda: cast_transpose.swiglu_quantize_both(meta(TOKENS, 2 * 128)),
    "swiglu_backward_both, one tile": lambda: cast_transpose.swiglu_backward_both(
        meta(TOKENS, 128), meta(TOKENS, 2 * 128, dtype=FP8), meta(TOKENS, 2, dtype=FP32)
    ),
    "gate, V2": lambda: gate.gate(meta(TOKENS, 160, dtype=FP32), None, 8, 3, 6, "softmax", 16.0),
    "split_heads": lambda: heads.split_heads(
        meta(1, TOKENS, HEADS, 192), meta(1, TOKENS, HEADS, 256), meta(1, TOKENS, 576)[..., 512:], TABLE, TABLE
    ),
    "split_heads_backward": lambda: heads.split_heads_backward(
        meta(1, TOKENS, HEADS, 192), meta(1, TOKENS, HEADS, 192), meta(1, TOKENS, HEADS, 128), TABLE, TABLE
    ),
    "rope": lambda: rope.rope(meta(1, TOKENS, HEADS, 192)[..., 128:], TABLE, TABLE),
}
NARROW = {"_store", "_load", "_count", "_place", "_owners", "_gate", "_sum_partials", "_bases", "_dispatch_layout"}
"""Kernels whose data do not come in 16-byte loads: 12-bit words lie 12 bytes apart, the others are launch-bound."""
BY_COPY = {"_turn"}
"""Kernels whose tiles come by the copy engine; what they read again, with care, comes as it lies."""
SUMS = {"_dots"}
"""Kernels that write a number a row."""


@pytest.mark.parametrize("name", CALLS)
def test_variant(name: str) -> None:
    """No spills, few enough registers, 16-byte loads and stores, conversions by instruction."""
    found = variants(CALLS[name])
    assert found
    for launch in found:
        report, kernel = launch.compile(), launch.kernel.__name__
        assert report.spills == 0 and report.instructions("LDL") == report.instructions("STL") == 0
        assert 0 < report.registers <= REGISTERS
        if kernel not in BY_COPY:
            assert report.instructions("LDG.E.U8") == report.instructions("LDG.E.U16") == 0
        assert report.instructions("STG.E.U8") == report.instructions("STG.E.U16") == 0
        if kernel in BY_COPY:
            assert report.instructions("UTMALDG") > 0 and report.instructions("STG.E.128") > 0
        elif kernel not in NARROW:
            # Codes turn in tiles of 64 columns: 8 bytes a thread and row, 256 bytes a warp.
            width = "64" if name == "requantize_columns" else "128"
            assert report.instructions(f"LDG.E.{width}") > 0
            assert (report.instructions("STG.E.128") > 0) != (kernel in SUMS)
        if "quantize" in name and "dequantize" not in name:
            assert "cvt.rn.satfinite.e4m3x2.f32" in report.ptx


@triton.jit
def _hungry(x, y, n, size: tl.constexpr):
    i = tl.program_id(0) * size + tl.arange(0, size)
    value = tl.load(x + i, mask=i < n, other=0.0)
    total = tl.sum(value, axis=0)
    tl.store(y + i, value * total, mask=i < n)


@triton.jit
def _broken(x, size: tl.constexpr):
    tl.store(x + tl.arange(0, size), tl.load(x + tl.arange(0, 3)))


SIGNATURE = {"x": "*fp32:16", "y": "*fp32:16", "n": "i32:16"}


def test_report_of_a_spill() -> None:
    """The check can fail: 256 numbers a thread do not fit in 64 registers."""
    report = compile_for_hopper(_hungry, SIGNATURE, {"size": 8192}, num_warps=1, maxnreg=64)
    assert report.registers <= 64 and report.spills > 0
    assert report.instructions("STL") > 0 and report.instructions("LDL") > 0


def test_alignment_decides_the_width_of_loads() -> None:
    wide = compile_for_hopper(_hungry, SIGNATURE, {"size": 1024})
    narrow = compile_for_hopper(_hungry, {**SIGNATURE, "x": "*fp32"}, {"size": 1024})
    assert wide.instructions("LDG.E.128") == 2 and wide.instructions("LDG.E") == 2
    assert narrow.instructions("LDG.E.128") == 0 and narrow.instructions("LDG.E") == 8
    assert wide.spills == 0 and wide.shared > 0 and ".target sm_90a" in wide.ptx
    assert wide.kernel.endswith("test_compile:_hungry")


def test_one_becomes_a_constant() -> None:
    report = compile_for_hopper(_hungry, {**SIGNATURE, "n": "i32:1"}, {"size": 128})
    assert ".param .u32" not in report.ptx.split("{")[0]


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"_hungry: unknown arguments \['z'\], missing arguments \['y', 'n'\]"):
        compile_for_hopper(_hungry, {"x": "*fp32", "z": "i32"}, {"size": 128})
    with pytest.raises(Exception, match="arange"):  # RuntimeError from the worker, CompilationError without one
        compile_for_hopper(_broken, {"x": "*fp32"}, {"size": 128})


def test_the_interpreter_setting_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling goes to a worker without the setting; this process keeps it."""
    before = os.environ.get("TRITON_INTERPRET")
    compile_for_hopper(_hungry, SIGNATURE, {"size": 256})
    assert os.environ.get("TRITON_INTERPRET") == before
