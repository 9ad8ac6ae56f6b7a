"""What cards say of prices (docs/PRICES.md): transfer between devices, contention, a push over NVLink, other kernels.

Parts of the page on prices (`page`), made from the tables that `python -m numerics calibrate --gpu` wrote.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from hwmodels import tables as calibration
from hwmodels.tables import Tables
from hwmodels.transfer import POWER, REACHED
from numerics.accuracy import siblings
from numerics.accuracy.errors import label
from numerics.accuracy.markdown import percent, prose, table
from numerics.accuracy.siblings import Both, by_side, score

PROFILED, WITH_TWO = "h800", "h200"
"""The device of the profile, and the one measured with two GPUs side by side."""
BETWEEN = """
This repository's kernels ran at the same shapes on an {cards}. Each operation is priced on one card from the other's
tables, so nothing but the card differs: SMs and peaks are the same, HBM has 3.35 and 4.8 TB/s. *by bandwidth* is what
the ladder did before: all time of a memory-bound kernel scaled by bandwidth. Now its bytes do, at {reached} of the data
sheet's rate (a copy's), and the rest stays; the two add with power {power}, chosen on these rows (hwmodels.transfer).
Rate and power trade against each other: left free, fits mostly take {refit}. Fitted without a kind, they bring
that kind back with {left} in the median of {kinds} kinds each way, at worst {worst} ({worst_kind}); kinds that one
kernel serves (casts and stores) share it. Products and attention have nothing fitted here.
"""
BESIDE = """
How many times as long compute takes beside communication. *profile*: fitted to a training step of 64 GPUs, at the
exchanges' own traffic. The other columns: an H200 whose 20 SMs push memory to a second one over NVLink, and receive as
much, at a set rate each way; at 0 the SMs are held (by 512 threads each, so small kernels may still join them) and
nothing moves. Nobody waits for a peer there, so it is contention alone. FP8 products run on the other 112 SMs in both
columns; attention and BF16 products run on all 132 and lose what is held, which prices count apart, so the table's
factor is what comes on top. Rows whose calls the host could not enqueue in time are left out.

The exchanges of the profile put about {like} GB/s each way on NVLink and {nic} on the NIC, and pass memory several
times on the way (send buffer, network buffer, forwarding, receiving), which a plain push does not, on memory that is
slower than an H200's. At that NVLink rate ({like_rate} GB/s) the push costs what memory binds {least} to {most} of the
profile's slow-down, and as much as in the profile at {slow} to {fast} GB/s, by class; that the rest of such a rate
stands for the profile's extra passes was not tested. Norms rest on {norms} rows and routing on {routings}. Products
slow by 1 % at most.
"""
STRETCH = """
The other way round, how many times as long a push at full rate takes beside the longest operation of a kind, repeated
until it outlasts the push. Beside products it is {products}, where the profile's exchanges take {profile} times as long
as they are priced alone: so most of that is not contention. Beside attention backward the push first waits for SMs
(its blocks fill all of them), beside BF16 products it does not end before they do, and has no row.
"""
PUSH = """
GB/s from one H200 to another over NVLink 4, one way, by SMs and warps an SM, four 16-byte loads a thread in flight. A
warp of eight moves {warp} GB/s; the model of the dispatch and combine kernels (sim/communication/exchange, fitted to
published B200 figures) takes {model} GB/s for the bytes of a row, and adds what flags and metadata cost, which a push
has not.
"""
MODELLED = 3.70
"""sim.communication.exchange.roles.COPY.rate in GB/s, which numerics may not import; a test compares."""
KERNELS = """
The profile's kernels are DeepSeek's, those of a card this repository's (docs/KERNELS.md). Where both ran an operation,
this is how many times as long ours takes on an H100, which computes like an H800, as the profile's price for it there.
Scenarios price Hopper nodes by the profile's kernels; `cluster.node.device.tables=h100` or `h200` takes ours instead.
"""


def between() -> str:
    """Transfer between the measured cards."""
    cells, fits, free = [], [], []
    for source, target in siblings.pairs():
        rows = siblings.transferred(source, target)
        fits += (here := siblings.refits(source, target))
        free.append(f"{_commonest(here)} for {source} to {target}")
        for side, group in sorted(by_side(rows).items(), key=lambda item: ORDER.index(item[0])):
            s, flat = score(group), score(_flat(group, source, target))
            cells.append([
                f"{source} to {target}", side, s.count, percent(s.median), percent(s.p95), percent(s.signed, True),
                percent(s.total, True), percent(flat.median) if side in ("stream", "latency") else "",
            ])  # fmt: skip
    worst = max(fits, key=lambda f: f.error)
    says = prose(
        BETWEEN, cards=" and an ".join(c.upper() for c in siblings.measured_cards()), reached=f"{REACHED:.0%}",
        power=f"{POWER:g}", refit=", ".join(free), left=percent(float(np.median([f.error for f in fits]))),
        kinds=len({f.kind for f in fits}),
        worst=percent(worst.error), worst_kind=worst.kind,
    )  # fmt: skip
    head = "tables to device | limited by | prices | median | p95 | signed median | total | by bandwidth, median"
    return f"{says}\n\n{table(head, cells)}"


def _commonest(fits: list[siblings.Fit]) -> str:
    (reached, power), _ = Counter((f.reached, f.power) for f in fits).most_common(1)[0]
    return f"{reached:.0%} and {power:g}"


ORDER = ("product", "attention", "stream", "latency")


def _flat(rows: Iterable[Both], source: str, target: str) -> list[Both]:
    """The same rows, with all of the source's time scaled by bandwidth."""
    old, new = (calibration.load(siblings.beside(card)) for card in (source, target))
    ratio = old.reference["hbm_bytes_per_s"] / new.reference["hbm_bytes_per_s"]
    return [replace(b, priced_us=old.exact[b.op]["us"] * ratio) for b in rows]


@cache
def _rows(device: str, name: str) -> list[dict[str, Any]]:
    text = (calibration.FOLDER / device / f"{name}.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)["rows"]
    return rows


def beside() -> str:
    """Contention: the profile's factors beside those of two cards, and what compute does to a push."""
    profile, two = calibration.load(PROFILED), calibration.load(WITH_TWO)
    rates = sorted(next(iter(two.contention.values()))["beside_gb_per_s"], key=int)
    cells = [
        [name, _factor(profile, name), *(f"{row['beside_gb_per_s'][r]:.2f}" for r in rates), row["kernels"]]
        for name, row in two.contention.items()
    ]
    wire = [r["wire_bytes"] / r["us"] / 1e3 for r in profile.exchanges.values()]
    like = [r["nvlink_bytes"] / r["us"] / 1e3 for r in profile.exchanges.values()]
    parts = [_part(profile, two, name, rates[1]) for name in BOUND_BY_MEMORY]
    same = [rate_like(profile, two, name) for name in BOUND_BY_MEMORY]
    says = prose(
        BESIDE, like=f"{np.mean(like):.0f}", nic=f"{np.mean(wire):.0f}", like_rate=rates[1],
        least=f"{min(parts):.1f}", most=f"{max(parts):.1f}", slow=f"{min(same):.0f}", fast=f"{max(same):.0f}",
        norms=two.contention["norm"]["kernels"],
        routings=two.contention["routing"]["kernels"],
    )  # fmt: skip
    head = f"class | profile | {' | '.join(f'{r} GB/s' for r in rates)} | operations"
    return f"{says}\n\n{table(head, cells)}\n\n{_stretch(profile)}\n\n{_push()}"


BOUND_BY_MEMORY = ("memory", "norm", "routing", "small")


def _part(profile: Tables, two: Tables, name: str, rate: str) -> float:
    """Slow-down beside a push over that of the profile."""
    return float((two.contention[name]["beside_gb_per_s"][rate] - 1) / (profile.contention[name]["factor"] - 1))


def rate_like(profile: Tables, two: Tables, name: str) -> float:
    """GB/s each way at which a push slows a class as the profile's exchanges do, between the measured rates."""
    row = two.contention[name]["beside_gb_per_s"]
    rates = sorted(map(int, row))
    return float(np.interp(profile.contention[name]["factor"], [row[str(r)] for r in rates], rates))


def _stretch(profile: Tables) -> str:
    factors = {row["beside"]: row["stretch"] for row in _rows(WITH_TWO, "stretch")}
    products = [factors[name] for name in PRODUCTS]
    there = [row["stretch"] for row in profile.exchanges.values()]
    says = prose(
        STRETCH, products=f"{min(products):.2f} to {max(products):.2f}", profile=f"{min(there):.2f} to {max(there):.2f}"
    )
    cells = [[name, f"{stretch:.2f}"] for name, stretch in sorted(factors.items(), key=lambda item: item[1])]
    return f"{says}\n\n{table('push beside | times as long', cells)}"


PRODUCTS = ("product", "grouped product", "weight gradient")


def _factor(tables: Tables, name: str) -> str:
    row = tables.contention.get(name)
    return "" if row is None else "in its time" if row.get("kind") == "assumed" else f"{row['factor']:.2f}"


def _push() -> str:
    rows = [r for r in _rows(WITH_TWO, "push") if "warps" in r and not r["both_ways"]]
    rates = {(r["warps"], r["sms"]): r["gb_per_s"] for r in rows}
    sms = sorted({s for _, s in rates})
    cells = [[f"{w} warps", *(f"{rates[w, s]:.0f}" for s in sms)] for w in sorted({w for w, _ in rates})]
    says = prose(PUSH, warp=f"{rates[8, 1] / 8:.2f}", model=f"{MODELLED:.2f}")
    head = " | ".join(["on an SM", *(f"{s} SM{'s' * (s > 1)}" for s in sms)])
    return f"{says}\n\n{table(head, cells)}"


def kernels() -> str:
    """This repository's kernels beside the profile's."""
    groups: dict[str, list[float]] = defaultdict(list)
    for both in siblings.other_kernels(PROFILED)["h100"]:
        groups[label(both.op)].append(both.us / both.priced_us)
    order = sorted(groups, key=lambda name: (not name.startswith("product"), name))
    cells = [[name, len(groups[name]), f"{np.median(groups[name]):.2f}"] for name in order]
    return f"{prose(KERNELS)}\n\n{table('class | operations | ours over the profile, median', cells)}"
