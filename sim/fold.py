"""Symmetric ranks fold: ranks that must behave alike are found by colour refinement and simulated once.

Two ranks are alike when they run equal programs and each message, group and barrier of one corresponds to one of the
other between alike ranks. Colours start from the programs and are refined by the colours of peers until they are stable
(1-dimensional Weisfeiler-Leman); the coarsest stable colouring is the answer. Folded equals unfolded, span for span.
"""

from collections.abc import Hashable, Sequence


def classes(own: Sequence[Hashable], peers: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> list[int]:
    """Class of each rank, numbered by first member. own: what a rank is by itself. peers: ranks it exchanges messages
    with, in an order that its program fixes. groups: ranks that meet; a rank sees the multiset of its groups' colours.
    """
    colours = _number(own)
    member: list[list[int]] = [[] for _ in own]
    for g, ranks in enumerate(groups):
        for rank in ranks:
            member[rank].append(g)
    count = 0
    while count != (count := len(set(colours))):
        crowds = _number([tuple(sorted(colours[r] for r in ranks)) for ranks in groups])
        colours = _number(
            [
                (colours[r], tuple(colours[p] for p in peers[r]), tuple(sorted(crowds[g] for g in member[r])))
                for r in range(len(own))
            ]
        )
    return colours


def _number(values: Sequence[Hashable]) -> list[int]:
    """The same values as small numbers, in order of first appearance."""
    known: dict[Hashable, int] = {}
    return [known.setdefault(value, len(known)) for value in values]
