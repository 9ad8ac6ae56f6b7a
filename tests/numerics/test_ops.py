import inspect

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics import ops  # noqa: E402

OPERATIONS = [name for name, value in vars(ops).items() if hasattr(value, "kernels")]


def test_every_family_is_there():
    assert {"quantize_rows", "gemm", "wgrad_gemm", "grouped_gemm", "masked_gemm", "rmsnorm", "swiglu_quantize",
            "permute", "gate", "rope", "attention_backward", "store_e5m6"} <= set(OPERATIONS)  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_kernel_takes_what_the_reference_takes(name):
    call = getattr(ops, name)
    reference = inspect.signature(call.__wrapped__).parameters
    kernel = inspect.signature(ops.kernel(name, call.kernels)).parameters
    assert list(kernel)[: len(reference)] == list(reference)
    for parameter in reference:
        assert kernel[parameter].default == reference[parameter].default
    assert all(kernel[extra].default is not inspect.Parameter.empty for extra in list(kernel)[len(reference) :])


def test_cpu_tensors_go_to_the_reference():
    x = torch.randn(4, 130)
    q, s = ops.quantize_rows(x)
    assert q.shape == (4, 130) and s.shape == (4, 2)
    assert ops.rmsnorm(x, w=torch.ones(130), eps=1e-6)[0].shape == x.shape


class OnDevice(torch.Tensor):
    """Says that it lies on a CUDA device."""

    is_cuda = True


def on_device(*shape, dtype):
    return torch.Tensor._make_subclass(OnDevice, torch.zeros(*shape, dtype=dtype))


@pytest.mark.parametrize("dtype, called", [(torch.bfloat16, True), (torch.float32, False)])
def test_fp32_attention_has_no_kernel(monkeypatch, dtype, called):
    asked = []
    monkeypatch.setattr(ops, "kernel", lambda name, module: lambda *args, **named: asked.append((name, module)))
    q = on_device(1, 2, 1, 16, dtype=dtype)
    ops.attention(q, k=q, v=q, scale=1.0)
    assert asked == ([("attention", "attention")] if called else [])


def test_any_cuda_tensor_chooses_the_kernel(monkeypatch):
    asked = []
    monkeypatch.setattr(ops, "kernel", lambda name, module: lambda *args, **named: asked.append((name, module)))
    ops.store_e5m6(on_device(4, 128, dtype=torch.bfloat16))
    ops.grouped_gemm(a=on_device(4, 128, dtype=torch.bfloat16))
    assert asked == [("store_e5m6", "e5m6"), ("grouped_gemm", "grouped")]
