"""The sweep of comm.sms as a page: a chart and tables of the splits that `python -m sim exchange` printed.

`python -m reports.studies.comm_sms SPLITS.json FOLDER` writes FOLDER/comm_sms.svg and FOLDER/comm_sms_tables.md.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwmodels.units import MICRO, MILLI, PERCENT
from reports.studies import svg
from sim.result.markdown import table

Splits = Sequence[dict[str, Any]]
ROLES = {"follow": "roles that follow their load", "fixed": "fixed roles"}
OTHER = {"follow": "fixed", "fixed": "follow"}
"""The kind of roles that is not the scenario's."""
ABOVE = 1.08
"""Of the step with the most SMs: where lines are cut."""


def chart(figures: dict[str, Any]) -> str:
    """Step time over SMs for communication, a line for each speed of warps and one for the other kind of roles, no
    higher than a little above the scenario's with the most SMs. SVG."""
    own, other = figures["splits"][figures["warps"]], OTHER[figures["warps"]]
    paces = _paces(figures, figures["warps"])
    named = {_pace(name): paces[name] for name in sorted(paces, key=float)} | {ROLES[other]: figures["splits"][other]}
    high = own[-1]["step_s"] * ABOVE
    series = [svg.Series(name, [min(s["step_s"], high) for s in splits]) for name, splits in named.items()]
    return svg.lines("Step time", "seconds; SMs for communication", [s["sms"] for s in own], series, linear=True)


def _paces(figures: dict[str, Any], kind: str) -> dict[str, Splits]:
    """Time of a warp for a row, over the fitted one -> the splits of one kind of roles."""
    return {"1": figures["splits"][kind], **figures["paces"][kind]}


def _pace(name: str) -> str:
    return "warps as fitted" if name == "1" else f"warps need {float(name):g} x the time"


# --- tables -----------------------------------------------------------------------------------------------------------


def splits_table(splits: Splits) -> str:
    """Each split: its exchanges alone, the pair, the step, and the step against the best one."""
    best = min(s["step_s"] for s in splits)
    heads = "SMs|dispatch(F) us|bound by|combine(F) us|bound by|pair ms|exposed ms|step s|over best"
    rows = []
    for s in splits:
        there, back = ({e["name"]: e for e in s["exchanges"]}[name] for name in ("dispatch(F)", "combine(F)"))
        rows.append((
            f"{s['sms']}", f"{there['seconds'] / MICRO:,.0f}", there["limited_by"], f"{back['seconds'] / MICRO:,.0f}",
            back["limited_by"], f"{s['pair_s'] / MILLI:.1f}", f"{s['pair_exposed_s'] / MILLI:.2f}",
            f"{s['step_s']:.2f}", f"{(s['step_s'] / best - 1) / PERCENT:+.1f} %",
        ))  # fmt: skip
    return table(heads.split("|"), rows, (0, 1, 3, 5, 6, 7, 8))


def paces_table(figures: dict[str, Any]) -> str:
    """The best split for each kind of roles, the scenario's first, and each speed of warps."""
    rows = []
    own = figures["warps"]
    every = {kind: _paces(figures, kind) for kind in (own, OTHER[own])}
    for kind, name in [(kind, name) for kind, paces in every.items() for name in sorted(paces, key=float)]:
        splits = every[kind][name]
        best = min(splits, key=lambda s: (s["step_s"], s["sms"]))
        twenty = next(s["step_s"] for s in splits if s["sms"] == 20)
        rows.append((ROLES[kind], f"{float(name):g} x", str(best["sms"]), f"{best['step_s']:.2f}", f"{twenty:.2f}"))
    return table(("warps", "time a row", "best SMs", "step s", "step at 20 SMs"), rows)


def published_table(rows: Splits) -> str:
    """Single exchanges beside published figures."""
    head = ("exchange", "direction", "model", "published", "error", "on the wire GB/s", "source")
    lines = (
        (r["name"], r["direction"], f"{r['found']:.1f} {r['unit']}", f"{r['published']:g} {r['unit']}",
         f"{r['error'] / PERCENT:+.1f} %", f"{r['wire']:.1f}", r["source"])
        for r in rows
    )  # fmt: skip
    return table(head, lines, range(2, 6))


def profile_table(rows: Splits) -> str:
    """The profile's four exchanges: alone by two models, beside compute as measured."""
    head = ("exchange", "bytes over links us", "kernel alone us", "measured beside compute us", "stretch")
    lines = (
        (r["name"], f"{r['closed']:,.0f}", f"{r['alone']:,.0f}",
         f"{r['measured']:,.0f} ({r['low']:,.0f} to {r['high']:,.0f})", f"{r['stretch']:.2f}")
        for r in rows
    )  # fmt: skip
    return table(head, lines)


def tables(figures: dict[str, Any]) -> str:
    """All tables, in the order of the page: the scenario's kind of roles, then the other."""
    own = figures["warps"]
    parts = (
        splits_table(figures["splits"][own]), paces_table(figures), splits_table(figures["splits"][OTHER[own]]),
        published_table(figures["published"]), profile_table(figures["profile"]),
    )  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m reports.studies.comm_sms SPLITS.json FOLDER", file=sys.stderr)
        return 2
    figures, folder = json.loads(Path(arguments[0]).read_text(encoding="utf-8")), Path(arguments[1])
    (folder / "comm_sms.svg").write_text(chart(figures), encoding="utf-8")
    (folder / "comm_sms_tables.md").write_text(tables(figures), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
