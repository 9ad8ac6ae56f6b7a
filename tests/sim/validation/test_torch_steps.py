"""Measured steps of plain torch: memory is what operations keep, times are told and not tuned, the page is fresh."""

from functools import cache
from pathlib import Path

import pytest

from sim.validation import torch_pairs
from sim.validation.torch_page import PAGE, page
from sim.validation.torch_steps import FILE, compared, runs
from tests.oracles.launches import CLASSES, NAMED, named

rows = cache(compared)
ROOT = Path(__file__).parents[3]


def test_all_fourteen_runs_are_there() -> None:
    assert len(rows()) == 14 and FILE.is_file()


@pytest.mark.parametrize("name", [run["name"] for run in runs()])
def test_memory_is_what_operations_keep(name: str) -> None:
    """Peaks as torch allocated them; of the small compiled model Inductor keeps more than is known here."""
    row = next(row for row in rows() if row.name == name)
    assert abs(row.error("peak_bytes")) < (0.10 if row.name == "sm_24L_1k8_compiled" else 0.02)


def test_a_model_of_small_kernels_takes_as_long_as_its_launches() -> None:
    """Three times as long as its kernels, at the host's measured pace."""
    bound = next(row for row in rows() if row.name == "sm_24L_1k1")
    kernel_ms = next(run for run in runs() if run["name"] == bound.name)["kernel_us"] / 1000
    assert bound.simulated.step_ms > 3 * kernel_ms


def test_the_page_is_what_the_program_makes() -> None:
    bound = next(run for run in runs() if run["name"] == "sm_24L_1k1")
    renew = "run `python -m sim steps --write`"
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert text == page(rows(), bound["kernel_us"] / 1000) + torch_pairs.section(), renew
    median = next(line for line in text.splitlines() if line.startswith("| median error")).split(" | ")[-1].rstrip(" |")
    assert f"step within {median} in the median" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "expected"), [
    ("nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_TNT", "product"), ("Memset (Device)", "memset"),
    ("void cudnn::fusion::compute_dot_do_o_specialized<true, 128>", "attention"),
    ("triton_red_fused__log_softmax__to_copy", "fused"),
    ("void at::native::(anonymous namespace)::cunn_SoftMaxForward<4", "softmax"),
    ("void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add", "elementwise"),
])  # fmt: skip
def test_kernels_are_classed_by_their_names(name: str, expected: str) -> None:
    assert named(name) == expected
    assert {label for label, _ in NAMED} <= set(CLASSES)
