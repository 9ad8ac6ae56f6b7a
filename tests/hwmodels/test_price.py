"""The price ladder: every rung is reached and named, measured shapes cost their rows, more hardware is never slower."""

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import fabric, node, op, tables
from hwmodels.beside import contention_family
from hwmodels.collectives import exchange_seconds, wires
from hwmodels.device import Device
from hwmodels.formats import PLAIN_E4M3
from hwmodels.links import PUBLISHED
from hwmodels.op import AllToAll, Attention, Collective, Gemm, GroupedGemm, HostCopy, HostUpdate, Memory, Op, Send
from hwmodels.price import RUNGS, SPREAD, Price, Pricer, waves
from hwmodels.refused import Refused
from hwmodels.units import seconds_to_ns

FABRIC = fabric.load("mpft")
H800 = node.load("h800x8")
LINKS = wires(H800, FABRIC)
TABLES = tables.load("h800")
FPROP, WGRAD = TABLES.wave_fit["fprop"], TABLES.wave_fit["wgrad"]
MEASURED = [o for o in TABLES.exact if not isinstance(o, GroupedGemm)]
GROUPED = [o for o in TABLES.exact if isinstance(o, GroupedGemm)]
Q_A = Gemm(4096, 1536, 7168)
FLASH = Attention("forward", 1, 128, 4096, 192, 128)
DISPATCH = AllToAll("dispatch", "dispatch(F)", 4096, 7464.0, 3.96, 7.49, 64, 8)


def pricer(device: Device = H800.device, sms: int = 20, mode: str = "measured") -> Pricer:
    return Pricer(device, LINKS, sms, mode)


def of_node(name: str, mode: str = "measured") -> Pricer:
    return pricer(node.load(name).device, mode=mode)


def alone() -> Pricer:
    """An H800 that no other card's tables help."""
    return pricer(replace(H800.device, siblings=()))


def own(name: str) -> Pricer:
    """A card priced by what was measured on it, whatever kernels that were."""
    device = node.load(name).device
    return pricer(replace(device, tables=name[:-2], siblings=()))


def ns(us: float) -> int:
    return seconds_to_ns(us * 1e-6)


# --- waves ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n", "sms", "expected"), [
    (1, 1, 112, 1), (128, 128, 1, 1), (129, 128, 1, 2), (4096, 1536, 112, 4), (4096, 576, 112, 2),
    (4096, 7168, 112, 16), (4097, 7168, 112, 17), (4096, 24576, 132, 47), (32768, 4096, 112, 74),
])  # fmt: skip
def test_waves_by_hand(m: int, n: int, sms: int, expected: int) -> None:
    assert waves(m, n, sms) == expected


@given(st.integers(1, 70_000), st.integers(1, 33_000), st.integers(1, 132))
def test_waves_are_just_enough(m: int, n: int, sms: int) -> None:
    tiles = ceil(m / 128) * ceil(n / 128)
    assert (waves(m, n, sms) - 1) * sms < tiles <= waves(m, n, sms) * sms


# --- the rungs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", MEASURED, ids=lambda o: "-".join(map(str, o)))
def test_the_shapes_of_the_profile_cost_what_was_measured(shape: Op) -> None:
    row, found = TABLES.exact[shape], pricer().price(shape)
    assert (found.ns, found.rung) == (ns(row["us"]), "measured")
    assert all(name in found.source for name in row["names"])
    assert f"({row['samples']} samples)" in found.source and found.source.startswith("h800/")


@pytest.mark.parametrize("shape", GROUPED, ids=lambda o: f"{o.rows}x{o.n}x{o.k}")
def test_grouped_products_go_through_the_measured_row_counts(shape: GroupedGemm) -> None:
    """Within their scatter, and on average exactly."""
    row, found = TABLES.exact[shape], pricer().price(shape)
    assert found.rung == "interpolated"
    assert found.ns == pytest.approx(ns(row["us"]), rel=0.04)
    rows = TABLES.grouped[shape.n, shape.k]
    off = [r["us"] * 1e3 / pricer().price(shape._replace(rows=r["rows"])).ns for r in rows]
    assert sum(off) / len(off) == pytest.approx(1, abs=1e-5)
    assert f"{len(rows)} measured row counts of n{shape.n} k{shape.k}" in found.source


ELSEWHERE = Gemm(2048, 5120, 1000)
BF16 = Gemm(4096, 4096, 4096, "fprop", "bf16")
RUNG_CASES: list[tuple[str, Pricer, Op, str, str]] = [
    ("this very shape", pricer(), Q_A, "measured", "h800/gemm.json: q_a"),
    ("an input gradient", pricer(), Gemm(4096, 7168, 2048, "dgrad"), "measured", "shared_down"),
    ("another shape", pricer(), ELSEWHERE, "interpolated", "wave model, fprop"),
    ("another split of the SMs", pricer(sms=52), Q_A, "interpolated", "q_a"),
    ("other rows", pricer(), op.cast(6000, 7168), "interpolated", "memory.json: cast at 1 row counts"),
    ("another width", pricer(), op.cast(4096, 5000), "interpolated", "rate of cast"),
    ("far more rows", pricer(), op.cast(40_000, 7168), "held", "memory.json: cast at"),
    ("beyond all sizes", pricer(), op.cast(40_000, 9000), "held", "rate of cast"),
    ("other heads", pricer(), FLASH._replace(heads=64), "held", "flash_fwd"),
    ("fewer heads, more sequences", pricer(), FLASH._replace(heads=64, batch=2), "interpolated", "flash_fwd"),
    ("another format", pricer(), BF16, "transferred", "h100/gemm.json: wave model, bf16"),
    ("a sibling's row", pricer(), BF16._replace(n=129280, k=7168), "transferred", "h100/gemm.json: head"),
    ("another format, no sibling", alone(), BF16, "transferred", "held for bf16"),
    ("own tables first", own("h200x8"), op.cast(4096, 7168), "measured", "h200/memory.json: cast"),
    ("another kind", pricer(), Memory("adam", 10**6, 20.0, 14.0), "transferred", "rate of elementwise"),
    ("a sibling's product", of_node("h100x8"), Q_A, "transferred", "from h800 by fp8 rate"),
    ("a sibling's copy", of_node("h200x8"), op.cast(4096, 7168), "transferred", "from h800 by memory rate"),
    ("no tables", of_node("a100x8"), Gemm(4096, 4096, 4096, "fprop", "bf16"), "roofline", "A100"),
    ("tables not wanted", pricer(mode="roofline"), Q_A, "roofline", "H800"),
    ("models only", pricer(mode="fitted"), Q_A, "interpolated", "wave model, fprop"),
    ("a known exchange", pricer(), DISPATCH, "interpolated", "exchange.json: dispatch(F)"),
    ("links alone", pricer(), Send(1e6, True, True), "roofline", "effective bandwidth"),
]


@pytest.mark.parametrize(("where", "rung", "source"), [((c[1], c[2]), *c[3:]) for c in RUNG_CASES],
                         ids=[c[0] for c in RUNG_CASES])  # fmt: skip
def test_each_price_names_its_rung_and_its_source(where: tuple[Pricer, Op], rung: str, source: str) -> None:
    found = where[0].price(where[1])
    assert (found.rung, source in found.source) == (rung, True), found
    assert rung in RUNGS and found.spread > 0


def test_a_device_without_the_format_refuses() -> None:
    message = "A100 SXM 80 GB has no fp8 tensor cores; legal precisions: bf16, fp32, tf32"
    for refused in (Q_A, GroupedGemm(4, 32768, 4096, 7168)):
        with pytest.raises(Refused, match=message):
            of_node("a100x8").price(refused)


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_the_wave_model_by_hand() -> None:
    """Tiles 16 x 40 = 640 in 6 waves of 112; 8 K blocks of 128 for K = 1000."""
    assert pricer().price(ELSEWHERE).ns == ns(6 * (FPROP["a_us"] + 8 * FPROP["b_us"]))
    assert pricer().price(ELSEWHERE._replace(role="wgrad")).ns == ns(6 * (WGRAD["a_us"] + 8 * WGRAD["b_us"]))
    bf16 = 6 * (FPROP["a_us"] + 8 * FPROP["b_us"]) * 1979 / 989
    assert alone().price(ELSEWHERE._replace(precision="bf16")).ns == pytest.approx(ns(bf16), abs=1)


def test_a_measured_product_on_other_sms_keeps_its_distance_from_the_model() -> None:
    """384 tiles: 4 waves of 112, 5 of 80."""
    assert pricer(sms=52).price(Q_A).ns == pytest.approx(pricer().price(Q_A).ns * 5 / 4, abs=2)


@given(st.integers(1, 4), st.sampled_from([1, 2, 4, 8, 64, 128, 256]), st.integers(1, 64).map(lambda n: 256 * n))
def test_attention_holds_its_rate(batch: int, heads: int, sequence: int) -> None:
    found = pricer().price(Attention("forward", batch, heads, sequence, 192, 128))
    assert found.ns == pytest.approx(1234.0e3 * batch * heads / 128 * (sequence / 4096) ** 2, rel=1e-9, abs=1)


def test_the_roofline_of_an_a100() -> None:
    square = Gemm(4096, 4096, 4096, "fprop", "bf16")
    first = 330.7e-9  # a kernel waits for its first bytes from HBM
    assert of_node("a100x8").price(square).ns == seconds_to_ns(2 * 4096**3 / (312e12 * 88 / 108) + first)
    assert of_node("a100x8").price(op.cast(4096, 7168)).ns == seconds_to_ns(4096 * (14336 + 7392) / 2039e9 + first)


@pytest.mark.parametrize("kind", ["routing_forward", "routing_backward"])
def test_the_fit_of_routing_counts_all_its_kernels_at_once(kind: str) -> None:
    """The rows of its fit are sums over the gate's tiny kernels, however many those are."""
    book = replace(own("h200x8"), mode="fitted")
    for row in tables.load("h200").kinds[kind]:
        few, many = (book.price(op.small(kind, row["rows"], row["read"] + row["write"], n)).ns for n in (1, 37))
        assert few == many == pytest.approx(ns(row["us"]), rel=0.03)


def test_each_tiny_kernel_costs_its_launch() -> None:
    one, three = (pricer(mode="fitted").price(op.small("tiny", 1, 0.0, n)).ns for n in (1, 3))
    assert three == pytest.approx(3 * one, abs=2)


@pytest.mark.parametrize(("m", "n", "rung"), [
    (1024, 1024, "held"), (1280, 1664, "held"), (1408, 1536, "interpolated"), (2048, 4096, "interpolated"),
])  # fmt: skip
def test_the_wave_model_of_bf16_knows_a_wave_at_least(m: int, n: int, rung: str) -> None:
    """64, 130, 132 and 512 tiles on the 132 SMs that it was measured on; FP8 kernels keep their tiles."""
    book = replace(own("h200x8"), comm_sms=0, mode="fitted")
    assert book.price(Gemm(m, n, 4096, "fprop", "bf16")).rung == rung
    assert pricer().price(Gemm(m, n, 4096)).rung == "interpolated"


def test_communication_costs_what_the_links_say() -> None:
    quote = pricer().price(DISPATCH)
    assert quote.ns == seconds_to_ns(exchange_seconds(DISPATCH, LINKS, 20))
    assert quote.beside_ns == pytest.approx(quote.ns * TABLES.exchanges["dispatch(F)"]["stretch"], abs=2)
    for other in (Send(1e6, True, False), Collective("all_gather", 1e6, 8, 1), HostCopy(1e6)):
        assert pricer().price(other).beside_ns == pricer().price(other).ns


def test_the_host_updates_as_fast_as_its_memory_moves_bytes() -> None:
    """64 GB/s for one GPU (hwmodels/devices/h800.yaml): 28 bytes of a million parameters in 437.5 us."""
    both = pricer()
    copied, updated = (both.price(op).ns for op in (HostCopy(28e6), HostUpdate(28e6)))
    assert updated == 437_500 != copied == pricer().price(HostCopy(28e6)).ns


def test_launch_gaps_are_the_profile_s() -> None:
    assert {of_node(name).launch_gap_ns for name in ("h800x8", "h100x8", "a100x8")} == {1990}


# --- beside the other side --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "us", "family"), [
    (Q_A, 100.0, "gemm"), (Q_A._replace(role="wgrad"), 100.0, "wgrad"),
    (Q_A._replace(precision="bf16"), 9.0, "gemm_bf16"),
    (GroupedGemm(4, 32768, 4096, 7168), 1.0, "gemm"), (FLASH, 1.0, "attention"), (DISPATCH, 1.0, "exchange"),
    (op.cast(4096, 7168), 46.6, "memory"), (op.cast(4096, 512), 5.0, "small"), (op.norm(4096, 7168), 50.0, "norm"),
    (op.norm(4096, 7168, 3, 1, "backward"), 50.0, "norm"), (op.norm(4096, 512), 8.0, "small"),
    (op.small("routing_forward", 4096, 1024.0, 37), 239.2, "routing"), (HostCopy(1.0), 1.0, "network"),
])  # fmt: skip
def test_families_of_contention(shape: Op, us: float, family: str) -> None:
    assert contention_family(shape, us) == family


@pytest.mark.parametrize("shape", list(TABLES.exact), ids=lambda o: "-".join(map(str, o)))
def test_beside_communication_compute_slows_by_its_family_s_factor(shape: Op) -> None:
    found = pricer().price(shape)
    factor = TABLES.contention[found.family]["factor"]
    assert found.beside_ns >= found.ns
    assert found.beside_ns == pytest.approx(found.ns * factor, abs=2)


def test_a_cast_on_the_communication_stream_sees_only_its_sms() -> None:
    """The profile's clean proof of the split: about 50 us alone, 334 to 349 beside a GEMM on the other 112 SMs."""
    found = pricer().price(op.cast(4096, 7168), True)
    assert found.beside_ns == pytest.approx(found.ns * 132 / 20, abs=7)
    assert found.beside_ns == pytest.approx(342e3, rel=0.12)


# --- more hardware is never slower ------------------------------------------------------------------------------------

SHAPES = st.builds(
    Gemm, st.integers(1, 8192), st.integers(1, 8192), st.integers(1, 8192),
    st.sampled_from(["fprop", "dgrad", "wgrad"]), st.sampled_from(["fp8", "bf16"]), st.just(1),
) | st.sampled_from(list(TABLES.exact))  # fmt: skip


@settings(max_examples=60)
@given(SHAPES, st.integers(2, 100), st.sampled_from(["measured", "fitted", "roofline"]))
def test_sms_taken_from_communication_never_slow_compute(shape: Op, sms: int, mode: str) -> None:
    assert pricer(sms=sms - 1, mode=mode).price(shape).ns <= pricer(sms=sms, mode=mode).price(shape).ns


@settings(max_examples=40)
@given(SHAPES, st.integers(100, 200))
def test_a_larger_chip_of_the_same_sms_is_never_slower(shape: Op, sms: int) -> None:
    def chip(count: int) -> Pricer:
        peaks = {name: peak * count / 132 for name, peak in H800.device.peak_flops.items()}
        return pricer(replace(H800.device, sms=count, peak_flops=peaks))

    assert chip(sms + 1).price(shape).ns <= chip(sms).price(shape).ns + 1


def with_hbm(factor: float) -> Device:
    hbm = H800.device.hbm
    return replace(H800.device, hbm=replace(hbm, bandwidth_bytes_per_s=hbm.bandwidth_bytes_per_s * factor))


@given(st.floats(0.25, 8), st.sampled_from([o for o in TABLES.exact if isinstance(o, Memory)]))
def test_hbm_bandwidth_scales_what_is_bound_by_memory(factor: float, shape: Memory) -> None:
    before, after = pricer().price(shape), pricer(with_hbm(factor)).price(shape)
    least, most = sorted((before.ns / factor, before.ns))
    assert least - 1.001 - 1 / factor <= after.ns <= most + 1.001
    assert after.rung == ("transferred" if abs(factor - 1) > 1e-8 else "measured")


PRODUCTS = [Q_A, Gemm(4096, 7168, 576), Gemm(16, 129280, 7168, "fprop", "bf16"), ELSEWHERE]


@given(st.floats(0.02, 8), st.sampled_from(PRODUCTS))
def test_no_product_outruns_its_bytes_or_its_waves(factor: float, shape: Gemm) -> None:
    device = with_hbm(factor)
    measured = shape in TABLES.exact
    rate = device.hbm.bandwidth_bytes_per_s * (1.0 if measured else pricer().asked(shape).streamed)
    found, floor = pricer(device).price(shape).ns, shape.bytes() / rate * 1e9
    assert found >= floor - 1
    assert found == pytest.approx(max(floor, pricer(with_hbm(1e3)).price(shape).ns), abs=1.001)


def test_bytes_of_a_small_product_pass_as_fast_as_a_measured_stream() -> None:
    """85 % of an H800's 3.35 TB/s, what elementwise kernels of the profile reach; a roofline has the datasheet, and
    waits for its first bytes."""
    assert TABLES.streamed == pytest.approx(2857e9 / 3350e9, rel=1e-3)
    shape = Gemm(64, 32768, 512)
    assert pricer().price(shape).ns == pytest.approx(max(
        shape.bytes() / 2857e9 * 1e9, pricer(with_hbm(1e3)).price(shape).ns), rel=1e-3)  # fmt: skip
    bare = pricer(sms=2, mode="roofline").price(Gemm(8, 32768, 4096)).ns
    first = H800.device.hbm.latency_s * 1e9
    assert bare == pytest.approx(first + Gemm(8, 32768, 4096).bytes() / 3350e9 * 1e9, rel=1e-3)


def test_contention_goes_by_the_kernels_that_were_priced() -> None:
    """BF16 products by a card's wave model count the SMs that communication holds; the profile's factor would again."""
    head, gate = BF16._replace(n=129280, k=7168), Gemm(4096, 256, 7168, "fprop", "bf16")
    found = {shape: pricer().price(shape) for shape in (head, gate)}
    card = tables.load("h200").contention["gemm_bf16"]["factor"]
    assert found[head].beside_ns / found[head].ns == pytest.approx(card, rel=1e-4)
    assert found[gate].beside_ns / found[gate].ns == pytest.approx(TABLES.contention["gemm_bf16"]["factor"], rel=1e-3)


def test_an_input_gradient_of_the_gate_is_measured() -> None:
    assert pricer().price(Gemm(4096, 7168, 256, "dgrad", "bf16")).rung == "measured"
    assert pricer(mode="fitted").price(Gemm(256, 7168, 4096, "wgrad", "bf16")).source.startswith("h100/")


def test_hbm_bandwidth_leaves_products_alone() -> None:
    assert pricer(with_hbm(2)).price(Q_A) == pricer().price(Q_A)


@given(st.floats(1.01, 4))
def test_hbm_bandwidth_never_slows_the_roofline(factor: float) -> None:
    thin = Gemm(4096, 64, 64)
    slow, fast = (pricer(with_hbm(f), mode="roofline").price(thin) for f in (1, factor))
    assert fast.ns <= slow.ns


# --- memory of prices -------------------------------------------------------------------------------------------------


def test_a_price_is_made_once() -> None:
    book = pricer()
    assert book.price(Q_A) is book.price(Gemm(4096, 1536, 7168))
    assert book.price(op.cast(4096, 7168)) != book.price(op.cast(4096, 7168), True)


def test_prices_are_whole_and_positive() -> None:
    nothing: list[Op] = [Memory("cast", 0, 0.0, 0.0), Collective("all_gather", 1e9, 1, 1), Gemm(1, 1, 1)]
    for shape in nothing:
        found: Price = pricer().price(shape)
        assert isinstance(found.ns, int) and isinstance(found.beside_ns, int) and found.ns >= 1


# --- what is known to be wrong ----------------------------------------------------------------------------------------


def test_a_higher_fp8_peak_speeds_fp8_products_up() -> None:
    faster = replace(H800.device, peak_flops={**H800.device.peak_flops, "fp8": 2 * 1979e12})
    assert pricer(faster).price(Q_A).ns < pricer().price(Q_A).ns


def test_attention_is_faster_on_twice_the_chip() -> None:
    peaks = {name: 2 * peak for name, peak in H800.device.peak_flops.items()}
    twice = pricer(replace(H800.device, sms=264, peak_flops=peaks), sms=40)
    assert twice.price(FLASH).ns == pytest.approx(pricer().price(FLASH).ns / 2, rel=0.05)


def test_attention_pays_for_sms_given_to_communication() -> None:
    assert pricer(sms=60).price(FLASH).ns > pricer(sms=20).price(FLASH).ns


def test_the_dispatch_layout_beside_compute_is_what_the_profile_shows() -> None:
    (row,) = TABLES.kinds["dispatch_layout"]
    found = pricer().price(op.small("dispatch_layout", 4096, 1024.0), True)
    assert found.beside_ns <= ns(row["high_us"])


def test_a_changed_pricer_forgets_old_prices() -> None:
    book = pricer()
    book.price(Q_A)
    assert replace(book, comm_sms=100).price(Q_A).ns == pricer(sms=100).price(Q_A).ns


def test_recasting_has_its_own_rate() -> None:
    """A kind of its own: dequantise and quantise in one kernel is slower a byte than quantising."""
    plain, again = op.cast_transpose(65_536, 2048), op.cast_transpose(65_536, 2048, PLAIN_E4M3)
    rate = {o.kind: o.bytes() / pricer().price(o).ns for o in (plain, again)}
    assert rate["recast_transpose"] < rate["cast_transpose"]


# --- SMs that are held only while communication runs ------------------------------------------------------------------


@pytest.mark.parametrize("shape", [Q_A, Gemm(4096, 1536, 7168, "wgrad"), FLASH, GROUPED[0]])
def test_compute_has_all_sms_while_nothing_communicates(shape: Op) -> None:
    """Alone as on a chip that gives none away; beside communication as where they are held always."""
    always, none = pricer(), pricer(sms=0)
    running = replace(always, held=False)
    assert running.price(shape).ns == none.price(shape).ns < always.price(shape).ns
    assert running.price(shape).beside_ns == always.price(shape).beside_ns
    assert running.price(shape)[2:4] == none.price(shape)[2:4]  # its rung and source


@pytest.mark.parametrize("shape", [op.cast(4096, 7168), DISPATCH, Send(1e6, True, True), HostCopy(1e6)])
def test_what_sms_do_not_pace_costs_the_same_however_they_are_held(shape: Op) -> None:
    for on_comm_sms in (False, True):
        assert replace(pricer(), held=False).price(shape, on_comm_sms) == pricer().price(shape, on_comm_sms)


def test_measured_waits_are_added_to_exchanges_beside_compute_alone() -> None:
    """The means of four barriers each in the H800 profile; none in a group of one."""
    waiting = Pricer(H800.device, LINKS, 20, waits=True)
    barriers = {
        "combine(B)": (1008, 1315, 2245, 3807), "dispatch(F)": (1381, 1436, 2562, 3589),
        "dispatch(B)": (753, 1366, 1382, 973), "combine(F)": (1323, 2186, 3674, 3578),
    }  # fmt: skip
    for beside, us in barriers.items():
        exchange = DISPATCH._replace(beside=beside)
        a, b = pricer().price(exchange, True), waiting.price(exchange, True)
        assert b.ns == a.ns and b.beside_ns - a.beside_ns == pytest.approx(sum(us) / 4 * 1000, rel=1e-3)
        single = exchange._replace(group=1, group_nodes=1)
        assert waiting.price(single, True).beside_ns == pricer().price(single, True).beside_ns


def test_waits_that_no_table_has_are_refused() -> None:
    with pytest.raises(Refused, match=r"has waits before dispatch\(F\); legal: comm.waits none"):
        Pricer(H800.device, LINKS, 20, "roofline", waits=True).price(DISPATCH, True)


def test_a_closed_form_over_published_rates_is_three_times_as_unsure_as_a_measured_price() -> None:
    assert 3 * SPREAD["measured"] == PUBLISHED
