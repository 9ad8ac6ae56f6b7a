"""The step read in other ways: what the page says in words is so, and every choice is a run of its own."""

import pytest

import sim
from sim.scenario import SCENARIOS, load
from sim.validation import predictions, readings
from sim.validation.readings import AFTER, JUDGED, WAITED, WAITS


@pytest.fixture(scope="module")
def rows():
    return predictions.compare("deepseek_v3")


@pytest.fixture(scope="module")
def found(rows):
    summary = readings.Reference("v3_2048gpu", ()).result.summary
    return {each.name: each for each in readings.readings(rows, summary)}


def test_position_0_is_short_everywhere_and_the_mean_has_both_signs(found):
    assert all(found[name].first < found[name].published for name in JUDGED)
    assert {found[name].mean < found[name].published for name in JUDGED} == {True, False}


def test_phases_of_a_reading_are_those_of_the_run(found, rows):
    by = {row.id: row for row in rows}
    assert found["bubble"].mean == by["IS-T4-bubble"].predicted and found["bubble"].published == 2.06
    both = found["backward alone (1B)"], found["weight gradient alone (1W)"]
    assert found["1B + 1W"][1:] == tuple(map(sum, zip(*(each[1:] for each in both), strict=True)))
    assert found["1B + 1W"].published == pytest.approx(1.99 + 0.48)


def test_choices_are_those_that_nothing_is_tuned_by(rows):
    """Waiting for messages costs the bubble, reducing after the drain the optimizer, waits of the profile the pairs."""
    text = readings.section(rows, "v3_2048gpu")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    table = {row[0].replace("`", ""): [float(cell) for i, cell in enumerate(row) if i not in (0, 2)]
             for row in cells if row[0].startswith(("`", "as it is"))}  # fmt: skip
    base, waited, after, waits = (table[name] for name in ("as it is", WAITED, AFTER, WAITS))
    step, forward, _, pairs, bubble, optimizer = range(6)
    assert waited[bubble] > base[bubble] + 0.2 and waited[pairs] == base[pairs] and waited[step] > base[step] + 0.2
    assert after[optimizer] > base[optimizer] + 0.15 and after[forward] == base[forward]
    assert base[step] < after[step] < base[step] + 0.1 and waits[pairs] > base[pairs]
    assert table[f"{WAITED}, {AFTER}, {WAITS}"][step] == max(row[step] for row in table.values())
    direct = sim.run(load(str(SCENARIOS / "v3_2048gpu.yaml"), ["outputs=[result]", WAITED]), interval=False)
    assert waited[step] == pytest.approx(direct.summary["step_time_s"], abs=0.005)
