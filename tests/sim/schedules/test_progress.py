"""`check` and the independent evaluator agree on which programs come to an end."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.schedules.program import Program, Shape, build, check


def _ends(clock, program: Program) -> bool:
    with suppress(AssertionError):
        clock(program)
        return True
    return False


@given(name=st.sampled_from(["1f1b", "gpipe", "dualpipev"]), swaps=st.integers(1, 4), data=st.data())
def test_deadlock_is_seen_exactly_when_there_is_one(clock, name, swaps, data):
    """Swap a few neighbouring steps of a good program: some still run, some stop."""
    built = build(name, Shape(3, 6))
    ranks = [list(steps) for steps in built.steps]
    for _ in range(swaps):
        steps = ranks[data.draw(st.integers(0, 2))]
        at = data.draw(st.integers(0, len(steps) - 2))
        steps[at : at + 2] = steps[at + 1], steps[at]
    changed = Program(name, built.positions, built.stages, built.micro_batches, tuple(map(tuple, ranks)))
    try:
        check(changed)
    except Refused as error:
        late_weight = "before B" in str(error)  # the evaluator lets W run at any time
        assert late_weight or ("deadlock: rank" in str(error) and not _ends(clock, changed))
    else:
        assert _ends(clock, changed)
