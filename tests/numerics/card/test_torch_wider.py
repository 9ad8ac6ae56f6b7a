"""Further runs of torch's kernels, on tiny shapes and a CPU: they run, and ask for what they say."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hwmodels.op import Attention  # noqa: E402
from numerics.card import torch_calls, torch_optimizers, torch_plan, torch_runs, torch_times, torch_wider  # noqa: E402

WITHOUT_DEVICE = pytest.mark.skipif(torch.cuda.is_available(), reason="times tiny shapes only where there is no device")


@WITHOUT_DEVICE
def test_attention_and_experts_run_where_there_is_no_device(tmp_path):
    heads = torch_times.run(tmp_path / "heads.json", lambda text: None, 60.0, torch_wider.heads)
    assert {row["name"] for row in heads["rows"] if "us" in row} >= {
        "FLASH_ATTENTION forward",
        "FLASH_ATTENTION backward",
    }
    experts = torch_times.run(tmp_path / "experts.json", lambda text: None, 60.0, torch_wider.experts)
    assert all("us" in row for row in experts["rows"])
    assert {row["name"] for row in experts["rows"]} == {f"_grouped_mm {role}" for role in torch_plan.ROLES}


@WITHOUT_DEVICE
def test_updates_of_whole_models_are_timed(tmp_path):
    document = torch_optimizers.run(tmp_path / "optimizers.json", lambda text: None, 60.0)
    assert json.loads((tmp_path / "optimizers.json").read_text()) == document
    assert all("us" in row for row in document["rows"])
    names = [row["name"] for row in document["rows"]]
    assert "AdamW tiny, fused, 2 bytes" in names and "clip_grad_norm_ tiny" in names
    assert any("seen once" in name for name in names)


def test_a_model_has_the_parameters_that_it_is_named_after():
    sizes = list(torch_optimizers.shapes(torch_optimizers.MODELS[0]))
    assert sum(torch.Size(size).numel() for size in sizes) == 1_923_125_248  # as torch counts them: l8_4L_4k1
    first, *others = torch_optimizers.held([(8, 4), (4,)], torch.float32, "cpu", 0.5)
    assert int((first.grad == 0).sum()) == 16 and not int((others[0].grad == 0).sum())


def test_skewed_groups_have_all_rows():
    given = torch_calls.Operands("cpu", 1 << 16)
    for op in (case.op for case in torch_wider.experts(torch_plan.TINY)):
        assert torch_calls.skewed(op, given.start())().shape == torch_calls.grouped(op, given.start())().shape


def test_the_wider_plan_covers_widths_backends_and_windows():
    ops = [case.op for case in torch_wider.heads(torch_plan.FULL)]
    assert {op.qk for op in ops} == {64, 96, 128, 160, 192, 256}
    assert Attention("backward", 1, 32, 32768, 128, 128, kv_heads=8) in ops
    assert {op.window for op in ops} == {0, 128, 1024, 4096}
    assert not all(op.causal for op in ops)
    assert set(torch_runs.RUNS) >= {"library", "optimizers", "heads", "blocks", "experts"}
