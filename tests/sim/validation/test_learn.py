"""What is learned of published runs: against drawn errors whose spread is known, and against what it promises."""

import json
from dataclasses import replace
from math import exp, log
from pathlib import Path

import numpy as np
import pytest

from sim.analysis import left_out
from sim.analysis.left_out import Class, Learned, Rule, Spread
from sim.validation.runs import learn, own, record
from sim.validation.runs.learn import Case, Choice, Columns, cases, chosen, conformed, judged, pools, spreads
from sim.validation.runs.outcome import Answer, Outcome, renewed
from sim.validation.runs.rows import FILE, asked, read

ROWS = list(asked(read(FILE)))
DENSE, MIXED = Class("dense", "megatron", "hopper", "cluster"), Class("mixture", "megatron", "hopper", "cluster")
PLAIN = Choice(("kind", "stack"), 3.0, 1.0, 1.1)


def drawn(count, spread, of=DENSE, families=10, prices=0.0, seed=0, shift=0.0):
    """Runs of several families whose errors are normal."""
    random = np.random.default_rng(seed)
    errors = random.normal(shift, spread, count)
    return [
        Case(f"family {n % families}", f"{of.kind} {n}", of, float(error), -prices, prices, 0)
        for n, error in enumerate(errors)
    ]


def test_many_runs_give_their_own_quantiles():
    spread = spreads(drawn(4000, 0.1), PLAIN)["dense, megatron"]
    assert spread.groups == 4000
    assert (spread.below, spread.above) == pytest.approx((0.1645, 0.1645), rel=0.08)


def test_what_prices_explain_is_not_counted_again():
    """Prices alone are as wide as all of the error: nothing is left; half of it: the rest adds up to it."""
    some = drawn(4000, 0.1, prices=0.1645)
    left = spreads(some, PLAIN)["dense, megatron"]
    assert max(left.below, left.above) < 0.04
    half = spreads(drawn(4000, 0.1, prices=0.1), PLAIN)["dense, megatron"]
    assert np.hypot(half.above, 0.1) == pytest.approx(0.1645, rel=0.08)


def test_errors_to_one_side_make_an_interval_to_that_side():
    spread = spreads(drawn(2000, 0.02, shift=0.2), PLAIN)["dense, megatron"]
    assert spread.below == learn.FLOOR and spread.above == pytest.approx(0.233, rel=0.05)


def test_few_runs_lean_on_those_around_them():
    """One GPU of a generation that was right is no reason to be sure of it; nothing is said before any run."""
    many = drawn(400, 0.1)
    few = [Case("family 0", "m", replace(DENSE, stack="torch"), 0.0, 0.0, 0.0, 0)]
    found = spreads([*many, *few], PLAIN)
    assert found["dense, torch"].above > 0.5 * found["dense"].above
    assert spreads([], PLAIN) == {}


def test_a_layout_counts_once():
    """A hundred releases of one layout say as much as one."""
    some = drawn(60, 0.1)
    again = [Case("family 0", "same", DENSE, 0.9, 0.0, 0.0, 0, 1 / 100)] * 100
    once = [Case("family 0", "same", DENSE, 0.9, 0.0, 0.0, 0)]
    one, other = (spreads([*some, *more], PLAIN)["dense"] for more in (again, once))
    assert one.above == pytest.approx(other.above, rel=0.02) and one.groups == other.groups == 61
    outcomes = [Outcome(replace(run, group="g"), ANSWER) for run in ROWS[:4]]
    assert [case.weight for case in cases(outcomes)] == [0.25] * 4


ANSWER = Answer(
    1.0, 0.9, 1.1, {"prices": [0.95, 1.05], "class": vars(DENSE), "unsaid": ["recompute"]}, 1
)  # fmt: skip


def test_a_family_counts_less_than_its_layouts():
    """However many a publisher ran: they are wrong together."""
    one = [Case("large", f"a{n}", DENSE, 0.01, 0.0, 0.0, 0) for n in range(361)]
    rest = [Case(f"small {n}", f"b{n}", DENSE, 0.4, 0.0, 0.0, 0) for n in range(2)]
    assert spreads([*one, *rest], PLAIN)["dense"].above > 0.3  # two of 363 layouts, but two of 21 in weight


def test_cases_are_logarithms_over_the_predicted_step():
    (case,) = cases([Outcome(ROWS[0], ANSWER), Outcome(ROWS[1], Answer(refused="no"))])
    assert case.error == pytest.approx(log(ROWS[0].step_s)) and case.unsaid == 1
    assert (case.low, case.high) == pytest.approx((log(0.95), log(1.05))) and case.of == DENSE


def test_what_is_unsaid_is_taken_out_of_the_spread_and_put_back():
    some = [case._replace(unsaid=2, error=case.error * 1.3**2) for case in drawn(2000, 0.1)]
    choice = PLAIN._replace(unsaid=1.3)
    assert spreads(some, choice)["dense"].above == pytest.approx(0.1645, rel=0.08)
    assert judged([conformed(some, choice)]).inside == pytest.approx(0.9, abs=0.03)


def test_a_family_is_judged_by_the_others_alone():
    """One whose runs are far off is reached by what the others teach no further than any of them, and nothing of it
    reaches further when it is further off."""
    some = drawn(300, 0.02, families=9)
    odd, odder = (
        [case._replace(family="odd", group=f"odd {n}", error=error) for n, case in enumerate(some[:40])]
        for error in (0.5, 0.9)
    )
    one, other = (conformed([*some, *far], PLAIN) for far in (odd, odder))
    assert (one.reach[300:] == other.reach[300:]).all() and (one.reach[300:] < 0.1).all()
    how = judged([replace(one, stretch={"megatron": 1.0})])
    assert how.families["odd"] == (40, 0) and how.families["family 1"][1] / how.families["family 1"][0] > 0.8


def test_nine_of_ten_runs_lie_inside_when_their_family_was_left_out():
    """However wide the others' errors are: the least stretch at which they do, and for each stack its own."""
    torch = replace(DENSE, stack="torch")
    some = [*drawn(200, 0.05, prices=0.05), *drawn(100, 0.15, torch, families=7, prices=0.05, seed=1)]
    found = conformed(some, PLAIN)
    low, high = found.ends()
    error = Columns(some).of("error")
    inside = (low <= error) & (error <= high)
    for part in (slice(0, 200), slice(200, 300)):
        assert 0.9 <= inside[part].mean() <= 0.92
    narrower = replace(found, stretch={name: 0.98 * each for name, each in found.stretch.items()})
    assert judged([narrower]).inside < judged([found]).inside


def test_of_a_large_family_the_promised_part_lies_inside():
    """Its runs alone stretch what nine of ten of all would not."""
    some = drawn(400, 0.05, families=9)
    odd = [case._replace(family="odd", group=f"odd {n}", error=0.25) for n, case in enumerate(some[: learn.LARGE])]
    few = [case._replace(family="few", group=f"few {n}", error=3.0) for n, case in enumerate(some[: learn.ENOUGH - 1])]
    every = [*some, *odd, *few]
    without, kept = conformed(every, PLAIN), conformed(every, PLAIN, ["odd", "few"])
    assert judged([without]).families["odd"][1] < learn.EACH * learn.LARGE
    assert judged([kept]).families["odd"][1] >= learn.EACH * learn.LARGE
    assert judged([kept]).families["few"][1] == 0  # too few to ask for


def test_kinds_are_learned_apart_and_the_sharpest_of_what_scores_alike_is_taken(monkeypatch):
    for name in ("POOLING", "SHARES", "UNSAID", "LEVELS"):  # a few of the choices: all are dear
        monkeypatch.setattr(learn, name, getattr(learn, name)[:2])
    dense, mixed = drawn(200, 0.05, prices=0.05), drawn(100, 0.15, MIXED, prices=0.05, seed=1)
    found = chosen([*dense, *mixed])
    how = judged(list(found.values()))
    assert learn.PROMISE[0] <= how.inside <= learn.PROMISE[1] and found["dense"].choice.levels in learn.LEVELS
    assert how.halves["dense"] < how.halves["mixture"] < exp(0.35)
    again = [case._replace(error=3 * case.error) for case in mixed]
    other = chosen([*dense, *again])
    assert other["dense"].choice == found["dense"].choice and other["dense"].stretch == found["dense"].stretch
    assert (other["dense"].reach == found["dense"].reach).all() and set(chosen(dense)) == {"dense"}


def test_remainders_are_signed_and_never_beyond_the_error():
    some = drawn(50, 0.1, prices=0.05)
    beyond, errors = Columns(some).beyond(1.0, 1.1), Columns(some).of("error")
    assert (np.abs(beyond) <= np.abs(errors)).all() and (beyond * errors >= 0).all()
    assert set(pools(some, beyond, PLAIN)) == {"dense", "dense, megatron"}


# --- a user's own runs ------------------------------------------------------------------------------------------------

SHIPS = Learned({"dense": Rule(("kind",), 1.0, 1.1)}, {"": Spread(5, 0.3, 0.3)})


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
    judged_ = record.held()["judged"]
    low, high = learn.PROMISE
    assert low <= judged_["inside"] <= high
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
        assert left_out.learned().rules["dense"].levels == content["rules"]["dense"]["levels"]
        assert left_out.learned().classes["mixture"].groups == 0  # no run was one: what stood before any
        wider = renewed(outcomes[0])
        assert wider.answer.step_s == 1.0 and (wider.answer.low_s, wider.answer.high_s) != (0.9, 1.1)
        assert "learned on 60 runs of 60 layouts" in record.kept(content)
        assert json.loads(record.text(content))["runs"]["file"] == FILE.name
    finally:
        left_out.learned.cache_clear()


# --- a stack that no run had ------------------------------------------------------------------------------------------


def test_what_an_unknown_stack_gets_is_judged_by_leaving_stacks_out():
    """Of one that is off as others are a little stretch is enough; of one that is off further, more."""
    torch = replace(DENSE, stack="torch")
    few = drawn(200, 0.05, families=4)
    alike = [*few, *drawn(200, 0.05, torch, families=5, seed=1)]
    apart = [*few, *drawn(200, 0.09, torch, families=5, seed=1)]
    near, far = (learn.apart(some, {"dense": conformed(some, PLAIN)}) for some in (alike, apart))
    assert near["stacks"] == ["megatron", "torch"] and near["rules"]["dense"]["levels"] == learn.APART
    stretches = [each["rules"]["dense"]["stretch"][""] for each in (near, far)]
    assert stretches[0] < stretches[1] and min(near["inside"].values()) >= learn.EACH


def test_an_unknown_stack_is_never_surer_than_its_class():
    """Of two that are off much less than the floor of a class, less than one stretch would do."""
    some = [*drawn(200, 0.001, families=4), *drawn(200, 0.001, replace(DENSE, stack="torch"), families=5, seed=1)]
    kinds = {"dense": conformed(some, PLAIN)}
    assert max(kinds["dense"].stretch.values()) < learn.UNSTRETCHED
    assert learn.apart(some, kinds)["rules"]["dense"]["stretch"] == {"": learn.UNSTRETCHED}


def test_where_nothing_judges_an_unknown_stack_it_gets_the_largest_stretch():
    found = learn.apart([*drawn(50, 0.1), *drawn(50, 0.1, replace(MIXED, stack="torch"))], {})
    assert found["inside"] == {}
    assert [rule["stretch"] for rule in found["rules"].values()] == [{"": learn.ALONE}] * 2


def test_what_ships_keeps_the_promise_for_each_stack_by_the_others():
    held = record.held()["apart"]
    assert set(held["inside"]) == set(held["stacks"]) == {"megatron", "torch"}
    assert min(held["inside"].values()) >= learn.EACH
