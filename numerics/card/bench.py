"""`python -m numerics bench`: verify, then time every kernel at DeepSeek-V3's shapes beside the best library call.

A row says how long a call took, its rate, and the part it reached of the bound: the larger of FLOP over the measured
matrix rate and bytes over the measured copy rate of the same card in the same run. A variant whose output does not pass
its gate is not timed; a library call that is absent or refuses says so in its row.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hwmodels.units import GIGA, TERA, US_PER_S
from numerics import ops
from numerics.card import measure
from numerics.card.workload import Case, Work, cases
from numerics.reference import compare

Row = dict[str, Any]


def run(
    quick: bool, show: Callable[[str], None], rivals: Path | None = None, only: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The document that `bench` writes: provenance, ceilings, rows. Raises NoDevice without a CUDA device.

    rivals: a folder with packages of other projects, put before Python's path. only: families, all where it is empty.
    ValueError for a family that there is not.
    """
    known = list(dict.fromkeys(case.family for case in cases(quick)))
    if unknown := sorted(set(only) - set(known)):
        raise ValueError(f"families are {', '.join(known)}; got {unknown}")
    measure.require_device()
    sys.path[:0] = [str(rivals.resolve())] if rivals else []
    repetitions = 10 if quick else 50
    with measure.Monitor() as monitor:
        ceilings = measure.ceilings()
        show(ceiling_line(ceilings))
        show(HEAD)
        rows: list[Row] = []
        for case in (c for c in cases(quick) if not only or c.family in only):
            for row in measured(case, ceilings, repetitions, monitor):
                rows.append(row)
                show(line(row))
            torch.cuda.empty_cache()
    document = {"provenance": measure.provenance(repetitions), "ceilings": ceilings, "rows": rows}
    return {**document, "summary": verdicts(rows)}


def measured(case: Case, ceilings: dict[str, float], repetitions: int, monitor: measure.Monitor) -> Iterator[Row]:
    """Rows of one case: ours, then the library's."""
    try:
        work = case.build("cuda")
    except Exception as error:
        yield {**head(case, "all", "ours"), "refused": reason(error)}
        return
    for variant, call in work.ours.items():
        row = head(case, variant, "ours")
        wrong = "" if variant in work.unverified else verify(work, call)
        yield {**row, "refused": wrong} if wrong else {**row, **timed(case, call, ceilings, repetitions, monitor)}
    for variant, call in work.rivals.items():
        row = head(case, variant, "rival")
        wrong = verify(work, call)
        yield {**row, "refused": wrong} if wrong else {**row, **timed(case, call, ceilings, repetitions, monitor)}
    for variant, call in work.library.items():
        row = head(case, variant, "library")
        try:
            yield {**row, **timed(case, call, ceilings, repetitions, monitor)}
        except Exception as error:
            yield {**row, "refused": reason(error)}


def head(case: Case, variant: str, kind: str) -> Row:
    return {"family": case.family, "case": case.name, "variant": variant, "kind": kind}


def verify(work: Work, call: Callable[[], Any]) -> str:
    """Why the call's output is wrong, or "" where it passes: bitwise if exact, else the gate of compare."""
    try:
        expected = work.expected()
        output = work.narrow(call())
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return differences(output, expected, work.exact, work.tolerance)
    except Exception as error:
        return reason(error)


def differences(actual: Any, expected: Any, exact: bool, tolerance: float = compare.PRODUCT) -> str:
    """Failures of each tensor of two results, joined. exact: bit for bit, as whole numbers always are."""
    if isinstance(expected, ops.Layout):
        actual, expected = actual.tensors, expected.tensors
    if isinstance(expected, torch.Tensor):
        actual, expected = [actual], [expected]
    failures: list[str] = []
    for one, other in zip(actual, expected, strict=True):
        if exact or not other.is_floating_point():
            failures += compare.gate_bitwise(one, other, raises=False).failures
        elif other.dtype == torch.float8_e4m3fn:
            failures += _steps(one, other)
        else:
            failures += compare.gate(one, other, tolerance, raises=False).failures
    return "; ".join(failures)


TIES = 1e-4
"""Share of E4M3 codes that may be one step off where a kernel's own exponential decides a tie: in the interpreter one
code of half a million was, in 2 of 60 draws."""


def _steps(actual: torch.Tensor, expected: torch.Tensor) -> list[str]:
    """Codes of a cast whose input is not exact: none more than one step off, and few at all."""
    off = (actual.view(torch.uint8).int() - expected.view(torch.uint8).int()).abs()
    share = float((off > 0).double().mean())
    if int(off.max()) > 1:
        return [f"a code is {int(off.max())} steps off"]
    return [f"{share:.2%} of the codes are a step off"] if share > TIES else []


def reason(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def timed(
    case: Case, call: Callable[[], Any], ceilings: dict[str, float], repetitions: int, monitor: measure.Monitor
) -> Row:
    """Time, rates, the part of the bound, and what the card's clocks and power were."""
    start = time.monotonic()
    timing = measure.time_call(call, repetitions)
    seconds = timing.median_us / US_PER_S
    bound, name = bound_of(case, ceilings)
    return {
        **asdict(timing), "flop_per_s": case.flop / seconds, "bytes_per_s": case.bytes / seconds, "bound": name,
        "of_bound": bound / seconds, "card": monitor.between(start, time.monotonic()),
    }  # fmt: skip


def bound_of(case: Case, ceilings: dict[str, float]) -> tuple[float, str]:
    """The least seconds that the measured ceilings allow, and which of them says so."""
    matrix = case.flop / ceilings["fp8_flop_per_s" if case.fp8 else "bf16_flop_per_s"]
    memory = case.bytes / ceilings["copy_bytes_per_s"]
    return max((matrix, "matrix"), (memory, "memory"))


def verdicts(rows: list[Row]) -> list[Row]:
    """For each case, our fastest verified variant against the fastest call of a library or a rival."""
    out = []
    for family, name in dict.fromkeys((r["family"], r["case"]) for r in rows):
        here = [r for r in rows if (r["family"], r["case"]) == (family, name) and "median_us" in r]
        ours = [r for r in here if r["kind"] == "ours" and "never promoted" not in r["variant"]]
        library = [r for r in here if r["kind"] in ("library", "rival")]
        if ours:
            best = min(ours, key=lambda r: r["median_us"])
            rival = min(library, key=lambda r: r["median_us"], default=None)
            out.append({
                "family": family, "case": name, "variant": best["variant"], "us": best["median_us"],
                "of_bound": best["of_bound"], "library": rival and rival["variant"],
                "library_us": rival and rival["median_us"],
                "times_library": rival and rival["median_us"] / best["median_us"],
            })  # fmt: skip
    return out


HEAD = f"{'family':10} {'case':28} {'variant':34} {'us':>9} {'p10':>9} {'p90':>9} {'TFLOP/s':>8} {'GB/s':>7} bound"


def ceiling_line(ceilings: dict[str, float]) -> str:
    copy, bf16, fp8 = (ceilings[k] for k in ("copy_bytes_per_s", "bf16_flop_per_s", "fp8_flop_per_s"))
    return f"ceilings here: copy {copy / GIGA:.0f} GB/s, bf16 {bf16 / TERA:.0f} TFLOP/s, fp8 {fp8 / TERA:.0f} TFLOP/s"


def line(row: Row) -> str:
    """One row of the table."""
    start = f"{row['family']:10} {row['case']:28} {row['variant']:34}"
    if "refused" in row:
        return f"{start} not timed: {row['refused']}"
    times = " ".join(f"{row[key]:9.2f}" for key in ("median_us", "low_us", "high_us"))
    rates = f"{row['flop_per_s'] / TERA:8.1f} {row['bytes_per_s'] / GIGA:7.0f}"
    return f"{start} {times} {rates} {row['bound']} {row['of_bound']:.0%}"


def write(document: dict[str, Any], path: Path) -> None:
    """The document as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
