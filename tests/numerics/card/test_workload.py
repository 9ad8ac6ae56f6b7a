"""The bench's and the device leg's own path, run in the interpreter at small sizes: build, launch, verify."""

import itertools

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.card import bench, workload  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()

SMALL = {
    "TOKENS": 32, "HIDDEN": 256, "EXPERTS": 2, "EXPERT_ROWS": 256, "DECODE_ROWS": 64, "INTERMEDIATE": 128,
    "HEADS": 1, "VERIFIED_HEADS": 1, "WEIGHT_ROWS": 256, "ATTENTIONS": ((1, 1, 192, 128), (2, 1, 128, 128)),
}  # fmt: skip
SLOW = (
    "gate", "gate_weight_gradient", "expert_map", "112 SMs", "pointer", "descriptor", "scales stored by tile",
)  # fmt: skip
"""Two to twelve seconds in the interpreter, and tested beside their kernel."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(workload, name, value)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


def cases():
    return itertools.chain(
        workload.gemms((64, 128), ((128, 384),)), workload.wgrads(((128, 128),)), workload.grouped(),
        workload.attentions(128), workload.memory(),
    )  # fmt: skip


def test_every_default_variant_verifies():
    seen = {}
    for case in cases():
        if case.name in SLOW or (case.family == "grouped" and "x128x" in case.name):
            continue
        work = case.build("cpu")
        call = next(iter(work.ours.values()))
        seen[case.family, case.name] = bench.verify(work, call)
    assert {key: why for key, why in seen.items() if why} == {}
    assert len(seen) > 20


def test_a_wrong_kernel_does_not_verify():
    for case in itertools.islice(cases(), 1):
        work = case.build("cpu")
        (call,) = work.ours.values()
        assert "gain" in bench.verify(work, lambda call=call: call() * 1.03)


def test_a_balanced_layout_uses_every_row_once():
    laid = workload._layout("cpu")
    assert torch.equal(laid.row_of_pair.flatten().sort().values, torch.arange(laid.rows, dtype=torch.int32))
    assert laid.padded_offsets[-1] == laid.rows == laid.counts.sum()
