"""Loops over single operations of torch and of Python: they run on a CPU, and tell what the stack's constants name."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from numerics.card import host, host_python  # noqa: E402
from sim.models.stacks.megatron import host as counted  # noqa: E402

HOST = Path(host.__file__).parent / "hosts" / "h200.json"
WITHOUT_DEVICE = pytest.mark.skipif(torch.cuda.is_available(), reason="times few repetitions where there is no device")
TOLD = (
    "OPERATION",
    "VIEW",
    "EMPTY",
    "ARGUMENT",
    "PIECE",
    "GRADIENT",
    "ATTRIBUTE",
    "CALL",
    "QUANTISED",
    "STORED",
    "SAVED",
)
"""Constants of the stack that a CPU's tensors tell too."""


@WITHOUT_DEVICE
def test_every_loop_runs_where_there_is_no_device(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "REPEATS", 2)
    monkeypatch.setattr(host, "CHAIN", 4)
    host.main(["--out", str(tmp_path)])
    document = json.loads((tmp_path / "host.json").read_text())
    assert document["about"]["tensors"] == "cpu"
    for name in TOLD:
        assert hasattr(counted, name)
        assert isinstance(document["us"][name.lower()], float)


def test_a_quantised_tensor_holds_what_it_was_given_and_a_copy_of_its_quantizer():
    quantizer, held = host_python.Quantizer(), [torch.zeros(2) for _ in host_python.FIELDS]
    made = host_python.Quantised((4, 4), quantizer, *held)
    assert tuple(made.shape) == (4, 4) and made.dtype == torch.bfloat16
    assert made._rows is held[0] and made._quantizer is not quantizer
    assert host_python._saved(made)._rows is held[0]


def test_a_function_keeps_all_that_it_is_given():
    x = torch.ones(2, 2, requires_grad=True)
    host.Same.apply(x, torch.ones(2)).sum().backward()
    assert torch.equal(x.grad, torch.full((2, 2), 2.0))


def test_what_experts_ask_of_python_is_what_a_host_took():
    """By the loops that ran on an H200's host; the operation that `Kernel.host` counts in brings it to the other's."""
    rows_us = json.loads(HOST.read_text())["us"]
    times = counted.UNIT["F"] / rows_us["unit_forward"]
    for name in ("ATTRIBUTE", "CALL", "QUANTISED", "STORED", "SAVED"):
        assert getattr(counted, name) == pytest.approx(times * rows_us[name.lower()])
