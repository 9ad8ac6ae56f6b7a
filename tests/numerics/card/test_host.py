"""Loops over single operations of torch and of Python: they run on a CPU, and tell what the stack's constants name."""

import json
import statistics
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from numerics.card import host, host_native, host_python  # noqa: E402
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
    "QUANTISED",
    "STORED",
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
    for name in ("QUANTISED", "STORED"):
        assert getattr(counted, name) == pytest.approx(times * rows_us[name.lower()])


def test_what_a_third_host_took_is_brought_over_by_what_both_timed():
    """The geometric mean over all that asks nothing of a GPU."""
    first, third = (json.loads(HOST.with_name(name).read_text())["us"] for name in ("h200.json", "epyc.json"))
    of_a_gpu = {"operation", "empty", "unit_forward", "unit_backward", "gradient", "backward_begin"}
    shared = sorted(set(first) & set(third) - of_a_gpu)
    ratio = statistics.geometric_mean(first[name] / third[name] for name in shared)
    times = ratio * counted.UNIT["F"] / first["unit_forward"]
    assert len(shared) == 13 and times == pytest.approx(counted.BESIDE, rel=0.005)
    for name in ("PART", "READ", "WAY"):
        assert getattr(counted, name) == pytest.approx(counted.BESIDE * third[name.lower()])
    assert pytest.approx(counted.BESIDE * third["hooked"]) == counted.HOOKED


def test_what_an_expert_takes_in_the_librarys_python_is_the_slope_of_its_rows():
    """Forward of a product, and backward, from 1 to 32 experts: the median of runs, each on the host of the counts."""
    runs = json.loads(HOST.with_name("h200_library.json").read_text())["runs"]
    recipes = {"": "bf16", counted.ONE_SCALE: "tensorwise", counted.BY_BLOCK: "mxfp8"}
    for how, recipe in recipes.items():
        slopes: list[list[float]] = [[], []]
        for run in runs:
            rows = {row["experts"]: row for row in run["rows"] if row["recipe"] == recipe}
            spent = [(sum(rows[n]["forward"]) / 2, rows[n]["backward_both"] / 2) for n in (1, 32)]
            times = counted.UNIT["F"] / run["unit_forward"]
            for way in (0, 1):
                slopes[way].append((spent[1][way] - spent[0][way]) / 31 * times)
        assert counted.WALKED[how] == pytest.approx([statistics.median(each) for each in slopes], abs=0.06)


def test_a_weights_stand_in_is_told_once_its_gradient_was_added():
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    weight.added, weight.main, weight.grad = False, torch.zeros(2, 3), torch.zeros(2, 3)
    group, empty = host_python.Group(), torch.zeros(2, 3)
    with pytest.raises(ValueError):
        host_python._hooked(weight, {weight: group})
    assert host_python._handed(weight, {(2, 3, torch.float32): empty}) is empty
    group.last = True
    host_python._hooked(weight, {weight: group})
    assert group.ready == {weight}


def test_a_quantised_copy_is_looked_up_and_must_be_whole():
    quantizers = [host_python.Quantizer() for _ in range(3)]
    made = host_python.Quantised((4, 4), quantizers[0], *[torch.zeros(2)] * len(host_python.FIELDS))
    module = host_python.Held(quantizers, {"weight0": made})
    assert module.listed(2) == [quantizers[:2], quantizers[1:]]
    assert module.copy_of(quantizer=quantizers[0], name="weight0", update=False) is made
    made._rows = None
    with pytest.raises(ValueError):
        module.copy_of(quantizer=quantizers[0], name="weight0", update=False)


def test_what_is_compiled_has_a_function_for_each_of_its_loops():
    for name in ("parts", "fields", "ways"):
        assert f" {name}(const " in host_native.SOURCE


def test_each_compiled_loop_is_one_more_less_one(monkeypatch):
    """The library stands in for itself: a microsecond for each that it is given."""

    class Library:
        def parts(self, buffer, count):
            return float(count)

        def fields(self, tensors):
            return 2.0 * len(tensors)

        ways = fields

    monkeypatch.setattr("torch.utils.cpp_extension.load_inline", lambda *args, **kwargs: Library())
    assert dict(host_native.native(lambda call: call())) == {"part": 1.0, "read": 2.0, "way": 2.0}
