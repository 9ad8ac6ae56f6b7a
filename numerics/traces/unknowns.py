"""What was not understood of a trace, each with its share of kernel time, and what the shares are in all.

A piece of work is understood when a rule says what it does, it stands where its phase expects it, and its launch is in
the trace. What only a catch-all knows (where it comes from, not what it does) counts on its own.
"""

from collections import defaultdict
from typing import NamedTuple

from numerics.traces.importer import Analysis
from numerics.traces.operations import Operation

SHOWN_CHARACTERS = 120
"""Of a kernel's name in a report; C++ templates can have thousands."""
UNJOINED = "launch not in the trace, or not the only one with its correlation id"
NO_RULE, CATCH_ALL = "no rule for", "known only by a catch-all"


class Unknown(NamedTuple):
    """Something that was not understood: what it is, which kernel, how many, and its share of kernel time."""

    what: str
    name: str
    kernels: int
    share: float

    def __str__(self) -> str:
        return f"{self.what}: {shown(self.name)} ({self.kernels} times, {self.share:.2%} of kernel time)"


class Shares(NamedTuple):
    """Shares of kernel time, 0 to 1, that have no piece of work in common. unknown: not understood for any reason;
    no_rule: that part of it that no rule knew; general: known only by a catch-all."""

    unknown: float
    no_rule: float
    general: float


def shown(name: str) -> str:
    """A kernel's name for a terminal: one line, no control characters, cut where templates make it endless."""
    short = name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}..."
    return "".join(c if c.isprintable() else "?" for c in short)


def unknown(analysis: Analysis) -> tuple[Unknown, ...]:
    """What was not understood, the largest share of time first; empty when everything was."""
    total = _total(analysis)
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for op in analysis.operations:
        unjoined = [us for us, joined in zip(op.us, op.joined, strict=True) if not joined]
        reasons = [(_reason(op, analysis), op.kernel, op.us), (UNJOINED, "no phase or dimensions for these", unjoined)]
        for what, name, times in reasons:
            if what and times:
                entry = sums[what, name]
                entry[0] += len(times)
                entry[1] += sum(times)
    out = [Unknown(what, name, int(n), us / total) for (what, name), (n, us) in sums.items()]
    return tuple(sorted(out, key=lambda u: -u.share))


def shares(analysis: Analysis) -> Shares:
    """How much of kernel time was not understood; each piece of work counts once, whatever is unknown of it."""
    total = _total(analysis)
    strange = no_rule = general = 0.0
    for op in analysis.operations:
        reason = _reason(op, analysis)
        unjoined = sum(us for us, joined in zip(op.us, op.joined, strict=True) if not joined)
        strange += sum(op.us) if reason not in ("", CATCH_ALL) else unjoined
        no_rule += sum(op.us) if reason == NO_RULE else 0.0
        general += sum(op.us) - unjoined if reason == CATCH_ALL else 0.0
    return Shares(strange / total, no_rule / total, general / total)


def _total(analysis: Analysis) -> float:
    return sum(sum(op.us) for op in analysis.operations) or 1.0


def _reason(op: Operation, analysis: Analysis) -> str:
    """Why an operation is not understood by its name and place; "" when it is."""
    if not op.known:
        return CATCH_ALL if op.general else NO_RULE
    expected = op.phase in analysis.rules.sequences and op.position < 0 and not op.loose
    return f"not in the sequence of {op.phase}" if expected else ""
