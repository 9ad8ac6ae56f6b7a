"""What is learned of published runs: against drawn errors whose spread is known, and against what it promises."""

import json
from dataclasses import replace
from math import exp, log
from pathlib import Path

import numpy as np
import pytest

from sim.analysis import left_out
from sim.analysis.left_out import ANY, FEATURES, FLOOR, HALF, Class, Learned, Spread
from sim.validation.runs import learn, own, record
from sim.validation.runs.learn import Case, Columns, cases, ends, judged, learned, scale
from sim.validation.runs.outcome import Answer, Outcome, renewed
from sim.validation.runs.rows import FILE, asked, read

ROWS = list(asked(read(FILE)))
DENSE, MIXED = Class("dense", "megatron", "hopper", "cluster"), Class("mixture", "megatron", "hopper", "cluster")
TORCH = replace(DENSE, stack="torch")
NORMAL = 0.6745
"""Median of a standard normal's size."""


def drawn(count, spread, of=DENSE, families=10, prices=0.0, seed=0, shift=0.0, name="family", **known):
    """Runs of several families whose errors are normal."""
    random = np.random.default_rng(seed)
    errors = random.normal(shift, spread, count)
    return [
        Case(f"{name} {n % families}", f"{of.kind} {name} {n}", of, float(error), -prices, prices,
             **{"unsaid": 0, **known}) for n, error in enumerate(errors)
    ]  # fmt: skip


def inside(some, by):
    """The part of runs that lies in intervals."""
    low, high = ends(some, by)
    error = Columns(some).of("error")
    return ((low <= error) & (error <= high)).mean()


# --- how large remainders are -----------------------------------------------------------------------------------------


def test_the_scale_is_the_median_of_remainders():
    found = scale(drawn(4000, 0.1))
    assert exp(found[ANY]) == pytest.approx(0.1 * NORMAL, rel=0.06)
    assert found["mixture"] == found["short"] == found["untimed"] == 0 and found["unsaid"] == pytest.approx(log(1.1))


def test_what_is_known_of_a_run_makes_it_wider_by_as_much_as_runs_show():
    untimed = replace(DENSE, blocks="untimed")
    plain, wide = drawn(2000, 0.05), [
        drawn(2000, 0.05 * 2, MIXED, seed=1), drawn(2000, 0.05 * 1.5**2, unsaid=2, seed=2),
        drawn(2000, 0.05 * 2, mfu=HALF / 4, seed=3), drawn(2000, 0.05 * 3, untimed, seed=4),
    ]  # fmt: skip
    for name, slope, some in zip(FEATURES, (log(2), log(1.5), 0.5, log(3)), wide, strict=True):
        assert 0.5 * slope < scale([*plain, *some])[name] < 1.1 * slope, name  # the ridge holds it back


def test_nothing_that_is_known_makes_a_run_surer():
    """However right runs were of which less is known; an open key makes an interval wider by a tenth at least."""
    untimed = replace(DENSE, blocks="untimed")
    wide = drawn(500, 0.2)
    some = [*wide, *drawn(500, 0.02, MIXED, seed=1), *drawn(500, 0.02, unsaid=2, seed=2),
            *drawn(500, 0.02, mfu=0.1, seed=3), *drawn(500, 0.02, untimed, seed=4)]  # fmt: skip
    found = scale(some)
    assert [found[name] for name in FEATURES] == pytest.approx([0, log(1.1), 0, 0])


def test_one_far_off_layout_moves_no_scale():
    """A median: how far the furthest are off says nothing."""
    some = drawn(200, 0.05)
    one, other = ([*some, *(Case("odd", f"o{n}", DENSE, error, 0, 0, 0) for n in range(9))] for error in (1.0, 3.0))
    assert scale(one) == pytest.approx(scale(other), abs=0.02)
    assert exp(scale(other)[ANY]) == pytest.approx(0.05 * NORMAL, rel=0.25)


def test_what_prices_explain_is_not_counted_again():
    """What lies within the spread of prices, as far as it is borne out, is no remainder; the rest adds up to it."""
    (near, far) = (Case("f", "g", DENSE, error, -0.1, 0.1, 0) for error in (0.1 * learn.SHARE, -0.1))
    assert Columns([near]).remainders() == pytest.approx([0.0])
    assert Columns([far]).remainders() == pytest.approx([-0.1 * (1 - learn.SHARE**2) ** 0.5])
    some = drawn(50, 0.1, prices=0.05)
    left, errors = Columns(some).remainders(), Columns(some).of("error")
    assert (np.abs(left) <= np.abs(errors)).all() and (left * errors >= 0).all()


def test_a_layout_counts_once():
    """A hundred releases of one layout say as much as one."""
    some = drawn(60, 0.1)
    again = [Case("family 0", "same", DENSE, 0.9, 0.0, 0.0, 0, 1 / 100)] * 100
    once = [Case("family 0", "same", DENSE, 0.9, 0.0, 0.0, 0)]
    assert scale([*some, *again]) == pytest.approx(scale([*some, *once]))
    one, other = (learned([*some, *more], []).sides["dense"] for more in (again, once))
    assert one.above == pytest.approx(other.above, rel=0.1) and one.groups == other.groups == 61
    outcomes = [Outcome(replace(run, group="g"), ANSWER) for run in ROWS[:4]]
    assert [case.weight for case in cases(outcomes)] == [0.25] * 4


ANSWER = Answer(
    1.0, 0.9, 1.1, {"prices": [0.95, 1.05], "class": vars(DENSE), "unsaid": ["recompute"], "mfu": 0.4}, 1
)  # fmt: skip


def test_a_family_counts_less_than_its_layouts():
    """However many a publisher ran: they are wrong together."""
    one = [Case("large", f"a{n}", DENSE, 0.02, 0.0, 0.0, 0) for n in range(361)]
    rest = [Case(f"small {n}", f"b{n}", DENSE, 0.4, 0.0, 0.0, 0) for n in range(20)]
    assert exp(scale([*one, *rest])[ANY]) > 0.1  # 20 of 381 layouts, but 20 of 39 in weight


def test_cases_are_logarithms_over_the_predicted_step():
    (case,) = cases([Outcome(ROWS[0], ANSWER), Outcome(ROWS[1], Answer(refused="no"))])
    assert case.error == pytest.approx(log(ROWS[0].step_s)) and (case.unsaid, case.mfu) == (1, 0.4)
    assert (case.low, case.high) == pytest.approx((log(0.95), log(1.05))) and case.of == DENSE


# --- how far intervals reach ------------------------------------------------------------------------------------------


def test_nine_of_ten_lie_inside_whatever_the_errors_are_like():
    """Of families that were not learned on, of normal errors and of ones with long tails, half of each side."""
    for seed in range(3):
        random = np.random.default_rng(seed)
        some = drawn(600, 0.08, prices=0.05, seed=seed)
        tails = [case._replace(error=float(random.standard_t(2)) * 0.05) for case in some]
        for runs in (some, tails):
            left = [case for case in runs if case.family < "family 5"]
            rest = [case for case in runs if case.family >= "family 5"]
            by = learned(rest, [])
            assert 0.85 <= inside(left, by) <= 0.95
            low, high = ends(left, by)
            error = Columns(left).of("error")
            assert (error < low).mean() < 0.09 and (error > high).mean() < 0.09


def test_errors_to_one_side_make_an_interval_to_that_side():
    side = learned(drawn(2000, 0.02, shift=0.2), []).sides["dense"]
    size = exp(scale(drawn(2000, 0.02, shift=0.2))[ANY])
    assert side.above * size == pytest.approx(0.233, rel=0.05)
    assert side.below == pytest.approx(learn.ASKEW * side.above)  # nobody was too fast, which promises nothing


def test_few_runs_reach_further_than_their_furthest():
    """Of four runs none says how far one of twenty is off; without runs a judgement stands."""
    few = [case._replace(error=0.01) for case in drawn(4, 0.01)]
    assert learned(few, []).sides["dense"].above * 0.01 > 0.3
    none = learned([], [])
    for of in (DENSE, MIXED):
        assert none.spread(of, 0, 1.0)[1:] == pytest.approx((learn.ALONE * learn.GROUND,) * 2)


def test_a_family_is_judged_by_the_others_alone():
    """Nothing of one that is far off reaches further when it is further off, in size; in all, where the others alone
    say how far."""
    some = drawn(300, 0.02, families=9)
    odd, odder = (
        [case._replace(family="odd", group=f"odd {n}", error=error, unsaid=1) for n, case in enumerate(some[:40])]
        for error in (0.5, 0.9)
    )
    one, other = ([*some, *far] for far in (odd, odder))
    sizes = [learn._by_others(each)[300:] for each in (one, other)]
    assert (sizes[0] == sizes[1]).all() and (sizes[0] < 0.05).all()
    for each in (one, other):
        how = learn.unseen(each)
        assert how.families["odd"] == (40, 0) and how.families["family 1"][1] / how.families["family 1"][0] > 0.8


def test_of_a_large_family_the_promised_part_lies_inside():
    """Its runs stretch their stack and no other."""
    some = [*drawn(800, 0.05, families=9), *drawn(200, 0.05, TORCH, families=4, seed=1, name="torch")]
    odd = [case._replace(family="odd", group=f"odd {n}", error=0.4, of=TORCH) for n, case in enumerate(some[:25])]
    few = [case._replace(family="few", group=f"few {n}", error=3.0) for n, case in enumerate(some[: learn.ENOUGH - 1])]
    every = [*some, *odd, *few]
    without, kept = learned(every, []), learned(every, ["odd", "few"])
    assert set(without.stretch.values()) == {1.0, without.stretch[ANY]}
    assert kept.stretch["megatron"] == 1.0 < kept.stretch["torch"]  # of the few nothing is asked
    assert learn.left_out(every, without).families["odd"][1] < learn.EACH * 25
    assert learn.left_out(every, kept).families["odd"][1] >= learn.EACH * 25
    narrower = replace(kept, stretch={**kept.stretch, "torch": 0.98 * kept.stretch["torch"]})
    assert learn.left_out(every, narrower).families["odd"][1] < learn.EACH * 25


def test_a_run_that_every_interval_holds_needs_no_stretch():
    near, far = (Case("f", "g", DENSE, error, 0.0, 0.0, 0) for error in (0.9 * FLOOR, -4 * FLOOR))
    sides = {"dense": Spread(1, 2.0, 2.0)}
    assert learn._needed([near, far], np.full(2, FLOOR / 10), sides) == pytest.approx([0.0, 20.0])


def test_each_kind_reaches_by_its_own_runs():
    dense, mixed = drawn(200, 0.05, prices=0.05), drawn(100, 0.15, MIXED, prices=0.05, seed=1)
    found = learned([*dense, *mixed], [])
    how = judged([*dense, *mixed], *ends([*dense, *mixed], found))
    assert learn.PROMISE[0] <= how.inside <= learn.PROMISE[1] and how.halves["dense"] < how.halves["mixture"] < exp(
        0.35
    )
    again = learned([*dense, *([case._replace(error=case.error + 0.6) for case in mixed])], [])
    before, after = ([table.spread(of, 0, 1.0) for of in (DENSE, MIXED)] for table in (found, again))
    assert after[1].above > before[1].above + 0.4
    assert after[0][1:] == pytest.approx(before[0][1:], rel=0.1)


# --- a user's own runs ------------------------------------------------------------------------------------------------

SHIPS = Learned(1.0, {ANY: 0.0, **dict.fromkeys(FEATURES, 0.1)}, {"dense": Spread(5, 0.3, 0.3)}, {ANY: 1.0})


def test_own_runs_need_enough_layouts_and_never_themselves():
    few, many = drawn(learn.ENOUGH, 0.01), drawn(40, 0.01, seed=2)
    assert set(learn.own(few, SHIPS)) == {None}
    ends = list(learn.own(many, SHIPS))
    assert all(end and end[1] - end[0] < 0.6 for end in ends)
    odd = [many[0]._replace(error=2.0), *many[1:]]
    assert next(iter(learn.own(odd, SHIPS))) == pytest.approx(ends[0])  # its own error is not in its interval


def test_own_intervals_say_what_was_done():
    rows = [replace(run, group=f"g{n}") for n, run in enumerate(ROWS[:20])]
    steps = [run.step_s / (1.2 + 0.01 * n) for n, run in enumerate(rows)]
    parts = [{**ANSWER.parts, "prices": [0.95 * step, 1.05 * step]} for step in steps]
    answers = [ANSWER._replace(step_s=step, parts=part) for step, part in zip(steps, parts, strict=True)]
    outcomes = [Outcome(run, answer) for run, answer in zip(rows, answers, strict=True)]
    owned, lines = own.owned(outcomes)
    inside = sum(each.own[0] <= each.run.step_s <= each.own[1] for each in owned)
    assert inside >= 17 and all(each.own[1] < 1.5 * each.predicted_s for each in owned)
    assert "dense: 20 layouts" in lines[0] and f"{inside} of 20 runs inside" in lines[0]
    _, lines = own.owned(outcomes[:3])
    assert "3 layouts ran, fewer than" in lines[0]


# --- what ships -------------------------------------------------------------------------------------------------------


def test_the_record_says_what_it_was_learned_on_and_by_which_program():
    held = record.held()
    assert held["runs"]["digest"] == record.digest(FILE), "the runs moved: python -m sim validate --runs FILE --learn"
    assert held["program"] == record.digest(*record.PROGRAM), (
        "the program moved: python -m sim validate --runs FILE --learn"
    )
    assert held["runs"]["asked"] == len(ROWS)


def test_the_promise_is_kept_on_families_that_were_left_out():
    judged_, unseen = record.held()["judged"], record.held()["unseen"]
    low, high = learn.PROMISE
    assert low <= judged_["inside"] <= high and low <= unseen["inside"] <= high
    large = {name: inside / rows for name, (rows, inside) in judged_["families"].items() if rows >= learn.LARGE}
    assert len(large) > 4 and min(large.values()) >= learn.EACH, large


def test_a_record_is_read_as_it_was_written(tmp_path, monkeypatch):
    outcomes = [
        Outcome(replace(run, group=f"g{n}", step_s=1 + 0.01 * (n % 9)), ANSWER) for n, run in enumerate(ROWS[:60])
    ]
    content = record.record(FILE, outcomes)
    monkeypatch.setattr(left_out, "FILE", tmp_path / "left_out.json")
    Path(left_out.FILE).write_text(record.text(content), encoding="utf-8")
    left_out.learned.cache_clear()
    try:
        assert left_out.learned().scale == pytest.approx(content["scale"], abs=1e-3)
        assert left_out.learned().sides["mixture"].groups == 0  # no run was one: what stood before any
        wider = renewed(outcomes[0])
        assert wider.answer.step_s == 1.0 and (wider.answer.low_s, wider.answer.high_s) != (0.9, 1.1)
        assert "learned on 60 runs of 60 layouts" in record.kept(content)
        assert json.loads(record.text(content))["runs"]["file"] == FILE.name
    finally:
        left_out.learned.cache_clear()


# --- a stack that no run had ------------------------------------------------------------------------------------------


def test_an_unknown_stack_is_judged_by_leaving_stacks_out():
    """Of one that is off as others are no stretch is needed; of one that is off further, one is."""
    few = drawn(200, 0.05, families=4)
    alike = [*few, *drawn(200, 0.05, TORCH, families=5, seed=1, name="torch")]
    apart = [*few, *drawn(200, 0.15, TORCH, families=5, seed=1, name="torch")]
    (near, shares), (far, others) = (learn._apart(some, []) for some in (alike, apart))
    assert near < 1.1 and far > 1.5 and set(shares) == set(others) == {"megatron", "torch"}
    assert min(*shares.values(), *others.values()) >= learn.EACH
    assert learned(apart, []).stretch[ANY] == far


def test_an_unknown_stack_is_never_surer_than_its_class():
    """Of two that are hardly off at all, less than one stretch would do."""
    some = [*drawn(200, 0.001, families=4), *drawn(200, 0.001, TORCH, families=5, seed=1, name="torch")]
    assert min(learned(some, learn.large(some)).stretch.values()) == 1.0
    other = replace(DENSE, stack="deepseek")
    for table in (learned(some, []), left_out.learned()):
        known, unknown = (table.spread(of, 0, 0.3) for of in (DENSE, other))
        assert unknown.below >= known.below >= FLOOR and unknown.above >= known.above
        assert min(table.stretch.values()) >= 1.0


def test_where_nothing_judges_an_unknown_stack_it_gets_the_largest_stretch():
    apart = [*drawn(50, 0.1), *drawn(50, 0.1, replace(MIXED, stack="torch"))]
    assert learn._apart(apart, []) == (learn.ALONE, {})


def test_what_ships_keeps_the_promise_for_each_stack_by_the_others():
    shares = record.held()["stacks"]
    assert set(shares) == {"megatron", "torch"} and min(shares.values()) >= learn.EACH
