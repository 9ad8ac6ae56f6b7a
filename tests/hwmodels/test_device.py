"""Devices: datasheet figures as published, conversions that can be redone, and what every device file owes."""

import pickle
from itertools import pairwise

import pytest

from hwmodels import device
from hwmodels.document import Document, DocumentError
from hwmodels.figure import KINDS
from hwmodels.shelf import expand

DEVICES = [device.load(name) for name in device.available()]


@pytest.mark.parametrize(("name", "sms", "bf16", "fp8", "hbm_gb", "hbm_tb_s"), [
    ("h800", 132, 989e12, 1979e12, 80, 3.35), ("h100", 132, 989e12, 1979e12, 80, 3.35),
    ("h200", 132, 989e12, 1979e12, 141, 4.8), ("a100", 108, 312e12, None, 80, 2.039),
    ("a100_40gb", 108, 312e12, None, 40, 1.555), ("h20", 78, 148e12, 296e12, 96, 4.0),
    ("b200", 148, 2250e12, 4500e12, 180, 8.0), ("b300", 148, 2250e12, 4500e12, 268, 8.0),
    ("gb200", 152, 2500e12, 5000e12, 186, 8.0), ("gb300", 152, 2500e12, 5000e12, 278, 8.0),
    ("mi300x", 304, 1307.4e12, 2614.9e12, 192, 5.3), ("mi355x", 256, 2516e12, 5033e12, 288, 8.0),
])  # fmt: skip
def test_datasheets(name: str, sms: int, bf16: float, fp8: float | None, hbm_gb: float, hbm_tb_s: float) -> None:
    found = device.load(name)
    assert (found.sms, found.peak_flops["bf16"], found.peak_flops.get("fp8")) == (sms, bf16, fp8)
    assert found.hbm.capacity_bytes == hbm_gb * 10**9
    assert found.hbm.bandwidth_bytes_per_s == pytest.approx(hbm_tb_s * 1e12)


def test_tables_and_siblings() -> None:
    assert [(d, device.load(d).tables, device.load(d).siblings) for d in ("h800", "h100", "h200", "a100")] == [
        ("h800", "h800", ("h100", "h200")), ("h100", None, ("h800", "h100", "h200")),
        ("h200", None, ("h800", "h200", "h100")),
        ("a100", None, ()),
    ]  # fmt: skip
    hopper = ("h800", "h200", "h100")
    assert {(device.load(d).tables, device.load(d).siblings) for d in ("h20", "b200", "b300", "gb200", "gb300")} == {
        (None, hopper)
    }
    assert {(device.load(d).tables, device.load(d).siblings) for d in ("a100_40gb", "mi300x", "mi355x")} == {(None, ())}


@pytest.mark.parametrize(("key", "found", "says"), [
    ("tables", "h80", "unknown tables 'h80', did you mean 'h800'? legal: h100, h200, h800"),
    ("siblings", ["h20"], "siblings[0]: unknown tables 'h20'"), ("siblings", "h100", "expected a list of words"),
])  # fmt: skip
def test_tables_that_are_not_there_are_refused(key: str, found: object, says: str) -> None:
    with pytest.raises(DocumentError) as caught:
        device.build(Document({"base": "h800", key: found}))
    assert says in str(caught.value)


@pytest.mark.parametrize(("name", "cycles"), [
    ("h800", {"shared_memory": 29.0, "l2": 263.0, "hbm": 478.8}),
    ("a100", {"shared_memory": 29.0, "l2": 261.5, "hbm": 466.3}),
])  # fmt: skip
def test_latencies_are_the_published_cycles_at_the_boost_clock(name: str, cycles: dict[str, float]) -> None:
    """Luo et al., arXiv:2402.13499."""
    found = device.load(name)
    for level, count in cycles.items():
        assert getattr(found, level).latency_s * found.clock_hz == pytest.approx(count, rel=1e-3)
        assert str(count) in found.figures[f"{level}.latency"].source


def test_hopper_cache_bandwidths_are_the_published_bytes_per_clock() -> None:
    found = device.load("h800")
    assert found.shared_memory.bandwidth_bytes_per_s / found.clock_hz == pytest.approx(124.1, rel=1e-3)
    assert found.l2.bandwidth_bytes_per_s / found.clock_hz == pytest.approx(3942.4, rel=1e-3)


@pytest.mark.parametrize(("name", "flop_per_clock"), [
    ("h800", 4096), ("h100", 4096), ("h200", 4096), ("a100", 2048), ("h20", 1024), ("b200", 8192), ("b300", 8192),
    ("gb200", 8192), ("gb300", 8192), ("mi300x", 2048), ("mi355x", 4096),
])  # fmt: skip
def test_the_peak_is_sms_times_clock_times_the_tensor_cores(name: str, flop_per_clock: int) -> None:
    """Four tensor cores an SM, each 1024 (Blackwell), 512 (Hopper) or 256 (Ampere) BF16 FMAs a clock, NVIDIA's
    whitepapers; a compute unit half of a Hopper SM (CDNA 3) or as much (CDNA 4): FP8 at 4,096 and 8,192 FLOP a clock,
    AMD at ISSCC 2026."""
    found = device.load(name)
    assert found.sms * found.clock_hz * flop_per_clock == pytest.approx(found.peak_flops["bf16"], rel=2e-3)


@pytest.mark.parametrize("found", DEVICES, ids=device.available())
def test_the_hierarchy_grows_slower_and_larger_outwards(found: device.Device) -> None:
    per_chip = [(found.registers, found.sms), (found.shared_memory, found.sms), (found.l2, 1), (found.hbm, 1)]
    if found.l3:
        per_chip.insert(3, (found.l3, 1))
    levels = [(m.capacity_bytes * n, m.latency_s, m.bandwidth_bytes_per_s * n) for m, n in per_chip]
    host = found.host
    levels.append((host.capacity_bytes, host.latency_s, host.bandwidth_bytes_per_s))
    if found.hbm.capacity_bytes < 200 * 10**9:  # cards with more have nodes with no more memory than theirs
        assert levels[-2][0] < levels[-1][0]
    for near, far in pairwise(levels):
        assert near[1] < far[1] and near[2] > far[2]
    assert levels[2][0] < levels[3][0] <= levels[-2][0]


@pytest.mark.parametrize("found", DEVICES, ids=device.available())
def test_every_number_says_kind_and_source(found: device.Device) -> None:
    expected = {"sms", "clock", *(f"peak_flops.{name}" for name in found.peak_flops)}
    levels = [*device.LEVELS, *([device.L3] if found.l3 else [])]
    expected |= {f"{level}.{part}" for level in levels for part in ("capacity", "latency", "bandwidth")}
    expected |= {"dies"} if found.dies > 1 else set()
    assert set(found.figures) - {"power"} == expected | {"spread"}
    assert found.power_w == (found.figures["power"].value if "power" in found.figures else 0.0)
    for figure in found.figures.values():
        assert figure.kind in KINDS and len(figure.source) > 10
    assert found.figures["hbm.bandwidth"].value == found.hbm.bandwidth_bytes_per_s


def test_a_device_is_a_value() -> None:
    found = device.load("h800")
    assert pickle.loads(pickle.dumps(found)) == found == device.load("h800")
    assert len({found, device.load("h800"), device.load("a100")}) == 2


def test_what_is_wrong_with_a_device_is_told_at_once() -> None:
    wrong = Document({"base": "h800", "hbm": {"latncy": "3 ns"}, "peak_flops": {"bf16": None}, "sms": "many"})
    with pytest.raises(DocumentError) as caught:
        device.build(wrong, ("device",))
    assert str(caught.value).splitlines() == [
        "<mapping>: device.sms: expected a whole number, 1 or more; found 'many'",
        "<mapping>: device.peak_flops: bf16 is missing; every device needs it",
        "<mapping>: device.hbm.latncy: unknown key 'latncy', did you mean 'latency'? "
        "legal: bandwidth, capacity, latency",
    ]


def test_an_unknown_device() -> None:
    with pytest.raises(DocumentError) as caught:
        device.load("h801")
    legal = ", ".join(device.available())
    assert str(caught.value) == f"<mapping>: unknown device 'h801', did you mean 'h800'? legal: {legal}"


@pytest.mark.parametrize(("change", "factor"), [
    ({"sms": 66}, 0.5), ({"clock": "0.915 GHz"}, 0.5), ({"sms": 264, "clock": "0.915 GHz"}, 1.0), ({"sms": 132}, 1.0),
])  # fmt: skip
def test_peaks_follow_sms_and_clock(change: dict[str, object], factor: float) -> None:
    """An SM does as much in a cycle as before; the source says so, once, also when it is read again."""
    whole = device.following(expand(Document({"base": "h800", **change}), device.SHELF))
    found = device.build(whole)
    for name, peak in device.load("h800").peak_flops.items():
        assert found.peak_flops[name] == pytest.approx(peak * factor, rel=1e-12)
        follows = found.figures[f"peak_flops.{name}"].source.count(device.FOLLOWS)
        assert follows == (1 if change != {"sms": 132} else 0)


def test_peaks_that_are_stated_stay_and_those_of_documents_that_ship_too() -> None:
    stated = device.build(Document({"base": "h800", "sms": 66, "peak_flops": {"bf16": "989 TFLOP/s"}}))
    assert (stated.peak_flops["bf16"], stated.peak_flops["fp8"]) == (989e12, 1979e12 / 2)
    for name in device.available():
        sources = [figure.source for figure in device.load(name).figures.values()]
        assert not any(source.startswith(device.FOLLOWS) for source in sources)


def test_dies_and_a_cache_that_they_share() -> None:
    """Of AMD's cards and Blackwell; what a kernel re-uses is in the last cache before the memory."""
    assert {name: device.load(name).dies for name in ("h200", "b200", "gb300", "mi300x", "mi355x")} == {
        "h200": 1, "b200": 2, "gb300": 2, "mi300x": 8, "mi355x": 8,
    }  # fmt: skip
    amd, nvidia = device.load("mi300x"), device.load("b200")
    assert amd.l3 is not None and amd.cache == amd.l3 and amd.l3.capacity_bytes == 8 * amd.l2.capacity_bytes
    assert nvidia.l3 is None and nvidia.cache == nvidia.l2
    with pytest.raises(DocumentError, match=r"l3\.latency: missing"):
        device.build(Document({"base": "h800", "l3": {"capacity": "1 GB", "bandwidth": "4 TB/s"}}))


def test_an_ascend_910b_has_two_levels_of_buffers_and_says_how_it_is_known() -> None:
    """Figures of CH-910B-BUF; 910B2 has 24 cores of the same rate."""
    own = device.load("ascend_910b3")
    assert (own.sms, own.l2.capacity_bytes) == (20, 192 << 20) and "fp8" not in own.peak_flops
    assert (own.registers.capacity_bytes, own.shared_memory.capacity_bytes) == (256 << 10, 512 << 10)
    assert own.peak_flops["bf16"] == pytest.approx(2 * 16**3 * 20 * 1.8e9, rel=1e-3)
    bigger = device.build(Document({"base": "ascend_910b3", "sms": 24}))
    assert bigger.peak_flops["bf16"] == pytest.approx(353.9e12, rel=1e-3)
    kinds = {key: figure.kind for key, figure in own.figures.items()}
    assert "datasheet" not in kinds.values() and {kinds[f"{level}.latency"] for level in ("l2", "hbm")} == {"assumed"}
