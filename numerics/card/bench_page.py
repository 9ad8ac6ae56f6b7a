"""The page of a bench (docs/KERNELS.md): what each kernel took on a card, beside the bound and the best other call.

Made from the JSON that `python -m numerics bench` writes; nothing is typed in.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from hwmodels.units import GIGA, TERA

ROOT = Path(__file__).resolve().parents[2]
OTHER_WORK = ("bf16", "by row")
"""Words in the names of torch's calls that do other work than ours."""
MEASURED = ROOT / "docs" / "kernels"
"""One JSON a card."""
PAGE = ROOT / "docs" / "KERNELS.md"

HEAD = """# What the kernels take on a card

Made by `python -m numerics bench --page` from the measurements in `docs/kernels/`, one file a run, each written by
`python -m numerics bench`; of each family the last run on a card is shown. A variant is timed only after its output
passed its gate on that card. *bound* is the larger of FLOP over the matrix rate and bytes over the copy rate that the
same card reached in the same run (a product of 8,192^3 and a copy of 1 GiB); *of bound* is the part of it that a
kernel reached. A *library* is torch's own call for the same work or less (rowwise scales instead of blocks, BF16
instead of FP8). A *rival* is another project's kernel for the same work, timed after its output passed our gate:
DeepGEMM (03d0be3, built on the card) and FlashAttention-4 (4.0.0b36: its kernels compiled ahead, their host side
written anew), where `--rivals` named a folder that holds them. The first table compares with the fastest of all.

Forms of products: *default* (what a call without a choice takes); `192x128 3 consumers s4`: tiles of rows x columns,
warpgroups that multiply, blocks of K under way (numerics/kernels/wgmma.py), *pair* where two programs load rows for
each other, *band* the tile rows that neighbouring programs share (8 where it is not said); *twin* (the same product in
Triton, with equal bits); *scales stored by row* (the default on scales of another layout: they are turned first). On a
card measured before 2026-11-30 forms are Triton's: *flat*, *descriptor*, *pointer*, *twin* (two programs of 64 rows an
SM), *low*.
Forms of attention: *default* (Hopper's own in Gluon, numerics/kernels/flash.py and flash_backward.py; dQ added in one
order, so that every bit repeats), *in any order* (the same without that; when its rows here were measured it was called
default and the other *in one order*), *tma*, *pointer*, *wide* (Triton; two backward kernels of seven products, whose
bits repeat too).

What bound products of 192 x 128 on an H200 is what L2 gives: at 4096 x 7168 x 16384 they take 612 us without loads,
722 us without products (9 TB/s) and 828 us with both (an experiment of 2026-11-30 with kernels that skip one or the
other; no row here). Pairs of programs with tiles of 256 x 128 read 0.6 of those bytes; which of the tensor core, shared
memory (by arithmetic 1,150 cycles a block of 128 of K beside 1,024 of products) and power binds those, no counter has
said. By arithmetic on these rows: attention forward the tensor core (86 % of the matrix rate);
backward shared memory as much as the tensor core (an m64 product reads both operands from there: about 3,400 cycles
of its 128 bytes a cycle, beside 3,300 of products, a block of 64 queries and 128 keys), and about 150 us of its time
go to rounding the FP32 sums of dQ (and in any order 100 to clearing them); of 64 heads that share 8 L2's misses were
what bound it (experiments of 2026-11-30, no row here: 1,490 us, and 1,110 with nothing added to dQ; since all
programs of a wave are at the same queries 1,160 and 1,090, or 1,070 and 1,030 in any order); weight gradients the
tensor core, and two scales an element on the CUDA cores; casts memory, but for columns of codes (requantize_columns),
which neither a fifth fewer instructions (scales of powers of two) nor twice the threads make much faster: what binds
them is not known.

*never promoted* leaves all sums in the tensor core's 14 bits; it is timed to show what promotion costs and is not
counted among the fastest.
"""


def page(folder: Path = MEASURED) -> str:
    """The page as Markdown."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    last: dict[tuple[str, str], str] = {}
    for document in sorted(documents, key=lambda d: str(d["provenance"]["date"])):
        last |= {(document["provenance"]["device"], row["family"]): document["provenance"]["date"]
                 for row in document["rows"]}  # fmt: skip
    parts = [HEAD]
    for document in documents:
        parts += list(_card(document, last))
    return "\n".join(parts)


def _card(document: Mapping[str, Any], last: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Its section, of the families that no later run on such a card timed. last: the date of the last run of each."""
    said, ceilings = document["provenance"], document["ceilings"]
    kept, rows = ([row for row in document[key] if last[said["device"], row["family"]] == said["date"]]
                  for key in ("summary", "rows"))  # fmt: skip
    whole = len(rows) == len(document["rows"]) and "--only" not in said["command"]
    families = "" if whole else ": " + ", ".join(dict.fromkeys(row["family"] for row in rows))
    yield f"## {said['device']}{families}\n"
    yield (
        f"{said['date']}; driver {said['driver']}, CUDA {said['cuda']}, torch {said['torch']}, triton {said['triton']};"
        f" `{said['command']}`, {said['repetitions']} repetitions, {said['method']}. Ceilings in the same run: copy"
        f" {ceilings['copy_bytes_per_s'] / GIGA:,.0f} GB/s, BF16 {ceilings['bf16_flop_per_s'] / TERA:,.0f} TFLOP/s,"
        f" FP8 {ceilings['fp8_flop_per_s'] / TERA:,.0f} TFLOP/s.\n"
    )
    yield from _table(
        "kernel | shape | fastest form | us | of bound | best other call | us | times as fast as it",
        map(_verdict, kept),
    )
    yield "\nThe default form beside each other kernel, by the geometric mean over shapes and the least of them:\n"
    yield from _table("kernel | rows | other | shapes | times as fast as it | least", _beside(rows))
    yield "\nEvery form:\n"
    yield from _table("kernel | shape | form | us | 10 % | 90 % | TFLOP/s | GB/s | of bound", map(_row, rows))
    yield ""


def _beside(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Kernel, its rows where they are told apart (or its direction), the other, shapes, mean and least ratio of times.
    Other projects' kernels, and torch's for the same work; BF16 and rowwise scales, which are other work, are not."""
    ours = [r for r in rows if r["kind"] == "ours" and "median_us" in r and "never promoted" not in r["variant"]]
    own = {(r["family"], r["case"]): r["median_us"] for r in sorted(ours, key=lambda r: r["variant"] == "default")}
    ratios: dict[tuple[str, str, str], list[float]] = {}
    for r in rows:
        if r["kind"] != "ours" and not any(word in r["variant"] for word in OTHER_WORK) and "median_us" in r:
            end = {"gemm": "x", "attention": " tokens"}.get(r["family"])
            part = r["case"].partition(end)[0] if end else ""
            ratio = r["median_us"] / own[r["family"], r["case"]]
            ratios.setdefault((r["family"], part, r["variant"]), []).append(ratio)
    for (family, part, other), each in ratios.items():
        yield [family, part, other, str(len(each)), f"{geometric_mean(each):.3f}", f"{min(each):.3f}"]


def _verdict(v: Mapping[str, Any]) -> list[str]:
    start = [v["family"], v["case"], v["variant"], f"{v['us']:,.1f}", f"{v['of_bound']:.0%}"]
    if not v["library"]:
        return [*start, "none", "", ""]
    return [*start, v["library"], f"{v['library_us']:,.1f}", f"{v['times_library']:.2f}"]


def _row(r: Mapping[str, Any]) -> list[str]:
    whose = "" if r["kind"] == "ours" else f" ({r['kind']})"
    start = [r["family"], r["case"], r["variant"] + whose]
    if "refused" in r:
        return [*start, f"not timed: {r['refused']}".replace("|", "/"), "", "", "", "", ""]
    times = [f"{r[key]:,.1f}" for key in ("median_us", "low_us", "high_us")]
    rates = [f"{r['flop_per_s'] / TERA:,.0f}" if r["flop_per_s"] else "", f"{r['bytes_per_s'] / GIGA:,.0f}"]
    return [*start, *times, *rates, f"{r['of_bound']:.0%} ({r['bound']})"]


def _table(head: str, rows: Iterable[Iterable[str]]) -> Iterator[str]:
    columns = head.split(" | ")
    yield f"| {head} |"
    yield "|" + "|".join(["---"] * 3 + ["---:"] * (len(columns) - 3)) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
