"""Compute and communication on one chip at a time, measured on two GPUs joined by NVLink.

One kernel a GPU pushes memory to the other, on as many SMs as a scenario gives communication, while the operations of
that scenario run on the rest; and the reverse, what compute does to the push. Alone and together take turns, in both
orders, so clocks cancel. The push runs at several rates: none (SMs held, nothing moved) tells the loss of SMs from that
of bandwidth. Nobody waits for a peer here: what the H800 profile cannot tell apart (contention, peers' skew) is
contention alone.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hwmodels.beside import contention_family
from hwmodels.op import Memory
from hwmodels.tables import TWINS
from hwmodels.units import GIGA, KIB, KILO, MIB, MS_PER_S, US_NS, US_PER_S
from numerics.card import needs, rig
from numerics.card.bench import reason
from numerics.kernels.push import hold, push
from numerics.tables.calibrate import Table, rounded
from sim.models.shape import ModelShape
from sim.scenario import Scenario

BYTES = 256 * MIB
"""Of a buffer each way: over four times the L2 of an H200, so that bytes come from memory and go there."""
WINDOW_US, MOST = 2000.0, 50
"""An operation is repeated for about so long beside the push, and at most so often."""
LAUNCH_US, CYCLES_A_US = 60.0, 2000
"""What the host is given for a call before the GPU starts on a series (more where that was too little), so that no
launch is waited for inside it; and clock cycles a microsecond, no less than a Hopper's."""
PATIENCE_US = 10_000.0
"""The most that the host is given for a call."""
HELD = 20
"""SMs that communication held when the tables of beside.json were measured (scenarios/v3_2048gpu.yaml)."""
SOUND = 1.1
"""A series whose call takes over so many times what one cold call took in the same campaign was held up by the host."""
REPEATS = 6
"""Pairs of alone and together, of which the median ratio counts."""
MARGIN = 2.0
"""The push is planned to last so many times the series; one that outlasts it is measured again beside a longer push."""
QUEUED = 400
"""Calls at most beside a push: a stream takes about a thousand launches before the host has to wait."""
RATES = (0, 60, 120, 240)
"""GB/s each way; 0: SMs held. 60 is what the exchanges of the H800 profile put on NVLink: 199 and 386 MB in 3.4 and 6.3
ms (hwmodels/tables/h800/exchange.json)."""
LIKE_PROFILE = 60
PRICED_ON_FEWER_SMS = ("attention", "gemm", "gemm_bf16", "wgrad")
"""Families whose price already counts the SMs that communication holds: their factor is over the SMs held."""
SMS = (1, 2, 4, 8, 12, 16, 20, 24, 32)
SIZES_KIB = (8, 64, 512, 4096, 32768, BYTES // KIB)
ENTRIES = (
    "numerics.card.contention:measured", "numerics.card.contention:tables", "numerics.kernels.push:push",
    "numerics.kernels.push:hold",
)  # fmt: skip
"""What decides these tables beside the program of a campaign."""

Call = Callable[[], Any]
Row = dict[str, Any]


@dataclass
class Bench:
    """Two GPUs with a buffer each way and a stream for the push; compute goes to device 0's default stream."""

    sources: list[torch.Tensor]
    targets: list[torch.Tensor]
    streams: list[torch.cuda.Stream]
    sms: int

    @classmethod
    def open(cls, sms: int) -> "Bench":
        """Raises ValueError without two GPUs that see each other's memory."""
        if torch.cuda.device_count() < 2 or not torch.cuda.can_device_access_peer(0, 1):
            raise ValueError("contention needs two GPUs that see each other's memory")
        words = BYTES // 8
        sources = [torch.randint(1 << 40, (words,), device=f"cuda:{d}") for d in (0, 1)]
        targets = [torch.empty_like(sources[1 - d]) for d in (0, 1)]
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source)  # torch lets the two see each other when it first copies between them
        # before compute where SMs get free, as DeepEP's stream goes (csrc/deep_ep.cpp: a stream of high priority)
        streams = [torch.cuda.Stream(device=f"cuda:{d}", priority=-1) for d in (0, 1)]
        return cls(sources, targets, streams, sms)

    def sync(self) -> None:
        for device in (0, 1):
            torch.cuda.synchronize(device)

    def begin(
        self, rounds: int, sms: int, both: bool = True, ahead_us: float = 0.0, **how: Any
    ) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        """Start the push (of both GPUs), `ahead_us` later on the GPUs; events around device 0's."""
        events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        for device in (1, 0) if both else (0,):
            with torch.cuda.stream(self.streams[device]):
                if ahead_us:
                    torch.cuda._sleep(round(ahead_us) * CYCLES_A_US)
                if device == 0:
                    events[0].record()
                push(self.sources[device], self.targets[device], sms, rounds, **how)
                if device == 0:
                    events[1].record()
        return events

    @property
    def left(self) -> int:
        """SMs that communication leaves."""
        return int(torch.cuda.get_device_properties(0).multi_processor_count) - self.sms

    def busy(self, rate: int, us: float) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        """Keep the SMs of communication busy for about `us`, moving `rate` GB/s each way."""
        if rate:
            return self.begin(max(1, -(-round(us * rate * KILO) // BYTES)), self.sms, gb_per_s=rate)
        events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        out = torch.empty(self.sms, dtype=torch.int32, device="cuda:0")
        with torch.cuda.stream(self.streams[0]):
            events[0].record()
            hold(out, self.sms, round(us * US_NS))
            events[1].record()
        return events

    def push_us(self, sms: int, rounds: int = 1, both: bool = True, **how: Any) -> float:
        """Microseconds of a push alone."""
        times = []
        for _ in range(3):
            self.sync()
            start, end = self.begin(rounds, sms, both, ahead_us=4 * LAUNCH_US, **how)
            self.sync()
            times.append(_between(start, end))
        return min(times)


def measured(scenario: Scenario, show: Callable[[str], None]) -> dict[str, list[Row]]:
    """What two GPUs say of a scenario: beside (each operation), stretch and push.

    Raises ValueError without two GPUs that see each other, or for a scenario without a model.
    """
    bench, needed = Bench.open(scenario.comm.sms), needs.operations(scenario)
    assert scenario.model is not None
    show(f"beside communication on {bench.sms} SMs, {len(needed)} operations at {', '.join(map(str, RATES))} GB/s")
    groups = {
        "beside": list(operations(bench, needed, scenario.model)),
        "stretch": list(stretches(bench, needed, scenario.model)), "push": [*curve(bench), *sizes(bench)],
    }  # fmt: skip
    for row in groups["beside"] + groups["stretch"]:
        if "refused" in row:
            show(f"not measured beside communication: {', '.join(row['names'])}: {row['refused']}")
    return {name: [row for row in rows if "refused" not in row] for name, rows in groups.items()}


def attempted(scenario: Scenario, show: Callable[[str], None]) -> dict[str, list[Row]]:
    """`measured`, or {} with one GPU or where it fails: what one GPU measured is not lost for it."""
    if torch.cuda.device_count() < 2:
        return {}
    try:
        return measured(scenario, show)
    except Exception as error:
        show(" ".join(f"nothing was measured beside communication: {type(error).__name__}: {error}".split()))
        return {}


def tables(groups: Mapping[str, list[Row]], whole: Mapping[str, Table], sms: int) -> dict[str, Table]:
    """The tables that two GPUs add to those of one; {} where nothing was measured. sms: that compute had.

    whole: the tables of the campaign, from which these take their heads. Contention is made of the rows that the host
    did not hold up.
    """
    if not groups:
        return {}
    head = {key: whole["contention"][key] for key in ("device", "source", "reference", "provenance")}
    gap = {key: whole["contention"][key] for key in ("launch_gap_us", "launch_gap_kind")}
    rows = sound(groups["beside"], single_calls(whole, sms, gap["launch_gap_us"]))
    contention = {**head, **gap, "sms": sms, "rate_gb_per_s": LIKE_PROFILE, "rows": factors(rows)}
    return {"contention": contention, **{name: {**head, "rows": rows} for name, rows in groups.items()}}


def again(folder: Path) -> dict[str, Table]:
    """The contention table of a card made again from its measured rows, which stay as they are: those beside a push,
    over those alone of the same kernels (its twins', if any). Raises FileNotFoundError for a card that was not measured
    with two GPUs."""
    alone = twins if (twins := folder / TWINS).is_dir() else folder
    places = {"gemm": alone, "memory": alone, "attention": alone, "contention": folder, "beside": folder}
    whole = {name: json.loads((at / f"{name}.json").read_text(encoding="utf-8")) for name, at in places.items()}
    sms = int(whole["contention"]["reference"]["sms"]) - HELD
    made = tables({"beside": whole["beside"]["rows"]}, whole, sms)["contention"]
    said = {**made["provenance"], "made_again": "python -m numerics calibrate --again, from beside.json"}
    return {"contention": {**made, "provenance": said}}


def curve(bench: Bench) -> Iterator[Row]:
    """Bandwidth of the push over SMs, warps and sizes; GB/s that leave device 0, one way and both ways."""
    for sms in SMS:
        for warps in (8, 16, 32):
            for both in (False, True):
                us = bench.push_us(sms, both=both, warps=warps)
                yield {"sms": sms, "warps": warps, "both_ways": both, "gb_per_s": rounded(_rate(BYTES, us))}


def sizes(bench: Bench) -> Iterator[Row]:
    """Time of small pushes on the bench's SMs, one way: what a kernel costs before bytes count."""
    for kib in SIZES_KIB:
        words = kib * KIB // 8
        part = Bench([bench.sources[0][:words]] * 2, [bench.targets[0][:words]] * 2, bench.streams, bench.sms)
        words_each = max(1, min(8, words // (16 * 32 * bench.sms)))
        us = part.push_us(bench.sms, both=False, words=1 << (words_each.bit_length() - 1))
        yield {"sms": bench.sms, "bytes": kib * KIB, "us": rounded(us), "gb_per_s": rounded(_rate(kib * KIB, us))}


def operations(bench: Bench, needed: Mapping[needs.Timed, tuple[str, ...]], shape: ModelShape) -> Iterator[Row]:
    """Each operation on the SMs that communication leaves: alone, and how many times as long beside each rate."""
    for op, names in needed.items():
        try:
            call = rig.call_of(op, shape, bench.left if needs.confinable(op) else None)
            alone = _us(call, 1)
        except Exception as error:  # one operation that cannot run does not end the measurement
            yield {"names": list(names), "refused": reason(error)}
            continue
        count = max(1, min(MOST, round(WINDOW_US / alone)))
        by_rate = {rate: [_pair(bench, call, count, rate, bool(i % 2)) for i in range(REPEATS)] for rate in RATES}
        us = statistics.median(alone for pairs in by_rate.values() for alone, _ in pairs)
        beside = {str(rate): rounded(statistics.median(b / a for a, b in pairs)) for rate, pairs in by_rate.items()}
        yield {
            "family": contention_family(op, us), "kind": needs.kind_of(op), "names": list(names), "us": rounded(us),
            "beside": beside, "bytes": op.bytes(),
        }  # fmt: skip
        del call
        torch.cuda.empty_cache()


def _us(call: Call, count: int) -> float:
    """Microseconds a call of `count` in a row on the default stream, after one that is not counted."""
    call()
    torch.cuda.synchronize()
    return _timed(call, count)


def _timed(call: Call, count: int) -> float:
    launch_us = LAUNCH_US
    while launch_us < PATIENCE_US:
        start, end, behind = _series(call, count, launch_us)
        torch.cuda.synchronize()
        if not behind:
            return _between(start, end) / count
        launch_us *= 2
    raise RuntimeError("the host cannot enqueue calls before the GPU runs them")


def _between(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
    """Microseconds."""
    return start.elapsed_time(end) * US_PER_S / MS_PER_S


def _series(call: Call, count: int, launch_us: float) -> tuple[torch.cuda.Event, torch.cuda.Event, bool]:
    """Enqueue a sleep and then the calls; events around these, and whether the GPU started before all were enqueued."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(round(launch_us * (count + 2)) * CYCLES_A_US)
    start.record()
    for _ in range(count):
        call()
    end.record()
    return start, end, bool(start.query())


def _pair(bench: Bench, call: Call, count: int, rate: int, first: bool = True) -> tuple[float, float]:
    """Microseconds of a call alone and beside a push at a rate, which lasts as long as they do. first: alone first."""
    bench.sync()
    alone = _timed(call, count) if first else 0.0
    beside = _beside(bench, call, count, rate)
    return alone or _timed(call, count), beside


def _beside(bench: Bench, call: Call, count: int, rate: int, busy_us: float = WINDOW_US) -> float:
    launch_us, lasting = LAUNCH_US, 0.0
    while launch_us < PATIENCE_US and lasting < US_PER_S:
        bench.sync()
        lasting = max(lasting, MARGIN * (busy_us + launch_us * (count + 2)))
        started, ended = bench.busy(rate, lasting)
        start, end, behind = _series(call, count, launch_us)
        bench.sync()
        if behind:
            launch_us *= 2
        elif end.elapsed_time(ended) > 0 and started.elapsed_time(start) > 0:
            return _between(start, end) / count
        lasting *= 2
    raise RuntimeError("the push ends before the operation beside it, or the host is too slow")


def stretches(bench: Bench, needed: Mapping[needs.Timed, tuple[str, ...]], shape: ModelShape) -> Iterator[Row]:
    """The push beside the longest operation of each family: its time there over its time alone."""
    longest: dict[str, needs.Timed] = {}
    for op in sorted(needed, key=lambda o: o.bytes()):
        if not isinstance(op, Memory) or op.kernels == 1:
            longest[needs.kind_of(op)] = op
    alone = bench.push_us(bench.sms)
    for kind, op in longest.items():
        try:
            call = rig.call_of(op, shape, bench.left if needs.confinable(op) else None)
            each = _us(call, 3)
            if 2 * MARGIN * alone <= QUEUED * each:
                times = [_stretch(bench, call, each) for _ in range(REPEATS)]
                yield {"beside": kind, "us": rounded(each), "stretch": rounded(statistics.median(times))}
        except Exception as error:  # one operation that cannot run does not end the measurement
            yield {"names": [f"push beside {kind}"], "refused": reason(error)}
            continue
        del call
        torch.cuda.empty_cache()


def _stretch(bench: Bench, call: Call, each: float) -> float:
    """A push beside calls that outlast it, over the same push alone."""
    alone, launch_us = bench.push_us(bench.sms), LAUNCH_US
    count = max(2, round(2 * MARGIN * alone / each))
    while launch_us < PATIENCE_US:
        bench.sync()
        # behind the first call or so: the host has two launches to make for the push, and the calls' sleep ends first
        start, end = bench.begin(1, bench.sms, ahead_us=launch_us * (count + 2) + each + 2 * LAUNCH_US)
        first, last, behind = _series(call, count, launch_us)
        bench.sync()
        if not behind:
            if first.elapsed_time(start) > 0 and end.elapsed_time(last) > 0:
                return _between(start, end) / alone
            raise RuntimeError("the push is not inside the calls beside it")
        launch_us *= 2
    raise RuntimeError("the host cannot enqueue calls before the GPU runs them")


def sound(rows: list[Row], known: Mapping[tuple[str, ...], float]) -> list[Row]:
    """Rows whose series was not held up by the host. known: names -> microseconds of one call on the same SMs."""
    return [r for r in rows if "family" in r and r["us"] <= SOUND * known.get(tuple(sorted(r["names"])), 0.0)]


def single_calls(
    tables: Mapping[str, Mapping[str, Any]], sms: int, launch_gap_us: float
) -> dict[tuple[str, ...], float]:
    """Names -> microseconds of one call and its launch by the tables of a campaign, on `sms` SMs where that was
    measured."""
    rows = [row for name in ("gemm", "memory", "attention") for row in tables[name]["rows"]]
    alone = {tuple(sorted(row["names"])): row.get("us_on_sms", {}).get(str(sms), row["us"]) for row in reversed(rows)}
    return {names: us + launch_gap_us for names, us in alone.items()}


def factors(rows: list[Row]) -> list[Row]:
    """By family: the median slow-down at the profile's rate, its spread over operations, and medians at every rate."""
    families: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "family" in row:
            families[row["family"]].append(row)
    return [_factor(name, group) for name, group in sorted(families.items())]


def _factor(name: str, group: list[Row]) -> Row:
    less = name in PRICED_ON_FEWER_SMS
    there = [r["beside"][str(LIKE_PROFILE)] / (r["beside"]["0"] if less else 1.0) for r in group]
    return {
        "class": name, "kernels": len(group), "factor": rounded(max(1.0, statistics.median(there))),
        "error": rounded(statistics.pstdev(there)),
        "beside_gb_per_s": {str(r): rounded(statistics.median(x["beside"][str(r)] for x in group)) for r in RATES},
    }  # fmt: skip


def _rate(size: float, us: float) -> float:
    return size / us * US_PER_S / GIGA
