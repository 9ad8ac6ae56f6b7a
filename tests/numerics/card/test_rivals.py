"""Others' kernels: asked with what they take, and not at all where there is no GPU or no package."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from numerics.card import rivals


def test_nothing_is_asked_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "package", lambda name: pytest.fail(f"{name} was looked for"))
    a, s = torch.zeros(128, 128), torch.ones(128, 1)
    assert rivals.dense(a, s, a, s) == rivals.weight(a, s, a, s, a) == {}
    assert rivals.grouped(a, s, a[None], s[None], torch.zeros(1, dtype=torch.int32)) == {}
    assert rivals.masked(a[None], s[None], a[None], s[None], torch.tensor([128])) == {}


def test_the_output_takes_its_place_among_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    theirs = SimpleNamespace(product=lambda *given: asked.append(given))
    monkeypatch.setattr(rivals, "package", {"deep_gemm": theirs}.get)
    out: Any = SimpleNamespace(is_cuda=True)
    (name, call), *others = rivals._deep_gemm("product", out, "a", "b", None, "rows").items()
    assert (name, others, call()) == ("DeepGEMM", [], out) and asked == [("a", "b", out, "rows")]


class OnCard(torch.Tensor):
    is_cuda = True  # type: ignore[assignment]


def test_flash_attention_is_asked_for_both_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward each, kept; the second with its bits repeating."""
    asked: list[dict[str, Any]] = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **kinds: Any) -> torch.Tensor:
        asked.append(kinds)
        return q * k * v

    monkeypatch.setattr(rivals, "package", {"flash_attn.cute": SimpleNamespace(flash_attn_func=attend)}.get)
    q = torch.full((2,), 3.0).as_subclass(OnCard)
    calls = rivals.attention(q, q, q, torch.ones(2), 0.5, "backward")
    assert [[g.tolist() for g in call()] for call in (*calls.values(), *calls.values())] == [[[9.0, 9.0]] * 3] * 4
    assert asked == [
        {"softmax_scale": 0.5, "causal": True},
        {"softmax_scale": 0.5, "causal": True, "deterministic": True},
    ]


def test_forward_attention_is_asked_with_and_without_its_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log-sum-exp comes with inputs that want a gradient; neither call keeps a graph."""
    wanted: list[bool] = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **kinds: Any) -> tuple[torch.Tensor, None]:
        wanted.append(q.requires_grad and k.requires_grad and v.requires_grad)
        return q * k * v, None

    monkeypatch.setattr(rivals, "package", {"flash_attn.cute": SimpleNamespace(flash_attn_func=attend)}.get)
    q = torch.full((2,), 3.0).as_subclass(OnCard)
    calls = rivals.attention(q, q, q, q, 0.5, "forward")
    outputs = [call() for call in calls.values()]
    assert wanted == [False, True] and not any(out.requires_grad for out in outputs)
    assert [out.tolist() for out in outputs] == [[27.0, 27.0]] * 2


def test_a_package_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing library of a package that is there fails its row; a package that is not there has none."""
    folder = tmp_path / "flash_attn"
    (folder / "cute").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (tmp_path / "deep_gemm.py").write_text("import no_such_compiler\n")
    (folder / "cute" / "__init__.py").write_text("raise OSError('libtvm_ffi_testing.so: cannot open')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("flash_attn", "flash_attn.cute", "deep_gemm"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    q = torch.ones(1).as_subclass(OnCard)
    with pytest.raises(OSError, match="libtvm_ffi_testing"):
        rivals.attention(q, q, q, q, 0.5, "forward")["FlashAttention-4"]()
    with pytest.raises(ModuleNotFoundError, match="no_such_compiler"):
        rivals._deep_gemm("product", q, None)["DeepGEMM"]()
    assert rivals.package("flash_attn.other") is rivals.package("no_such_package") is None
    sys.modules.pop("flash_attn")
