"""Intervals of a user's own runs: each by what the file's other runs teach, beside the class that ships."""

from collections.abc import Sequence
from dataclasses import replace
from math import exp

from sim.analysis import left_out
from sim.validation.runs import learn
from sim.validation.runs.outcome import Outcome


def owned(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[str]]:
    """With intervals of their own, where there are enough; and a line a kind on what was done."""
    some = learn.cases(outcomes)
    ran = [each for each in outcomes if each.error is not None and each.answer.parts]
    ends = {each.run.id: reach for each, reach in zip(ran, learn.own(some, left_out.learned()), strict=True)}
    out = [replace(each, own=_seconds(each, ends.get(each.run.id))) for each in outcomes]
    return out, [_line(kind, some, out) for kind in dict.fromkeys(case.of.kind for case in some)]


def _seconds(each: Outcome, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    step = each.predicted_s
    return (step * exp(ends[0]), step * exp(ends[1])) if ends and step else None


def _line(kind: str, some: Sequence[learn.Case], outcomes: Sequence[Outcome]) -> str:
    layouts = len({case.group for case in some if case.of.kind == kind})
    if layouts <= learn.ENOUGH:
        enough = f"fewer than {learn.ENOUGH + 1}, so their intervals are those that ship"
        return f"intervals of their own, {kind}: {layouts} layouts ran, {enough}"
    mine = [each for each in outcomes if each.own and each.answer.parts["class"]["kind"] == kind]
    own = sum(each.own[0] <= (each.run.step_s or 0.0) <= each.own[1] for each in mine if each.own)
    ships = sum(each.inside for each in mine)
    what = "each from the other layouts' errors, pooled with the class that ships"
    inside = f"{own} of {len(mine)} runs inside ({ships} of the intervals that ship)"
    return f"intervals of their own, {kind}: {layouts} layouts, {what}: {inside}"
