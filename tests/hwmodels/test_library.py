"""Prices by a library's kernels: rows cost themselves, what lies between comes back, what is missing is told."""

import math
from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import device, library, node, tables
from hwmodels.collectives import wires
from hwmodels.op import Attention, Collective, Gemm, GroupedGemm, Memory
from hwmodels.price import Pricer
from hwmodels.scan import BY_SMS
from hwmodels.units import seconds_to_ns

LINKS = wires(node.load("h200x8"), None)
TORCH = tables.load("h200/torch")
KERNELS = TORCH.library
assert KERNELS is not None
ROWS = [row for rows in KERNELS.classes.values() for row in rows]
REFERENCE = {"sms": 100, "bf16_flops": 1e15, "fp8_flops": 2e15, "hbm_bytes_per_s": 4e12}
SPREADS = {
    name: {"measured": 0.01, "interpolated": 0.02, "held": 0.03} for name in ("gemm", "grouped", "attention", "memory")
}
SQUARE = Gemm(4096, 4096, 4096, precision="bf16")


def pricer(name="h200", vendor="torch", sms=0, mode="measured"):
    return Pricer(device.load(name), LINKS, sms, mode, library=vendor)


def made(times):
    """A library of operations and how many times their bound they take."""
    rows = [(op, {"us": times_bound * library.bound_us(REFERENCE, op), "names": ["k"], "samples": 3})
            for op, times_bound in times]  # fmt: skip
    return library.measured("here", REFERENCE, rows, SPREADS)


@pytest.mark.parametrize("widths", [(192, 192), (160, 160)])  # wider, and as wide in all
def test_a_pair_of_widths_is_priced_by_rows_of_its_own(widths):
    """Another pair is another kernel: here one that takes twice as long over its bound, at every length."""
    own = [(Attention("backward", 1, 16, 2**n, 192, 128), 2.0) for n in range(10, 16)]
    other = [(Attention("backward", 2, 16, 2**n, *widths), 4.0) for n in range(10, 16)]
    asked = Attention("backward", 2, 16, 6000, 192, 128)
    found = library.quote(made(own + other), asked, True, 100).us / library.bound_us(REFERENCE, asked)
    assert found == pytest.approx(2.0, rel=0.1)


def test_mla_comes_back_from_rows_of_its_widths():
    """With a row left out, an H200's backward of 192 and 128; rows of 192 and 192, 1.7 times as slow, once made it 1.4
    times as long."""
    rows = [row for row in KERNELS.classes["attention", "backward", True, False] if row.row["qk"] == 192]
    offs = []
    for row in (row for row in rows if row.row["v"] == 128):
        op = library.operation(row.row)
        offs.append(library.quote(KERNELS, op, False, 132).us / row.row["us"] - 1)
    assert median(offs) < 0.05 and max(offs) < 0.25


def test_twice_the_heads_of_a_long_row_take_about_twice_its_time():
    """Short sequences and few heads, slower over their bound, are further neighbours of 128 heads and count little."""
    for direction in ("forward", "backward"):
        half, whole = (Attention(direction, 4, heads, 4096, 192, 128) for heads in (16, 32))
        us = KERNELS.exact[library.identity(half)]["us"]
        assert library.quote(KERNELS, whole, False, 132).us == pytest.approx(2 * us, rel=0.03)


# --- torch on an H200 -------------------------------------------------------------------------------------------------


def test_every_row_costs_what_was_measured_and_says_so():
    card = pricer()
    for row in ROWS[::7]:
        price = card.price(library.operation(row.row))
        assert price.ns == seconds_to_ns(row.row["us"] * 1e-6)
        assert price.rung == "measured" and price.source.startswith("h200/torch/")


def test_a_row_lies_between_the_two_states_that_were_measured():
    for row in ROWS:
        found = row.row
        if found["op"] == "memory" and found["kind"].startswith(BY_SMS):  # by a profiler, which has means alone
            continue
        assert found["low_us"] <= found["us"] * 1.001 and found["us"] <= found["high_us"] * 1.001, found
        assert found["samples"] >= 1 and found["names"]
    price = pricer().price(SQUARE)
    burst = KERNELS.exact[library.identity(SQUARE)]["burst_us"]
    assert price.ns / 1000 == pytest.approx(burst * math.sqrt(1.152), rel=1e-3)  # 1.15: company of products and sums
    assert 2 * 4096**3 / price.ns / 1000 == pytest.approx(731, rel=0.01)  # TFLOP/s, of 989


@pytest.mark.parametrize(("kind", "most", "most_95"), [
    (("gemm", "bf16", "fprop", False), 0.02, 0.11), (("gemm", "bf16", "dgrad", False), 0.02, 0.10),
    (("gemm", "bf16", "wgrad", False), 0.025, 0.11), (("attention", "forward", True, False), 0.045, 0.22),
    (("attention", "backward", True, False), 0.07, 0.42),  # of heads 160, 192 and 256 wide one kind each was timed
    (("grouped", "bf16", "fprop"), 0.05, 0.2),
    (("memory", "elementwise"), 0.03, 0.25), (("memory", "norm_forward"), 0.12, 0.25),
])  # fmt: skip
def test_a_row_that_is_left_out_comes_back(kind, most, most_95):
    offs = []
    for row in KERNELS.classes[kind]:
        op = library.operation(row.row)
        reading = library.quote(KERNELS, op, False, 132)
        offs.append(abs(math.log(reading.us / row.row["us"])))
    assert median(offs) < most
    assert sorted(offs)[int(0.95 * (len(offs) - 1))] < most_95


def test_directions_and_what_a_weight_gradient_is_written_in_have_rows_of_their_own():
    card = pricer()
    wgrad = Gemm(14336, 4096, 8192, "wgrad", "bf16", result="bf16")
    added = wgrad._replace(result="fp32")
    assert card.price(wgrad).ns < card.price(added).ns < 1.1 * card.price(wgrad).ns
    assert {card.price(op).rung for op in (wgrad, added)} == {"measured"}


def test_what_the_library_lacks_is_priced_by_the_projects_own():
    own, theirs = pricer(vendor=""), pricer()
    for op in (GroupedGemm(8, 8192, 4096, 7168), Collective("all_reduce", 1e9, 8, 1)):
        prices = (
            each.price(op)._replace(beside_ns=0) for each in (own, theirs)
        )  # beside compute the library's table says
        assert next(prices) == next(prices)
    assert theirs.launch_gap_ns == 1070


def test_without_a_library_nothing_of_it_is_asked():
    own = pricer(vendor="")
    assert [found.library for found in own.shelf] == [None] * 3
    assert [found.library is not None for found in pricer().shelf] == [True, False, False, False]
    assert pricer(mode="roofline").shelf == ()
    assert pricer(vendor="unheard_of").price(SQUARE) == own.price(SQUARE)


def test_another_memory_is_told():
    h200 = device.load("h200")
    faster = replace(h200, hbm=replace(h200.hbm, bandwidth_bytes_per_s=2 * h200.hbm.bandwidth_bytes_per_s))
    add = Memory("elementwise", 8192, 57344.0, 28672.0)
    here, there = (Pricer(card, LINKS, 0, library="torch").price(add) for card in (h200, faster))
    assert (here.rung, there.rung) == ("measured", "transferred")
    assert 0.5 * here.ns <= there.ns < 0.7 * here.ns


def test_fewer_sms_slow_products_and_not_what_streams():
    add, card, fewer = Memory("elementwise", 8192, 57344.0, 28672.0), pricer(), pricer(sms=32)
    assert fewer.price(SQUARE).ns == pytest.approx(card.price(SQUARE).ns * 132 / 100, rel=1e-5)
    assert fewer.price(SQUARE).rung == "interpolated"
    assert fewer.price(add) == card.price(add)


def test_a_fitted_price_knows_no_row_of_its_own():
    assert pricer(mode="fitted").price(SQUARE).rung == "interpolated"
    assert pricer(mode="fitted").price(SQUARE).ns == pytest.approx(pricer().price(SQUARE).ns, rel=0.05)


# --- made up ----------------------------------------------------------------------------------------------------------

SIDE = st.integers(64, 65536)


@given(SIDE, SIDE, SIDE, st.floats(1.0, 4.0))
def test_where_all_take_a_multiple_of_their_bound_so_does_what_lies_between(m, n, k, times):
    sizes = [(512, 512, 512), (8192, 8192, 8192), (4096, 1024, 8192), (1024, 16384, 2048)]
    small = made([(Gemm(*size, precision="bf16"), times) for size in sizes])
    op = Gemm(m, n, k, precision="bf16")
    reading = library.quote(small, op, True, 100)
    assert reading.us == pytest.approx(times * library.bound_us(REFERENCE, op), rel=1e-9)


def test_directions_without_rows_go_by_forward_and_pay_for_accumulation():
    small = made([(SQUARE, 1.25), (SQUARE._replace(m=8192), 1.5)])
    forward = library.quote(small, SQUARE, True, 100)
    assert library.quote(small, SQUARE._replace(role="dgrad"), True, 100).us == forward.us
    assert library.quote(small, SQUARE._replace(role="wgrad", result="bf16"), True, 100).us == forward.us
    added = library.quote(small, SQUARE._replace(role="wgrad"), False, 100).us
    assert added - library.quote(small, SQUARE, False, 100).us == pytest.approx(6 * 4096**2 / 3.2e12 * 1e6)
    assert not library.knows(small, SQUARE._replace(precision="fp8"))
    assert not library.knows(small, Attention("forward", 1, 8, 1024, 64, 64))


def test_far_from_all_rows_utilisation_is_held():
    small = made([(SQUARE, 1.5), (SQUARE._replace(n=8192), 1.5)])
    assert library.quote(small, SQUARE._replace(m=8000), True, 100).rung == "interpolated"
    far = library.quote(small, SQUARE._replace(m=64 * 4096), True, 100)
    assert (far.rung, far.spread) == ("held", 0.03)


def test_kinds_that_nobody_measured_stream_and_say_so():
    stream = Memory("elementwise", 4096, 8192.0, 4096.0)
    small = made([(stream, 1.25), (stream._replace(rows=8192), 1.25), (Memory("tiny", 1, 0.0, 0.0), 0.5)])
    unknown = library.quote(small, stream._replace(kind="unheard_of"), True, 100)
    assert (unknown.rung, unknown.spread, unknown.us) == (
        "transferred",
        0.5,
        library.quote(small, stream, True, 100).us,
    )
    assert library.quote(small, Memory("tiny_index", 1, 0.0, 0.0), True, 100).rung == "measured"
    assert library.knows(small, stream._replace(kind="unheard_of"))
    assert not library.knows(made([(SQUARE, 1.0)]), stream)


def test_the_same_chip_with_other_memory_is_another_card():
    h100 = pricer("h100").price(SQUARE)
    assert (h100.rung, h100.ns, h100.spread) == ("transferred", pricer().price(SQUARE).ns, 0.08)


# --- windows ----------------------------------------------------------------------------------------------------------


def test_a_window_costs_as_short_sequences_whose_queries_meet_as_many_blocks():
    """64 heads of 64, a window of 128 of 4,096 keys: a query sees 126 on average, its blocks hold 126 + 128 (both edges
    cut through one); in a causal sequence of 376 they hold 188 + 64."""
    narrow = Attention("forward", 4, 64, 4096, 64, 64, kv_heads=8, window=128)
    short = Attention("forward", 44, 64, 376, 64, 64, kv_heads=8)
    assert library.stretches(narrow) == short
    for direction in ("forward", "backward"):
        one, other = (pricer().price(op._replace(direction=direction)) for op in (narrow, short))
        assert one.ns == other.ns and one.rung == "held"


@pytest.mark.parametrize("name", ["h100", "h200", "b200", "gb300", "a100"])
@pytest.mark.parametrize("window", [64, 128, 1024, 4096])
def test_a_window_costs_no_less_than_its_bytes_and_no_more_than_all_keys(name: str, window: int):
    card = pricer(name)
    for direction in ("forward", "backward"):
        whole = Attention(direction, 2, 32, 8192, 64, 64, kv_heads=8)
        narrow = whole._replace(window=window)
        price = card.price(narrow)
        assert narrow.bytes() / device.load(name).hbm.bandwidth_bytes_per_s * 1e9 <= price.ns
        assert price.ns < card.price(whole).ns
        assert price.ns <= card.price(whole._replace(window=2 * window)).ns


def test_a_window_over_all_keys_is_a_sequence():
    whole = Attention("forward", 2, 32, 4096, 64, 64)
    assert library.stretches(whole._replace(window=4096)) == whole
