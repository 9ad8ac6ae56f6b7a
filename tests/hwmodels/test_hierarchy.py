"""Levels of the memory hierarchy in other technologies, against the published figures."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import device, fabric, hierarchy, memory, node, reuse
from hwmodels.collectives import wires
from hwmodels.document import Document, DocumentError
from hwmodels.hierarchy import EDRAM, SRAM, STT, TECHNOLOGIES, array
from hwmodels.op import Attention, Gemm, GroupedGemm
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


side = st.integers(1, 200).map(lambda n: 64 * n)
products = st.builds(
    lambda m, n, k, precision: Gemm(m, n, k, precision=precision), side, side, side, st.sampled_from(["fp8", "bf16"])
)
grouped = st.builds(
    lambda groups, rows, n, k, role: GroupedGemm(groups, groups * rows * 128, n * 128, k * 128, role),
    st.integers(1, 64), *[st.integers(1, 60)] * 3, st.sampled_from(["fprop", "wgrad"]),
)  # fmt: skip
attentions = st.builds(
    lambda direction, heads, share, length, causal: Attention(
        direction, 1, heads * share, 128 * length, 128, 128, causal, kv_heads=heads
    ),
    st.sampled_from(["forward", "backward"]), st.integers(1, 16), st.integers(1, 8), st.integers(1, 300), st.booleans(),
)  # fmt: skip
ops = products | grouped | attentions
SHIPPED = device.load("h800")


def with_cache(size: float) -> device.Device:
    """An H800 of which nothing but the cache's size is another."""
    return replace(SHIPPED, l2=replace(SHIPPED.l2, capacity_bytes=round(size)))


@settings(max_examples=40, deadline=None)
@given(ops, sizes, sizes)
def test_larger_caches_hit_more_and_are_not_slower(op: Gemm | GroupedGemm | Attention, one: float, two: float) -> None:
    less, more = sorted((one, two))
    small, large = (reuse.from_hbm(with_cache(size), op, size) for size in (less, more))
    assert op.bytes() <= large <= small and large >= memory.traffic(with_cache(more), op)
    assert 0 <= reuse.hits(with_cache(less), op) <= reuse.hits(with_cache(more), op) < 1
    assert (
        Pricer(with_cache(more), H800_WIRES, 20).price(op).ns <= Pricer(with_cache(less), H800_WIRES, 20).price(op).ns
    )


def test_what_another_cache_does_to_a_product_and_to_attention() -> None:
    for op in (Gemm(8192, 8192, 8192), Attention("forward", 1, 128, 16384, 192, 128), GroupedGemm(8, 8192, 4096, 7168)):
        prices = [Pricer(build(l2={"capacity": f"{size} MiB"}), H800_WIRES, 20).price(op) for size in (2, 25, 50, 400)]
        times = [price.ns for price in prices]
        assert times[0] > 1.005 * times[-1] and times[-1] <= times[2] + 20  # ns: its array answers later
        assert [price.rung == "transferred" for price in prices] == [True, True, False, True]
        assert prices[2] == Pricer(device.load("h800"), H800_WIRES, 20).price(op)
        assert "with a cache of 25 MiB" in prices[1].source


def oldest_forgotten(room: int, down: int, across: int, sms: int) -> int:
    """Panels, each a tile's rows or columns over all k, that a cache of so many fetches for the tiles of a product, a
    wave of them after another: it forgets what was asked for longest ago."""
    order = [(i, j) for top in range(0, down, reuse.GROUP) for j in range(across)
             for i in range(top, min(down, top + reuse.GROUP))]  # fmt: skip
    held, fetched = list[tuple[str, int]](), 0
    for at in range(0, len(order), sms):
        for panel in dict.fromkeys(
            (*(("a", i) for i, _ in order[at : at + sms]), *(("b", j) for _, j in order[at : at + sms]))
        ):
            fetched += panel not in held
            held = [*(each for each in held if each != panel), panel][-room:]
    return fetched


@pytest.mark.parametrize(("down", "across"), [(16, 66), (32, 33), (8, 132), (64, 16)])
def test_reuse_is_that_of_a_cache_panel_by_panel(down: int, across: int) -> None:
    """With room for all as many as there are; with room for a band and some waves each band fetches all columns again;
    with less never fewer than are told, for ours keeps what fits of what does not fit whole."""
    own, k = SHIPPED, 1024
    op = Gemm(128 * down, 128 * across, k)
    wide = round(own.sms / reuse.GROUP)
    panel = 128.0 * k
    least = op.bytes() - panel * (down + across)
    for room in (reuse.GROUP + 3 * wide, down + across - 1, down + across):
        told = (reuse.from_hbm(own, op, room * panel) - least) / panel
        assert told <= oldest_forgotten(room, down, across, reuse.GROUP * wide) + 1e-6
    assert told == down + across == oldest_forgotten(down + across, down, across, reuse.GROUP * wide)
    bands = -(-down // reuse.GROUP)
    assert oldest_forgotten(reuse.GROUP + 3 * wide, down, across, reuse.GROUP * wide) <= down + bands * across


@pytest.mark.parametrize("name", device.available())
def test_a_card_as_it_ships_has_the_cache_that_its_kernels_were_timed_with(name: str) -> None:
    own = device.load(name)
    assert own.timed_cache == own.cache.capacity_bytes
    assert device.build(Document({"base": name, "name": "mine", "l2": {"capacity": "1 MiB"}})).timed_cache in (
        own.timed_cache, 0
    )  # fmt: skip


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
