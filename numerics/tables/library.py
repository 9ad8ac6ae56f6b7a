"""Tables of a vendor library's kernels (hwmodels/tables/<device>/<library>) from what a card run timed.

What a kernel takes in a training step lies between two states that were measured. The fast one: a rested card at its
highest clock (a burst), and for memory-bound kernels what they read still in the L2 cache. The slow one: a cold cache,
and the clock that the power limit leaves to the hungriest company, products and additions at full bandwidth without a
pause. A step has half of its reads from the kernel before, and pauses and kernels that draw less; how far it is from
either end nothing that times kernels alone can say, so a price is the geometric mean of both, and its spread covers
them. Bursts of more than a few milliseconds meet the limit themselves; what they lack of a rested card's speed is known
from rows that were timed under load as well.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

from hwmodels import library, tables
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory, Op
from hwmodels.refused import Refused
from numerics.tables import cards, further, host, node, provenance
from numerics.tables.calibrate import Row, Table, rounded

LONG_US = 3000.0
"""Bursts from here on meet the power limit."""
LARGE_US = 100.0
"""Products from here on tell the clock; smaller ones are as much the cache's."""
PACED = ("gemm", "groupedgemm", "attention")
WGRAD_BF16 = "wgrad_bf16"
"""What a plan calls a weight gradient that is written in BF16."""
PARTS = {
    "norm_backward": (("layer_norm_grad", "norm_backward", 1.0, 1.0), ("GammaBeta", "norm_weight_gradient", 1.0, 0.0)),
    "softmax_backward": (("oftmax", "softmax_backward", 1.0, 1.0),),
    "topk": (("gatherTopK", "topk", 1.0, 1.0),),
    "column_sum": (("reduce_kernel", "reduce", 1.0, 1.0),),
    "gradient_norm": (("multi_tensor_apply", "gradient_norm", 1.0, 1.0),),
    "nll_backward": (("nll_loss_backward", "nll_backward", 1.0, 0.0),),
}  # fmt: skip
"""Kind of a call of several kernels -> part of a kernel's name, its own kind, and what it reads and writes of the
call's bytes."""
NAMES = {
    "activation": {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_tanh"},
    "activation_backward": {n: n for n in ("silu_backward", "gelu_backward", "gelu_tanh_backward")},
}  # fmt: skip
KINDS = {
    "broadcast_multiply": "strided", "embedding": "gather", "permute": "gather", "unpermute": "scatter",
    "compiled": "fused", "compiled_norm": "fused",
}  # fmt: skip
"""What a plan calls a call -> kind of the kernel that it launches."""
COMPANY_TOKENS, WIDE, HEADS = 16384, 14336.0, 4096.0
ALIKE = {
    **{(name, 8192, read * WIDE): name for name, read in (
        ("add", 4), ("silu", 2), ("gelu", 2), ("widen", 2), ("gelu_backward", 4), ("silu_backward", 4), ("narrow", 4),
        ("accumulate", 6), ("zero", 0), ("sum", 2))},
    **{(f"{name} by head", 8192, read * HEADS): name for name, read in (
        ("contiguous", 2), ("rotate", 2), ("halves", 2), ("neg_half", 1))},
    ("rms_norm", 8192, 2 * HEADS): "rms_norm 4096", ("rms_norm_backward", 8192, 4 * HEADS): "rms_norm_backward 4096",
    ("layer_norm_backward", 8192, 4 * HEADS): "layer_norm_backward 4096",
    ("embedding 128256", 8192, 2 * HEADS + 8): "embedding", ("topk", 8192, 256.0): "topk",
    ("index_add", 49152, 4104.0): "index_add",
}  # fmt: skip
"""Call, rows and bytes that each reads, of a burst -> the same in `torch_mix`."""
CALLS = {
    "foreach_norm": "gradient_norm", "log_softmax": "softmax", "log_softmax_backward": "softmax_backward",
    "rms_norm": "norm_forward", "rms_norm_backward": "norm_backward", "layer_norm_backward": "norm_backward",
    "index_add": "scatter", "grouped": "groupedgemm", "column_sum": "reduce",
}  # fmt: skip
"""What `torch_mix` calls a call whose burst has another size -> kind of its kernel."""
DROPPED = ("sort", "bincount", "embedding_backward", "adam")
"""Kinds of calls whose kernels are taken one by one from the profile instead, or not at all."""

ENTRIES = (
    "numerics.tables.library:tables_of", "numerics.tables.calibrate:write", "numerics.card.torch_times:run",
    "numerics.card.torch_mix:run", "numerics.tables.node:contention", "numerics.card.node:measured",
)  # fmt: skip
"""The program behind the tables: what timed the calls, and what made tables of that."""
BURSTS, COMPANY, SCALED = "bursts.json", "company.json", "scaled.json"
"""Files that a card run leaves; of FP8 products in a run of their own."""


def calibrated(folder: Path, name: str = "torch") -> tuple[str, dict[str, Table]]:
    """Device, and the tables of a library from what a card run left in a folder. Raises Refused."""
    files = [folder / BURSTS, folder / COMPANY]
    if absent := [file.name for file in files if not file.is_file()]:
        raise Refused(f"has no {' and no '.join(absent)}; `calibrate --torch` writes both", str(folder))
    bursts, company = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    said = bursts["provenance"]
    device = cards.device_of(said["device"])
    origin = {
        "device": f"{said['device']}, {said['sms']} SMs", "driver": said["driver"], "host": said["host"],
        "versions": {key: said[key] for key in ("torch", "cuda", "python")}, "measured": said["date"][:10],
        "clocks": "bursts at 1980 MHz; fit.clock: what company takes longer than they",
        "command": "python -m numerics calibrate --timed FOLDER", "repetitions": "5 to 15; a row's samples say",
        "quantiles": "us: middle of both states; burst_us: median of bursts; loaded_us: mean under load; low_us and "
        "high_us: 10 % of bursts in the fast state, 90 % in the slow one",
        "method": said["method"], "inputs": {file.name: provenance.digest_of(file) for file in files},
        "program": {"entries": list(ENTRIES), "files": provenance.program(ENTRIES)},
    }  # fmt: skip
    more = [folder / name for name in (SCALED, node.NODE) if (folder / name).is_file()]
    origin["inputs"] |= {file.name: provenance.digest_of(file) for file in (*more, *further.files(folder))}
    source = f"{said['device']}, torch {said['torch']}, python -m numerics calibrate --torch"
    head = {"device": device, "library": name, "source": source, "sms": int(said["sms"])}
    head |= {"reference": cards.reference(device), "provenance": origin}
    fp8 = json.loads((folder / SCALED).read_text(encoding="utf-8"))["rows"] if folder / SCALED in more else ()
    left = further.wider(folder), further.whole(folder), further.blocks(folder)
    made = tables_of(bursts, company, head, fp8, *left)
    beside = node.contention(folder)
    return device, made | ({"contention": {**head, "rows": beside}} if beside else {})


def tables_of(
    bursts: Mapping[str, Any], company: Mapping[str, Any], head: Mapping[str, Any], scaled: Iterable[Row] = (),
    wider: Iterable[Row] = (), whole: Iterable[Row] = (), blocks: Iterable[Row] = (),
) -> dict[str, Table]:  # fmt: skip
    """File stem -> table. bursts, company: documents of `torch_times` and `torch_mix`. head: device, library, source,
    reference, provenance. scaled: FP8 products, blocks: with scales by block; wider: calls; whole: of updates."""
    gap = tables.load(head["device"]).launch_gap_us
    timed = [net(r, bursts["events_us"], gap) for r in bursts["rows"] if "us" in r]
    factors = clocks(timed, company["rows"], bursts["events_us"], gap)
    more = [net(r, bursts["events_us"], gap) for r in wider]
    rows = [*merged(made for r in [*timed, *more] for made in kernels(r, factors)), *least(timed)]
    fp8, by_block = ([net(r, bursts["events_us"], gap) for r in each if "us" in r] for each in (scaled, blocks))
    rows += merged(made for r in fp8 for made in kernels(r, of_scaled(factors, fp8)))
    fit = {"clock": factors, "spread": spreads(head["reference"], rows, factors)}
    rows += merged(made for r in by_block for made in kernels(r, of_scaled(factors, by_block)))
    rows += whole
    by_table: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_table["gemm" if row["op"] == "grouped" else row["op"]].append(row)
    made = {name: {**head, "fit": fit, "rows": by_table[name]} for name in ("gemm", "attention", "memory")}
    return made | {"host": {**head, **host.host(bursts["host"], gap), "rows": []}}


def net(row: Row, events_us: float, gap_us: float) -> Row:
    """A call without what two events and the launches of its kernels add to it."""
    less = events_us + gap_us * max(1, len(row.get("kernels", ())))
    out = {**row, "us": row["us"] - less, "low_us": row["low_us"] - less, "high_us": row["high_us"] - less}
    if "loaded" in row:
        out["loaded_us"] = row["loaded"]["us"] - gap_us * max(1, len(row.get("kernels", ())))
    return out


# --- clocks -----------------------------------------------------------------------------------------------------------


def clocks(timed: list[Row], company: list[Row], events_us: float, gap_us: float) -> dict[str, float]:
    """Kind -> time in company over time in a burst (fit.clock). alone: the same for products that repeat without a
    pause. slope: how much an e-fold beyond `LONG_US` takes off what load adds to a burst. apart: spread of products."""
    ratios: dict[str, list[float]] = defaultdict(list)
    known = {called(r): r for r in timed}
    for mixed in company:
        words = mixed["name"]
        burst = known.get(words)
        launches = max(1, len(burst.get("kernels", ()))) if burst else 1
        us = mixed["us"] - gap_us * launches - events_us / mixed["calls"]
        then = burst["us"] if burst else mixed["burst_us"] - events_us - gap_us
        key = kind_of(burst) if burst else words.split()[0]
        key = CALLS.get(key, key)
        if key not in PACED or then > LARGE_US:
            ratios[f"{key} {burst['direction']}" if key == "attention" and burst else key].append(us / then)
    loaded, heads = (
        [(r["us"], r["loaded_us"] / r["us"]) for r in timed if "loaded_us" in r and r["op"] == op]
        for op in ("gemm", "attention")
    )
    alone, heads_alone = (
        median([ratio for us, ratio in each if 3 * LARGE_US < us < LONG_US] or [1.0]) for each in (loaded, heads)
    )
    slope = median((alone - ratio) / math.log(us / LONG_US) for us, ratio in loaded if us > 1.5 * LONG_US)
    means = {key: max(1.0, math.exp(fmean(map(math.log, each)))) for key, each in sorted(ratios.items())}
    spread = math.sqrt(sum(math.log(r / means["gemm"]) ** 2 for r in ratios["gemm"]) / len(ratios["gemm"]))
    out = means | {"alone": alone, "alone attention": heads_alone, "slope": slope, "apart": spread}
    return {key: rounded(value) for key, value in out.items()}


def of_scaled(factors: Mapping[str, float], fp8: Iterable[Row]) -> Mapping[str, float]:
    """The same of FP8 products, of which only those that repeat without a pause were timed: company takes the part of
    what that adds that it takes of BF16's."""
    ratios = [r["loaded_us"] / r["us"] for r in fp8 if "loaded_us" in r and 3 * LARGE_US < r["us"] < LONG_US]
    alone = median(ratios or [factors["alone"]])
    company = 1 + (alone - 1) * (factors["gemm"] - 1) / (factors["alone"] - 1)
    return {**factors, "alone": alone, "gemm": company}


def called(row: Row) -> str:
    """A burst in the words of `torch_mix`; "" where that has none like it."""
    if row["op"] == "gemm":
        return f"{row['role']} {row['m']} {row['n']} {row['k']}"
    if row["op"] == "attention":
        kv, whole = row["kv_heads"] or row["heads"], row["batch"] * row["sequence"] == COMPANY_TOKENS
        return f"attention {row['direction']} {row['heads']} {kv} {row['qk']} {row['sequence']}" if whole else ""
    return ALIKE.get((row["name"], row.get("rows"), row.get("read")), "")


def kind_of(row: Row) -> str:
    """Kind of a burst's kernel, in the words of a table."""
    if row["op"] != "memory":
        return str(row["op"])
    if row["kind"] in NAMES:
        return NAMES[row["kind"]][row["name"]]
    return KINDS.get(row["kind"], row["kind"])


# --- kernels of calls -------------------------------------------------------------------------------------------------


def kernels(row: Row, factors: Mapping[str, float]) -> Iterator[tuple[Op, Row]]:
    """Operations of a timed call with their times in company: one each, or those of `PARTS`."""
    if row["op"] != "memory":
        yield _paced(row, factors)
        yield from _around(row, factors)
    elif row["kind"] == "adam":
        yield from _adam(row, factors)
    elif row["kind"] in PARTS and len(row["kernels"]) > 1:
        whole = sum(us for _, us in row["kernels"])
        for part, kind, read, write in PARTS[row["kind"]]:
            us = [us for name, us in row["kernels"] if part in name]
            name = kind.replace("norm", "layer_norm", 1) if row["name"].startswith("layer_norm") else kind
            if us:
                op = Memory(name, row["rows"], read * row["read"], write * row["write"])
                yield op, _streamed(row, sum(us), whole, factors.get(kind, 1.0))
    elif row["kind"] not in DROPPED and row["name"] != "_foreach_scale":
        kind = kind_of(row)
        name = kind.replace("norm", "layer_norm", 1) if row["name"].startswith("layer_norm") else kind
        us = sum(us for _, us in row["kernels"])
        yield Memory(name, row["rows"], *_moved(row)), _streamed(row, us, us, factors.get(kind, 1.0))
    else:
        yield from _small(row)


def _moved(row: Row) -> tuple[float, float]:
    """Bytes that a row's kernel reads and writes, as lowerings count them: whole rows, even out of a cache."""
    if row["name"] == "gather":
        return row["write"], row["write"]
    if row["name"] == "index_add":
        return 2 * (row["read"] - 8), row["read"] - 8
    return row["read"], row["write"]


def _paced(row: Row, factors: Mapping[str, float]) -> tuple[Op, Row]:
    """A product or attention. Its very kernel where a call has several."""
    whole = sum(us for _, us in row["kernels"]) or 1.0
    main = max((us for _, us in row["kernels"]), default=1.0) / whole
    slow = factors[f"attention {row['direction']}"] if row["op"] == "attention" else factors["gemm"]
    fast = 1.0
    if row["us"] > LONG_US:  # the burst itself met the limit
        alone = factors["alone attention" if row["op"] == "attention" else "alone"]
        slope = factors["slope"] * (alone - 1) / (factors["alone"] - 1)
        fast = max(1.0, alone - slope * math.log(row["us"] / LONG_US)) / alone
    return operation(row), _between(row, main, fast, fast * slow)


def operation(row: Row) -> Op:
    """What a row of the plan timed; a weight gradient in BF16 is a `wgrad` whose result is that."""
    fields = {"gemm": Gemm, "groupedgemm": GroupedGemm, "attention": Attention}[row["op"]]
    op: Op = fields(**{name: row[name] for name in fields._fields if name in row and name != "kernels"})
    if isinstance(op, Gemm) and op.role == WGRAD_BF16:
        return op._replace(role="wgrad", result="bf16")
    return op._replace(role="wgrad") if isinstance(op, GroupedGemm) and op.role == WGRAD_BF16 else op


def _between(row: Row, part: float, fast: float, slow: float) -> Row:
    """What a table says of a part of a timed call. fast, slow: times in the two states over a burst's."""
    low, high = (rounded(us * part) for us in (row["low_us"] * fast, row["high_us"] * slow))
    us, burst = row["us"] * part * math.sqrt(fast * slow), rounded(row["us"] * part)
    out = {"us": rounded(us), "burst_us": burst, "samples": row["samples"], "low_us": low, "high_us": high,
           "names": [row["name"]]}  # fmt: skip
    return out | ({"loaded_us": rounded(row["loaded_us"] * part)} if "loaded_us" in row else {})


def _streamed(row: Row, us: float, whole: float, slow: float) -> Row:
    """The same of a memory-bound kernel that took `us` of the profile's `whole`, where the call came a second time and
    found in the cache what fits there."""
    part = us / whole if whole else 1.0
    return _between(row, part, min(1.0, us / (row["us"] * part)) if us else 1.0, slow)


def _around(row: Row, factors: Mapping[str, float]) -> Iterator[tuple[Op, Row]]:
    """Memory-bound kernels of attention's backward."""
    if row["op"] != "attention" or row["direction"] == "forward":
        return
    tokens, heads, kv = row["batch"] * row["sequence"], row["heads"], row["kv_heads"] or row["heads"]
    whole = sum(us for _, us in row["kernels"])
    out, q = 2.0 * heads * row["v"], 2.0 * heads * row["qk"]
    shapes = {
        "compute_dot_do_o": Memory("attention_prepare", tokens, 2 * out, 4.0 * heads),
        "convert_dq": Memory("attention_finish", tokens, 2 * q, q),
        "fmha_reduce_head": Memory("attention_reduce", tokens, q, 2.0 * kv * row["qk"]),
    }
    for part, op in shapes.items():
        us = [us for name, us in row["kernels"] if part in name]
        if us:
            yield op, _streamed({**row, "name": part}, sum(us) / len(us), whole, 1.0)


def _adam(row: Row, factors: Mapping[str, float]) -> Iterator[tuple[Op, Row]]:
    """The longest launch of a step, which has as many chunks as a launch can have, or all there are."""
    launches = [us for name, us in row["kernels"] if "FusedOptimizer" in name]
    most = min(further.LAUNCH, row["rows"])
    if "1 tensors" in row["name"] and launches:
        share = max(launches) / sum(us for _, us in row["kernels"])
        op = Memory("adam", most, row["read"], row["write"])
        yield op, _between({**row, "samples": len(launches)}, share, 1.0, factors.get("adam", 1.0))


def _small(row: Row) -> Iterator[tuple[Op, Row]]:
    """Kernels of calls that have many, as the profile has them: sweeps of a sort, sums of an embedding's gradient."""
    parts = {
        "Onesweep": Memory("sort", row["rows"], 16.0, 16.0), "Histogram": Memory("sort", row["rows"], 16.0, 0.0),
        "compute_grad_weight": Memory("scatter", row["rows"], row["read"] - 8, row["read"] - 8),
    }  # fmt: skip
    for part, op in parts.items():
        us = [us for name, us in row["kernels"] if part in name]
        if us and (op.kind == "sort") == (row["kind"] == "sort"):
            yield op, {"us": rounded(median(us)), "burst_us": rounded(median(us)), "samples": len(us),
                       "low_us": rounded(min(us)), "high_us": rounded(max(us)), "names": [part]}  # fmt: skip


def merged(made: Iterable[tuple[Op, Row]]) -> Iterator[Row]:
    """One row an operation: the median of those that are the same (calls of one kind with equal bytes)."""
    groups: dict[Any, list[tuple[Op, Row]]] = defaultdict(list)
    for op, row in made:
        groups[library.identity(op)].append((op, row))
    for same in groups.values():
        op, rows = same[0][0], [row for _, row in same]
        first = min(rows, key=lambda row: abs(row["us"] - median(r["us"] for r in rows)))
        names = sorted({name for row in rows for name in row["names"]})
        low, high = min(r["low_us"] for r in rows), max(r["high_us"] for r in rows)
        samples = sum(r["samples"] for r in rows)
        yield {**_said(op), **first, "names": names, "low_us": low, "high_us": high, "samples": samples}


def _said(op: Op) -> Row:
    """An operation as a table says it."""
    names = {Gemm: "gemm", GroupedGemm: "grouped", Attention: "attention", Memory: "memory"}
    return {"op": names[type(op)], **op._asdict()}


def least(timed: Iterable[Row]) -> Iterator[Row]:
    """What does next to nothing: counters cleared before a product, and starts of an optimizer's lists."""
    times: dict[str, list[float]] = defaultdict(list)
    for row in timed:
        for name, us in row["kernels"]:
            which = "memset" if name.startswith("Memset") and row["op"] == "gemm" else ""
            which = library.TINY if name.startswith("void at::cuda::detail::prepare_grouped_gemm") else which
            times[which].append(us)
    for kind in ("memset", library.TINY):
        us = times[kind]
        yield {**_said(Memory(kind, 1, 0.0, 0.0)), "us": rounded(median(us)), "burst_us": rounded(median(us)),
               "samples": len(us), "low_us": min(us), "high_us": max(us), "names": [kind]}  # fmt: skip


# --- what a table says besides ----------------------------------------------------------------------------------------


def spreads(reference: Mapping[str, float], rows: list[Row], clock: Mapping[str, float]) -> dict[str, Any]:
    """Family -> relative standard deviation by rung: of what is read off a row, its repeats, how far a run can be from
    the middle of both states, and for kernels that the clock paces how far products scatter about their mean; of the
    others, also what comes back where rows are left out (a row; all within `NEAR` octaves)."""
    whole = library.measured("", reference, tables.library_rows(rows), NONE)
    offs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for op, row in tables.library_rows(rows):
        for rung, apart in (("interpolated", 0.0), ("held", library.NEAR**2)):
            if (off := left_out(whole, op, row, apart)) is not None:
                offs[library.family(op)][rung].append(off)
    wide: dict[str, list[float]] = defaultdict(list)
    for op, row in tables.library_rows(rows):
        wide[library.family(op)].append(math.log(row["high_us"] / row["low_us"]))
    out: dict[str, Any] = {}
    for name, by_rung in offs.items():
        state = median(wide[name]) / math.sqrt(12)  # as likely at any place between the two states
        seen = math.hypot(MEASURED, clock["apart"] if name != "memory" else 0.0, state)
        sizes = {rung: math.hypot(seen, robust(each)) for rung, each in by_rung.items()}
        out[name] = {"measured": rounded(seen), **{rung: rounded(size) for rung, size in sizes.items()}}
    return out


NONE = {
    name: dict.fromkeys(("measured", "interpolated", "held"), 0.0)
    for name in ("gemm", "grouped", "attention", "memory")
}
MEASURED = 0.03
"""Spread of a row at least: a card's repeats, another card of the kind."""


def left_out(whole: library.Measured, op: Op, row: Row, apart: float) -> float | None:
    """The logarithm of a price over the time of a row that it does not know, nor those less than so many octaves
    (squared) away; None where no more than two rows are left."""
    at = library.place(op)
    others = [r for r in whole.classes[library.kind(op)] if library.apart(at, r.at) > apart]
    if len(others) < 3:
        return None
    us, _ = library.between(others, at, library.bound_us(whole.reference, op), library.sharp(op))
    return math.log(us / row["us"])


def robust(offs: list[float]) -> float:
    """A standard deviation of which a few strays are no part: that of a normal spread with the same 90th percentile."""
    return sorted(map(abs, offs))[int(0.9 * (len(offs) - 1))] / 1.645
