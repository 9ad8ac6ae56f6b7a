"""The table of communication: each operation's time beside its bandwidth bound, and its bytes by who counts them."""

from html import escape
from typing import Any

from hwmodels.units import format_quantity
from reports.headline import percent, seconds
from reports.ranks import HEALTHY, differ
from reports.section import Section, table
from sim.result import Result

BOUND = (
    "The bound is bytes over the effective bandwidth of the slower kind of link; nothing may be faster. Logical bytes "
    "are what published bandwidths count"
)
LEAD = (
    f"What a rank exchanges, sends and reduces. {BOUND}, rows for the own node (or, inside "
    "a node, the own GPU) included; the wire and NVLink carry those of the columns to the right. Alone is with all "
    "links to itself; messages take a part of the NICs that exchanges have too. Beside compute an exchange takes what "
    "was measured there, where a table knows it; a message shares NICs with the exchanges that it meets (mean over "
    "the step)."
)
WITHOUT_EXCHANGES = (
    f"What a rank sends and reduces. {BOUND}; the wire and NVLink carry those of the columns to the right."
)
HEAD = (
    "", "of", "alone", "over the bound", "NICs shared", "beside others", "bound", "logical", "wire", "NVLink",
    "limited by",
)  # fmt: skip


def section(result: Result) -> Section | None:
    """The table of what `result` communicates, or None when it gave chunk times."""
    rows = result.summary.get("communication")
    if not rows:
        return None
    lead = WITHOUT_EXCHANGES if result.summary.get("overlap_fraction") is None else LEAD
    lead = f"{lead} {HEALTHY}" if differ(result) else lead
    return Section("communication", "Communication", lead, table(HEAD, map(_cells, rows), (0, 1, len(HEAD) - 1)))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    shared, beside = (seconds(row[key]) if key in row else "–" for key in ("shared_s", "beside_s"))
    over = percent(row["alone_s"] / row["bound_s"] - 1) if row["bound_s"] else "–"
    sizes = (row[f"{kind}_bytes"] for kind in ("logical", "wire", "nvlink"))
    moved = (format_quantity(size, "data") if size else "–" for size in sizes)
    names = (escape(row["name"]), escape(row["where"]), seconds(row["alone_s"]))
    return (*names, over, shared, beside, seconds(row["bound_s"]), *moved, _limit(row))


def _limit(row: dict[str, Any]) -> str:
    """What is slowest; and how NCCL does it, where it does."""
    return escape(row["limited_by"] + (f" ({row['way']}, {row['sms']} SMs)" if "way" in row else ""))
