"""What an operation costs on a device, and how that price came about.

Where a library is named, its kernels' tables are asked first, the device's and its siblings' (`hwmodels.library`); what
they lack is priced by the project's own.

The ladder: measured (this very shape) -> interpolated (between measured shapes, by a model of the kernel) -> held
(beyond the measured range, utilisation held) -> transferred (from a sibling device or format, utilisation held) ->
roofline (peaks and bandwidth alone) -> refused. Every price says its rung, its table and row, and its relative spread.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from hwmodels import kernels, library, scan, sibling, unlike
from hwmodels import tables as calibration
from hwmodels.attention import CUDNN
from hwmodels.beside import contention_family
from hwmodels.blocks import BLOCKS, FP8, at_peak
from hwmodels.collectives import ENOUGH_SMS, Wires, exchange_seconds
from hwmodels.device import Device
from hwmodels.kernels import Kernels
from hwmodels.links import PUBLISHED, over_links
from hwmodels.memory import first_bytes_us, streaming, traffic, without_sums
from hwmodels.nccl.library import Library
from hwmodels.node import Launch
from hwmodels.op import AllToAll, Attention, Collective, Gemm, GroupedGemm, HostCopy, HostUpdate, Memory, Op, Send
from hwmodels.refused import Refused
from hwmodels.reuse import reread
from hwmodels.tables import Tables, role_class
from hwmodels.transfer import Quote, scaled
from hwmodels.units import MICRO, US_NS, seconds_to_ns

TILE = 128
"""Output tile side of the FP8 GEMM kernels in the profile, and their K block."""
RUNGS = ("measured", "interpolated", "held", "transferred", "roofline", "assumed")
SPREAD = {"measured": 0.03, "interpolated": 0.06, "held": 0.25, "transferred": 0.25, "roofline": 1.0, "assumed": 0.5}
"""Relative standard deviation of a price when its table gives none: leave-one-out errors by rung (docs/PRICES.md). The
roofline is a bound; products take about twice as long. `transferred` lies between the 8 % by which FP8 products miss
DeepGEMM's published rates and the 37 % by which BF16 ones miss three small products."""
REPEATS = 0.10
"""Spread of an exchange beside compute: its repeats in the profile differ by up to 7 %, the NIC figure is rounded."""
FEW_ROWS = 512
"""Products of fewer rows are outside what the wave model was measured on (docs/PRICES.md: small M misses by half)."""
FEW_SIZES = 4.0
"""Rows whose sizes span less than this factor cannot tell a fixed cost from a rate."""
TIMED_THERE = ("dispatch_layout",)
"""Kinds whose rows, in the tables of a profile (which hold exchanges), were measured on the communication stream beside
compute: nothing is left to slow them."""
BF16 = "bf16"
"""The wave model of BF16 products, in tables that have measured enough of them."""
ALL_KERNELS = ("routing_forward", "routing_backward")
"""Memory-bound kinds whose fixed cost is that of all their kernels together; others' is that of one."""
LIKE = {"concatenate": "copy", "strided": "copy", "tiny": "tiny", "memset": "tiny"}
"""First words of memory-bound kinds that no table holds, and the kind whose rate they take; others: elementwise."""
OVER_LINKS = (AllToAll, Send, Collective, HostCopy)
"""Operations whose prices depend on links."""
OFF_DEVICE = (*OVER_LINKS, HostUpdate)
"""Operations that wait for no memory of the device."""
PACED = (Gemm, GroupedGemm, Attention)
"""Operations whose prices depend on how many SMs they have, and on their clock."""


class Price(NamedTuple):
    """Nanoseconds alone and beside the other side (compute beside communication and the reverse); rung; source."""

    ns: int
    beside_ns: int
    rung: str
    source: str
    spread: float
    family: str


def waves(m: float, n: float, sms: int) -> int:
    """Rounds in which `sms` processors work through the 128 x 128 tiles of an [m, n] product."""
    return -(-int(-(-m // TILE) * -(-n // TILE)) // sms)


@dataclass(frozen=True)
class Pricer:
    """Prices for one device, the links around it, and a split of its SMs. mode: measured (the whole ladder), fitted
    (kernel models, no exact rows) or roofline. exchange: seconds of an all-to-all alone on so many SMs. held: whether
    communication has its SMs all the time, or only while a kernel of it runs. waits: for peers before an exchange
    beside compute, as long as in the table's profile. host: what launches kernel by kernel, or None. library: whose
    kernels run, a folder in a device's tables ("": the project's own). nccl: what sends and reduces; None: closed
    forms. attention: whose kernel of it runs, of `hwmodels.attention`. own: tables of a trace, as JSON, which are asked
    first ("": none). cards: that wait for each other, so that the slowest counts (`hwmodels.unlike`). clock: of the
    slowest, how many times as long as rested a library's products and attention take (`hwmodels.pace`); 0: midway, as
    tables have it. known: prices of operations. shared: those that do not depend on links, for pricers alike in all
    else. rows, still: what is made of prices that depend on links, and of others.
    """

    device: Device
    wires: Wires
    comm_sms: int
    mode: str = "measured"
    exchange: Callable[[AllToAll, Wires, int], float] = field(default=exchange_seconds, compare=False, repr=False)
    held: bool = True
    waits: bool = False
    host: Launch | None = None
    library: str = ""
    nccl: Library | None = None
    attention: str = CUDNN
    own: str = ""
    cards: int = 1
    clock: float = 0.0
    known: dict[tuple[Op, bool], Price] = field(default_factory=dict, init=False, compare=False, repr=False)
    shared: dict[tuple[Op, bool], Price] = field(default_factory=dict, init=False, compare=False, repr=False)
    rows: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    still: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def over(self, wires: Wires, kept: "Pricer | None" = None) -> "Pricer":
        """Pricer over other links, kept or new; what does not depend on them stays known."""
        other = kept or replace(self, wires=wires)
        other.known.update({key: price for key, price in self.known.items() if not isinstance(key[0], OVER_LINKS)})
        object.__setattr__(other, "still", self.still)
        return other

    @property
    def compute_sms(self) -> int:
        """SMs of compute while communication runs."""
        return self.device.sms - self.comm_sms

    @cached_property
    def free(self) -> "Pricer":
        """What prices compute while nothing communicates."""
        return self if self.held or not self.comm_sms else replace(self, comm_sms=0)

    @property
    def tables(self) -> Tables | None:
        """Tables that it prices by first."""
        return next(iter(self.shelf), None)

    @cached_property
    def shelf(self) -> tuple[Tables, ...]:
        """The device's tables and its siblings', in the order they are asked: the library's before the project's."""
        if self.mode == "roofline":
            return ()
        return (*([calibration.given(self.own)] if self.own else []), *kernels.shelf(self.device, self.library))

    @cached_property
    def published(self) -> Kernels | None:
        """The library's kernels on the device as they were published, where no tables of it are the device's own."""
        return None if self.mode == "roofline" else kernels.kernels(self.device, self.library)

    @cached_property
    def launch_gap_ns(self) -> int:
        """Idle time between two kernels of a stream (1.99 us in the H800 profile, 899 boundaries)."""
        libraries = [tables for tables in self.shelf if tables.library and (tables.launch_gap_us or not tables.sparse)]
        if libraries:
            return math.ceil(libraries[0].launch_gap_us * US_NS)
        name = self.device.tables or next(iter(self.device.siblings), "h800")
        return math.ceil(calibration.load(name).launch_gap_us * US_NS)

    def price(self, op: Op, on_comm_sms: bool = False) -> Price:
        """The price of `op`; `on_comm_sms`: on the communication stream, beside compute on its SMs. Raises Refused."""
        key = (op, on_comm_sms)
        if key not in self.known:
            self.known[key] = self.shared.get(key) or self._of_slowest(op, self._price(op, on_comm_sms))
            if not isinstance(op, OVER_LINKS):
                self.shared[key] = self.known[key]
        return self.known[key]

    def _price(self, op: Op, on_comm_sms: bool) -> Price:
        if isinstance(op, Gemm) and op.lent:  # on the SMs that it keeps, which those beside it take nothing from
            left, op = min(max(self.comm_sms, op.lent), self.device.sms - 1), op._replace(lent=0)
            kept = replace(self, comm_sms=left, held=True)._price(op, False)
            return kept._replace(beside_ns=max(kept.ns, self._price(op, False).beside_ns))
        tables, by = self.asked(op), self.free if isinstance(op, PACED) else self
        quote = _quote(by, tables, op)
        family = contention_family(op, quote.us)  # by its time on the table's device: a faster one changes no class
        us, rung, source, spread, _ = _settled(by, tables, op, quote)
        ns = max(1, seconds_to_ns(us * MICRO))
        slower = self._slow_down(tables, op, family)
        own = tables is not None and tables.library and any(family in t.contention for t in self.shelf if t.library)
        if by is not self and not own:  # beside communication it has fewer SMs, unless its table says what that costs
            us = _settled(self, tables, op, _quote(self, tables, op)).us
        if on_comm_sms and isinstance(op, Memory):
            timed_there = op.kind in TIMED_THERE and tables is not None and tables.exchanges
            slower = 1.0 if timed_there or not self.comm_sms else self.device.sms / self.comm_sms
        beside_us = us * slower + (calibration.wait_us(tables, op, self.device.name) if self.waits else 0.0)
        if not (kernels.fitted(self.published, tables, op) or scan.quote(self.device, tables, op)):
            off = kernels.spread(self.published, tables, op)
            rung, spread = (rung, off) if off else sibling.judged(self.device, tables, op, rung, spread)
            spread = math.hypot(spread, kernels.otherwise(self.device, tables, op, self.attention)[1])
        return Price(ns, max(1, seconds_to_ns(beside_us * MICRO)), rung, source, spread, family)

    def _of_slowest(self, op: Op, price: Price) -> Price:
        """A price of a mean card on the slowest that others wait for, and at the clock, where HBM is not what binds."""
        if not self.library or not isinstance(op, PACED) or ((tables := self.asked(op)) and tables.sparse):
            return price
        ratio, spread = unlike.off(self.device, self.cards)
        ratio = kernels.at(self.clock * (price.rung != "roofline"), self.published, self.device, tables, op) or ratio
        ns, beside_ns = round(price.ns * ratio), round(price.beside_ns * ratio)
        return price._replace(ns=ns, beside_ns=beside_ns, spread=math.hypot(price.spread, spread))

    def asked(self, op: Op) -> Tables | None:
        """The first tables that know the class of an operation; where none does, those of a job that have its kind at
        all, or the device's own."""
        own = next((tables for tables in self.shelf if not tables.library), None)
        first = next((tables for tables in self.shelf if calibration.knows(tables, op, self.mode)), None)
        far = (t for t in self.shelf if t.sparse and t.library and library.knows(t.library, op))
        if kernels.fitted(self.published, first, op):
            return next((tables for tables in self.shelf if kernels.stands(self.published, tables)), first)
        return first or next(far, own)

    def _slow_down(self, asked: Tables | None, op: Op, family: str) -> float:
        """How many times as long beside the other side. asked: the tables that the operation is priced by."""
        if isinstance(op, AllToAll) and family == "exchange":
            row = asked.exchanges.get(op.beside) if asked else None
            # the table's stretch is over the closed form; in-situ time stays what was measured, whatever the model
            bare = self.exchange(op, self.wires, ENOUGH_SMS)  # none where a group is one rank and only links count
            again = exchange_seconds(op, self.wires, ENOUGH_SMS) / bare if bare else 1.0
            # beside compute it leaves links idle for longer than other traffic needs them
            alone, shared = (self.exchange(op, wires, self.comm_sms)
                             for wires in (self.wires.alone, self.wires.shared))  # fmt: skip
            again *= alone / shared if shared else 1.0
            return max(1.0, float(row["stretch"]) * again) if row else 1.0
        first = next((i for i, tables in enumerate(self.shelf) if tables is asked), 0)
        # by the kernels that were priced: what another library's lose may hold the SMs that this price counts
        rows = (tables.contention.get(family) for tables in (*self.shelf[first:], *self.shelf[:first]))
        return next((float(row["factor"]) for row in rows if row), 1.0)


# --- compute ----------------------------------------------------------------------------------------------------------


def _peak(device: Device, precision: str) -> float:
    if precision not in device.peak_flops:
        legal = ", ".join(sorted(device.peak_flops))
        raise Refused(f"{device.name} has no {precision} tensor cores; legal precisions: {legal}")
    return device.peak_flops[precision]


def _roofline(pricer: Pricer, op: Op, peak: float) -> Quote:
    """Peak rate of the SMs compute may use, or memory bandwidth, whichever takes longer."""
    d = pricer.device
    flops = op.flop() / (peak * pricer.compute_sms / d.sms) if peak else 0.0
    seconds = max(flops, traffic(d, op) / streaming(d))
    return Quote(seconds / MICRO, "roofline", f"{d.name}: peak and HBM bandwidth", SPREAD["roofline"])


def _quote(pricer: Pricer, tables: Tables | None, op: Op) -> Quote:
    """What an operation takes on the device of its tables, or on the pricer's where its kernels were published."""
    d, exact, sms = pricer.device, pricer.mode == "measured", pricer.compute_sms
    if reading := kernels.quote(pricer.published, d, tables, op, exact, sms, pricer.attention, pricer.clock):
        return Quote(*reading)
    return _RULES[type(op)](pricer, tables, op)


def _settled(pricer: Pricer, tables: Tables | None, op: Op, quote: Quote) -> Quote:
    """A quote on the device it is for, with its memory."""
    if reading := scan.quote(pricer.device, tables, op):
        return Quote(*reading)
    d, part = pricer.device, tables.streamed if tables and quote.rung != "measured" else 1.0  # rows may be faster
    own, more = without_sums(d, op) if tables else (op, 0.0)
    if kernels.fitted(pricer.published, tables, op):
        return quote._replace(us=_no_faster(d, part, own, reread(d, own, quote, quote.us)).us + more)
    held = scaled(d, tables, quote, own.bytes(), kernels.reached(pricer.published, tables, own))
    quote = _no_faster(d, part, own, reread(d, own, held, sibling.paced(d, tables, own, held.us, pricer.compute_sms)))
    more += 0.0 if isinstance(op, OFF_DEVICE) else first_bytes_us(d, tables, op)
    return quote._replace(us=max(0.0, quote.us + more)) if more else quote


def _no_faster(d: Device, part: float, op: Op, quote: Quote) -> Quote:
    """No product takes less time than its bytes at a part of the device's bandwidth, such as streams measured reach."""
    if not isinstance(op, Gemm | GroupedGemm) or quote.us >= (floor := traffic(d, op) / (streaming(d) * part) / MICRO):
        return quote
    return quote._replace(us=floor, rung="roofline", source=f"{quote.source}, bound by HBM", spread=SPREAD["held"])


def _wave_us(tables: Tables, m: float, n: float, k: float, role: str, sms: int) -> float:
    fit = tables.wave_fit[role]
    return waves(m, n, sms) * (fit["a_us"] + fit["b_us"] * -(-k // TILE))


def _gemm(pricer: Pricer, tables: Tables | None, op: Gemm) -> Quote:
    peak = _peak(pricer.device, op.precision)
    if tables is None:
        return _roofline(pricer, op, peak)
    if op.precision in BLOCKS:
        return at_peak(pricer.device, op, _gemm(pricer, tables, op._replace(precision=FP8)))
    role = _wave_role(tables, op)
    row = tables.exact.get(op._replace(role=role_class(op.role))) if pricer.mode == "measured" else None
    if row:
        here, there = (_wave_us(tables, op.m, op.n, op.k, role, s) for s in (pricer.compute_sms, tables.sms))
        rung = "measured" if here == there else "interpolated"
        return Quote(row["us"] * here / there, rung, calibration.named(tables, "gemm", row), SPREAD[rung], op.precision)
    if op.precision != "fp8" and role != BF16:
        return _other_format(pricer, tables, op, op.m)
    us = _wave_us(tables, op.m, op.n, op.k, role, pricer.compute_sms)
    source = f"{tables.device}/gemm.json: wave model, {role}"
    less_than_a_wave = role == BF16 and waves(op.m, op.n, 1) < tables.sms
    if op.m < FEW_ROWS or less_than_a_wave:  # narrower tiles than the measured kernels' would be used
        return Quote(us, "held", source, SPREAD["held"], op.precision)
    return Quote(us, "interpolated", source, tables.wave_fit[role]["rms"], op.precision)


def _wave_role(tables: Tables, op: Gemm | GroupedGemm) -> str:
    """The wave model that a product goes by."""
    return BF16 if op.precision == BF16 and BF16 in tables.wave_fit else role_class(op.role)


def _other_format(pricer: Pricer, tables: Tables, op: Gemm | GroupedGemm, rows: float) -> Quote:
    """A BF16 product takes the FP8 wave model's forward utilisation at half the peak."""
    ref = tables.reference
    us = _wave_us(tables, rows, op.n, op.k, "fprop", pricer.compute_sms) * ref["fp8_flops"] / ref["bf16_flops"]
    source = f"{tables.device}/gemm.json: wave model, FP8 utilisation held for {op.precision}"
    return Quote(us, "transferred", source, SPREAD["transferred"], op.precision)


def _grouped(pricer: Pricer, tables: Tables | None, op: GroupedGemm) -> Quote:
    peak = _peak(pricer.device, op.precision)
    if tables is None:
        return _roofline(pricer, op, peak)
    if op.precision in BLOCKS:
        return at_peak(pricer.device, op, _grouped(pricer, tables, op._replace(precision=FP8)))
    role = _wave_role(tables, op)
    if op.precision != "fp8" and role != BF16:
        return _other_format(pricer, tables, op, op.rows)
    us = _wave_us(tables, op.rows, op.n, op.k, role, pricer.compute_sms)
    rows = tables.grouped.get((op.n, op.k), []) if pricer.mode == "measured" and role != BF16 else []
    source, spread = f"{tables.device}/gemm.json: wave model, {role}", tables.wave_fit[role]["rms"]
    if rows:
        off = [r["us"] / _wave_us(tables, r["rows"], op.n, op.k, role, tables.sms) for r in rows]
        us *= sum(off) / len(off)
        spread = SPREAD["measured"]
        source = f"{tables.device}/gemm.json: wave model through {len(rows)} measured row counts of n{op.n} k{op.k}"
    return Quote(us, "interpolated", source, spread, op.precision)


def _attention(pricer: Pricer, tables: Tables | None, op: Attention) -> Quote:
    """Utilisation of the measured kernel, held for other head counts and lengths, and for other numbers of SMs: it ran
    beside communication, on the SMs that leaves (tables.sms)."""
    if tables is None:
        return _roofline(pricer, op, _peak(pricer.device, BF16 if op.precision == BF16 else FP8))
    share = tables.sms / pricer.compute_sms
    row = tables.exact.get(op) if pricer.mode == "measured" else None
    if row:
        rung = "measured" if share == 1 else "interpolated"
        return Quote(row["us"] * share, rung, calibration.named(tables, "attention", row), SPREAD[rung], "bf16")
    row = tables.attention[op.direction][0]
    like = calibration.attention_of(row)
    rung = "interpolated" if op.flop() == like.flop() else "held"
    us = row["us"] * share * op.flop() / like.flop()
    return Quote(us, rung, calibration.named(tables, "attention", row), SPREAD[rung], "bf16")


def _memory(pricer: Pricer, tables: Tables | None, op: Memory) -> Quote:
    if tables is None:
        return _roofline(pricer, op, 0.0)
    if pricer.mode == "measured":
        if row := tables.exact.get(op):
            return Quote(row["us"], "measured", calibration.named(tables, "memory", row), SPREAD["measured"], "memory")
        if rows := calibration.near(tables, op):
            return _between(tables, op, rows)
    kinds = op.kind, LIKE.get(op.kind.partition("_")[0]), "elementwise"
    kind = next(kind for kind in kinds if kind in tables.memory_fit)
    fit = tables.memory_fit[kind]
    us = fit["fixed_us"] * (1 if kind in ALL_KERNELS else op.kernels)
    us += op.bytes() / fit["bytes_per_s"] / MICRO if fit["bytes_per_s"] else 0.0
    inside = fit["low_bytes"] <= op.bytes() <= fit["high_bytes"]
    rung = ("interpolated" if inside else "held") if kind == op.kind else "transferred"
    return Quote(us, rung, f"{tables.device}/memory.json: rate of {kind}", max(fit["rms"], SPREAD[rung]), "memory")


def _between(tables: Tables, op: Memory, rows: list[dict[str, Any]]) -> Quote:
    """Price on another number of rows: the fixed cost of its kind, and the mean rate of the measured ones."""
    fit = tables.memory_fit[op.kind]
    fixed = min(fit["fixed_us"], min(r["us"] for r in rows) / 2)
    if fit["high_bytes"] < FEW_SIZES * fit["low_bytes"]:
        fixed = min(fixed, tables.memory_fit["tiny"]["fixed_us"])
    rates = [(r["us"] - fixed) / (r["rows"] * (r["read"] + r["write"])) for r in rows]
    us = fixed + op.bytes() * sum(rates) / len(rates)
    counts = [r["rows"] for r in rows]
    rung = "interpolated" if min(counts) / 2 <= op.rows <= 2 * max(counts) else "held"
    source = f"{tables.device}/memory.json: {op.kind} at {len(rows)} row counts ({', '.join(rows[0]['names'])})"
    return Quote(us, rung, source, SPREAD["measured" if rung == "interpolated" else "held"], "memory")


def _exchange(pricer: Pricer, tables: Tables | None, op: AllToAll) -> Quote:
    seconds = pricer.exchange(op, pricer.wires.shared, pricer.comm_sms)
    source = "largest port load over effective bandwidth, no less than its warps can move"
    if tables is not None and op.beside in tables.exchanges:
        source += f", stretch beside compute from {tables.device}/exchange.json: {op.beside}"
        return Quote(seconds / MICRO, "interpolated", source, REPEATS)
    return Quote(seconds / MICRO, "roofline", source, PUBLISHED)


def _over_links(pricer: Pricer, tables: Tables | None, op: Send | Collective | HostCopy | HostUpdate) -> Quote:
    return Quote(*over_links(op, pricer.wires, pricer.device, pricer.nccl))


_RULES: dict[type, Callable[[Pricer, Tables | None, Any], Quote]] = {
    Gemm: _gemm, GroupedGemm: _grouped, Attention: _attention, Memory: _memory, AllToAll: _exchange,
    Send: _over_links, Collective: _over_links, HostCopy: _over_links, HostUpdate: _over_links,
}  # fmt: skip
