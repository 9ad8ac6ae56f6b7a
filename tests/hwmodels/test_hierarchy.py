"""Levels of the memory hierarchy in other technologies, against the published figures."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import device, fabric, hierarchy, memory, node
from hwmodels.collectives import wires
from hwmodels.document import Document, DocumentError
from hwmodels.hierarchy import EDRAM, SRAM, STT, TECHNOLOGIES, array
from hwmodels.op import Gemm
from hwmodels.price import Pricer
from hwmodels.units import GIB, KIB, MIB, NANO

H800_WIRES = wires(node.load("h800x8"), fabric.load("mpft"))
sizes = st.floats(8 * KIB, GIB)


def build(**levels: object) -> device.Device:
    return device.build(Document({"base": "h800", "hierarchy": levels}))


@pytest.mark.parametrize(
    ("kib", "ns", "nj"), [(32, 0.219, 0.0095), (512, 0.814, 0.0626), (1024, 1.109, 0.115), (131072, 8.549, 1.58)]
)
def test_sram_is_what_cacti_says(kib: int, ns: float, nj: float) -> None:
    own = array(SRAM, kib * KIB)
    assert own.read_s == pytest.approx(ns * NANO) and own.read_j == pytest.approx(nj * NANO)


def test_the_published_law_of_access_time() -> None:
    """t = -0.027 + 0.0549 KB^0.43 ns within 5 % from 32 KB to 128 MB, and exponents of 0.44 and 0.60 over all."""
    for kib in (32, 64, 200, 512, 3000, 16384, 50_000, 131072):
        assert array(SRAM, kib * KIB).read_s / NANO == pytest.approx(-0.027 + 0.0549 * kib**0.43, rel=0.05)
    low, high = array(SRAM, 32 * KIB), array(SRAM, 128 * MIB)
    assert high.read_s / low.read_s == pytest.approx(4096**0.44, rel=0.02)
    assert (high.read_j or 0) / (low.read_j or 1) == pytest.approx(4096**0.60, rel=0.15)  # its ends


def test_technologies_cross_where_they_are_published_to() -> None:
    assert array(EDRAM, MIB).read_s == pytest.approx(array(SRAM, MIB).read_s, rel=0.05)
    assert array(EDRAM, MIB / 2).read_s > array(SRAM, MIB / 2).read_s
    assert array(SRAM, 32 * MIB).read_s / array(EDRAM, 32 * MIB).read_s == pytest.approx(1.49, rel=0.01)
    assert array(STT, 128 * MIB).read_s == pytest.approx(array(SRAM, 128 * MIB).read_s)
    assert array(STT, 127 * MIB).read_s > array(SRAM, 127 * MIB).read_s
    assert array(STT, 129 * MIB).read_s < array(SRAM, 129 * MIB).read_s


@given(sizes)
def test_writes_of_stt_are_slower_three_to_thirteen_times(size: float) -> None:
    own, other = array(STT, size), array(SRAM, size)
    assert own.write_s is not None and other.write_s is not None
    if 2 * MIB <= size <= 128 * MIB:
        assert 3 < own.write_s / other.write_s < 13


@given(sizes, sizes, st.sampled_from(TECHNOLOGIES))
def test_more_is_slower_larger_and_leaks_more(one: float, two: float, technology: str) -> None:
    small, large = (array(technology, size) for size in sorted((one, two)))
    for less, more in zip(small, large, strict=True):
        assert (less is None) == (more is None) and (less is None or less <= (more or 0) * (1 + 1e-12))


def test_area_and_leakage_of_published_arrays() -> None:
    own, other = array(EDRAM, 64 * MIB), array(SRAM, 64 * MIB)
    assert other.area_mm2 / own.area_mm2 == pytest.approx(3.9, rel=0.01)
    assert other.leakage_w / own.leakage_w == pytest.approx(32, rel=0.01)
    stt = array(STT, 32 * MIB)
    assert (stt.area_mm2, stt.leakage_w) == (pytest.approx(7.66), pytest.approx(7.5))


@pytest.mark.parametrize(
    "levels", [{}, {"l2": {"technology": "sram"}}, {"l2": {"capacity": "50 MiB"}}, {"l2": {}, "shared_memory": {}}]
)
def test_what_is_there_changes_nothing(levels: dict[str, object]) -> None:
    own, shipped = build(**levels), device.load("h800")
    assert own == shipped and own.figures == shipped.figures


@pytest.mark.parametrize("technology", [EDRAM, STT])
def test_only_the_arrays_part_of_a_latency_is_another(technology: str) -> None:
    own, shipped = build(l2={"technology": technology}), device.load("h800")
    more = array(technology, 50 * MIB).read_s - array(SRAM, 50 * MIB).read_s
    assert own.l2.latency_s - shipped.l2.latency_s == pytest.approx(more)
    assert own.hbm.latency_s - shipped.hbm.latency_s == pytest.approx(more)
    assert abs(more) < 0.05 * shipped.l2.latency_s
    assert own.l2.bandwidth_bytes_per_s <= shipped.l2.bandwidth_bytes_per_s
    assert "stt" not in own.figures["l2.capacity"].source or technology == STT
    others = {each.name for each in fields(own)} - {"l2", "hbm", "figures"}
    assert all(getattr(own, name) == getattr(shipped, name) for name in others)


def test_kernels_wait_for_the_array_once() -> None:
    """A kernel of one launch takes longer by what HBM answers later, and a slower array is never faster."""
    ops = [Gemm(4096, 4096, 4096), Gemm(128, 512, 7168)]
    for op in ops:
        plain, slow, quick = (
            Pricer(own, H800_WIRES, 20).price(op).ns
            for own in (device.load("h800"), build(l2={"technology": STT}), build(l2={"technology": EDRAM}))
        )
        assert quick <= plain <= slow <= plain + 2 * 1.5


def test_smaller_caches_move_no_less() -> None:
    op = Gemm(8192, 8192, 8192)
    large = build(l2={"capacity": "50 MiB"})
    assert memory.traffic(large, op) == memory.traffic(device.load("h800"), op)
    halved = replace(large, l2=replace(large.l2, capacity_bytes=large.l2.capacity_bytes // 2))
    assert memory.traffic(halved, op) >= memory.traffic(large, op)


@pytest.mark.parametrize(
    ("levels", "line"),
    [
        ({"l4": {}}, "hierarchy.l4: unknown level 'l4'; legal: l2, l3, shared_memory"),
        ({"l2": {"technology": "edrm"}}, "did you mean 'edram'?"),
        ({"l2": {"capacity": "0 B"}}, "hierarchy.l2.capacity: found '0 B'; legal: above 0"),
        ({"l2": {"capacity": "3"}}, "needs a unit"),
        ({"l2": {"size": 3}}, "unknown key 'size'"),
        ({"l2": 3}, "expected technology and capacity; found 3"),
        ({"l3": {"technology": "edram"}}, "hierarchy.l3: the device has no l3"),
    ],
)
def test_what_cannot_be_is_a_line(levels: dict[str, object], line: str) -> None:
    with pytest.raises(DocumentError) as error:
        build(**levels)
    (problem,) = error.value.problems
    assert line in f"{problem.key}: {problem.message}"


def table() -> str:
    """Rows of docs/HIERARCHY.md."""
    lines, names = [], {SRAM: "SRAM", EDRAM: "eDRAM", STT: "STT-MRAM"}
    for size in (32 * KIB, MIB, 2 * MIB, 32 * MIB, 50 * MIB, 128 * MIB, 200 * MIB):
        for technology, name in names.items():
            own = hierarchy.array(technology, size)
            times = [None if each is None else each / NANO for each in own[:3]]
            cells = [f"{each:.3g}" if each else "" for each in (*times, own.area_mm2, own.leakage_w)]
            shown = f"{size / MIB:g} MiB" if size >= MIB else f"{size / KIB:g} KiB"
            lines.append(f"| {name}, {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_page_has_these_arrays() -> None:
    assert table() in (Path(__file__).parents[2] / "docs" / "HIERARCHY.md").read_text(encoding="utf-8")
    assert hierarchy.array(hierarchy.SRAM, 50 * MIB).read_s / 143.7e-9 == pytest.approx(0.04, abs=0.005)
