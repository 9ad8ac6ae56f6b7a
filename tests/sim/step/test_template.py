"""Templates: priced phases in launch order, and coarse levels that take exactly as long as the fine one."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.op import Memory
from hwmodels.price import Price, Pricer
from sim.engine.alone import alone
from sim.models.deepseek import PLACES
from sim.models.layer import COMMUNICATION, COMPUTE, EXPERT, WEIGHT, Kernel, Part, PartsOf, Unit
from sim.step.overlap import Composition, compose
from sim.step.template import STREAMS, Template, by_chunk, by_layer, fixed, pieces, price

KINDS = ("F", "B", "W", "BW", "F+B", "F+BW")
ORDER = {"F": ("attn", "dispatch", "mlp", "combine"), "B": ("combine", "mlp", "dispatch", "attn"), "W": ("mlp", "attn")}
GAP = 2


def pricer() -> Pricer:
    """Prices an operation at `rows` ns alone and `rows + read` ns beside the other side."""

    def quote(op: Memory, on_comm_sms: bool = False) -> Price:
        return Price(op.rows, op.rows + int(op.read), "measured", op.kind, 0.1, "memory")

    free = SimpleNamespace(compute_sms=112)
    known = {"rows": {}, "still": {}}
    return cast(Pricer, SimpleNamespace(price=quote, launch_gap_ns=GAP, comm_sms=20, free=free, host=None, **known))


def work(name: str, ns: int, more: int = 0, lane: int = COMPUTE, kernels: int = 1) -> Kernel:
    return Kernel(name, Memory(name, ns, float(more), 0.0, kernels), lane)


def random_parts(seed: int) -> PartsOf:
    """A family with kernels of random number and length; weight gradients of experts change stream, and may return."""

    def parts(unit: Unit, direction: str) -> tuple[Part, ...]:
        names = [n for n in ORDER[direction] if unit.kind == "moe" or n in ("attn", "mlp")]
        if unit.kind == "head":
            names = ["head"]
        return tuple(part(name, unit, direction) for name in names)

    def part(name: str, unit: Unit, direction: str) -> Part:
        random = Random(f"{seed} {name} {unit} {direction}")
        talks = name in ("dispatch", "combine")
        lanes = [COMMUNICATION if talks else COMPUTE] * random.randint(1, 3)
        if (name, direction) == ("mlp", "W"):
            lanes = [COMPUTE, *random.choices([COMPUTE, WEIGHT], k=random.randint(0, 5))]
        kernels = (work(f"{name}{i}", random.randint(1, 60), random.randint(0, 40), at) for i, at in enumerate(lanes))
        return Part(name, direction, unit.layer, tuple(kernels), EXPERT * talks, PLACES[direction, name])

    return parts


STAGES = st.lists(st.sampled_from(["moe", "moe", "dense", "head"]), min_size=1, max_size=4).map(
    lambda kinds: [Unit(kind, i) for i, kind in enumerate(kinds)]
)
STEPS = st.builds(
    lambda kind, f, b, seed: (kind, compose(kind, f, b, random_parts(seed))),
    st.sampled_from(KINDS), STAGES, STAGES, st.integers(0, 10**6),
)  # fmt: skip
Step = tuple[str, Composition]


def priced(step: Step) -> Template:
    return price(step[0], (0, 1), step[1], pricer())


# --- the fine template ------------------------------------------------------------------------------------------------


@pytest.fixture
def small() -> Step:
    def parts(unit: Unit, direction: str) -> tuple[Part, ...]:
        rows = {
            "attn": (work("norm", 10, 5), work("flash", 100)), "dispatch": (work("send", 40, 20, COMMUNICATION, 2),),
            "mlp": (work("gemm", 30, 3),), "combine": (work("back", 60, 30, COMMUNICATION, 2),),
        }  # fmt: skip
        return tuple(Part(n, "F", unit.layer, rows[n], EXPERT * (n in ("dispatch", "combine"))) for n in ORDER["F"])

    return "F", compose("F", [Unit("moe", 0)], [], parts)


def test_every_kernel_has_its_gap_and_both_rates(small: Step) -> None:
    fine = priced(small)
    assert fine.alone == ((12, 102, 32), (44, 64), (), ())
    assert fine.beside == ((17, 102, 35), (64, 94), (), ())
    assert fine.gap_ns == ((2, 2, 2), (4, 4), (), ())


def test_segments_say_who_waits_for_whom(small: Step) -> None:
    fine = priced(small)
    assert [(s.lane, s.first, s.stop, s.needs, s.feeds) for s in fine.segments] == [
        (COMPUTE, 0, 2, 0, (1,)), (COMMUNICATION, 0, 1, 1, (2,)),
        (COMPUTE, 2, 3, 1, (3,)), (COMMUNICATION, 1, 2, 1, ()),
    ]  # fmt: skip
    assert fine.order == ((0, 2), (1, 3), (), ())
    assert [bool(s.meets) for s in fine.segments] == [False, True, False, True]
    assert [s.sends for s in fine.segments] == [0, 0, 0, 1]


def test_tasks_know_their_labels_and_sms(small: Step) -> None:
    fine = priced(small)
    assert [[(t.label, t.sms, t.half) for t in lane] for lane in fine.tasks] == [
        [("norm", 112, "F"), ("flash", 112, "F"), ("gemm", 112, "F")], [("send", 20, "F"), ("back", 20, "F")], [], [],
    ]  # fmt: skip


def test_a_lone_forward_is_the_sum_of_its_chain(small: Step) -> None:
    """Nothing runs beside anything: 12 + 102 + 44 + 32 + 64."""
    assert alone(priced(small)).total == 254


@given(STEPS)
def test_needs_are_counted_as_often_as_they_are_fed(step: Step) -> None:
    fine = priced(step)
    fed = [j for s in fine.segments for j in s.feeds]
    assert [s.needs for s in fine.segments] == [fed.count(i) for i in range(len(fine.segments))]
    for lane in STREAMS:
        spans = [(fine.segments[i].first, fine.segments[i].stop) for i in fine.order[lane]]
        assert [a for a, _ in spans] == [0, *(b for _, b in spans)][: len(spans)]
        assert len(fine.alone[lane]) == len(fine.beside[lane]) == len(fine.tasks[lane]) == len(fine.gap_ns[lane])
        assert all(gap < ns <= slow for gap, ns, slow in
                   zip(fine.gap_ns[lane], fine.alone[lane], fine.beside[lane], strict=True))  # fmt: skip


# --- the coarse ones --------------------------------------------------------------------------------------------------


def sent(template: Template) -> dict[int, int]:
    """Output -> when it leaves, running alone."""
    timing = alone(template)
    return {s.sends: timing.segments[i][1] for i, s in enumerate(template.segments) if s.sends}


@settings(max_examples=150)
@given(STEPS)
def test_one_task_a_part_takes_exactly_as_long(step: Step) -> None:
    fine = priced(step)
    timing = alone(fine)
    coarse = by_layer(fine, timing, step[1].phases)
    assert alone(coarse).total == timing.total
    assert sent(coarse) == sent(fine)
    found = pieces(step[1].phases)
    assert alone(coarse).segments == tuple((timing.segments[p[0]][0], timing.segments[p[-1]][1]) for p in found)


@given(STEPS)
def test_pieces_are_parts_that_end_where_they_begin(step: Step) -> None:
    """Consecutive phases of one part, all of them; no exchange but as a piece of its own; as few as that allows."""
    phases, found = step[1].phases, pieces(step[1].phases)
    assert [i for piece in found for i in piece] == list(range(len(phases)))
    for piece in found:
        assert len({phases[i].part for i in piece}) == 1
        assert phases[piece[0]].lane == phases[piece[-1]].lane
        assert len(piece) == 1 or not any(phases[i].meets for i in piece)
    for one, two in pairwise(found):
        rest = [phases[i] for i in (*one, *two)]
        alike = rest[0].part == rest[-1].part and rest[0].lane == rest[-1].lane
        assert not alike or any(phase.meets for phase in rest)


@settings(max_examples=150)
@given(STEPS)
def test_one_task_an_output_takes_exactly_as_long(step: Step) -> None:
    fine = priced(step)
    timing = alone(fine)
    coarse = by_chunk(fine, timing)
    assert alone(coarse).total == timing.total
    assert sent(coarse) == sent(fine)
    assert len(coarse.segments) <= 3
    assert sum(coarse.alone[COMPUTE]) == timing.total


@given(STEPS)
def test_coarse_tasks_are_never_slowed_twice(step: Step) -> None:
    fine = priced(step)
    timing = alone(fine)
    for coarse in (by_layer(fine, timing, step[1].phases), by_chunk(fine, timing)):
        assert coarse.alone == coarse.beside
        assert not any(gap for lane in coarse.gap_ns for gap in lane)
        assert [len(lane) for lane in coarse.tasks] == [len(lane) for lane in coarse.alone]
        assert (coarse.kind, coarse.stage, coarse.stage_b) == (fine.kind, 0, 1)


def test_parts_keep_their_name_and_their_longest_price(small: Step) -> None:
    fine = priced(small)
    coarse = by_layer(fine, alone(fine), small[1].phases)
    assert [t.label for t in coarse.tasks[COMPUTE]] == ["attn(F)", "mlp(F)"]
    (attn, _) = coarse.tasks[COMPUTE]
    assert attn.price is not None and attn.price.source == "flash"
    assert [bool(s.meets) for s in coarse.segments] == [False, True, False, True]


def test_chunks_are_cut_where_outputs_leave() -> None:
    """Forward done at 60, backward at 90, a weight gradient until 130: cuts of 60, 30 and 40."""

    def parts(unit: Unit, direction: str) -> tuple[Part, ...]:
        ns = {"F": 58, "B": 28, "W": 38}[direction]
        return (Part("attn", direction, 0, (work(direction, ns),)),)

    fine = priced(("F+BW", compose("F+BW", [Unit("moe", 0)], [Unit("moe", 0)], parts)))
    coarse = by_chunk(fine, alone(fine))
    assert coarse.alone[COMPUTE] == (60, 30, 40)
    assert [s.sends for s in coarse.segments] == [1, 2, 0]
    assert {t.label for t in coarse.tasks[COMPUTE]} == {"F+BW"}


def test_a_step_without_work_stays_empty() -> None:
    """Such as the weight gradient of a stage that holds the embedding alone."""
    step: Step = ("W", Composition((), -1, -1))
    fine = priced(step)
    timing = alone(fine)
    for template in (fine, by_layer(fine, timing, ()), by_chunk(fine, timing)):
        assert (template.segments, alone(template).total) == ((), 0)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=4))
def test_given_times_are_taken_as_they_are(holds: Sequence[int]) -> None:
    template = fixed("F+BW", (3, 4), holds, [1, 2, 0, 3][: len(holds)])
    assert alone(template).total == sum(holds)
    assert template.alone == template.beside
    assert [s.sends for s in template.segments] == [1, 2, 0, 3][: len(holds)]
    assert all(t.price is None and t.sms == -1 for t in template.tasks[COMPUTE])


def test_a_part_that_ends_on_the_weight_stream_is_cut_there() -> None:
    """Its compute stream goes on earlier than one task for the whole part could say."""

    def parts(unit: Unit, direction: str) -> tuple[Part, ...]:
        experts = Part("mlp", "W", 0, (work("e0", 10), work("e1", 50, lane=WEIGHT)))
        return (experts, Part("attn", "W", 0, (work("o_proj", 20),)))

    step: Step = ("W", compose("W", [], [Unit("moe", 0)], parts))
    fine = priced(step)
    timing = alone(fine)
    coarse = by_layer(fine, timing, step[1].phases)
    assert alone(coarse).segments == timing.segments == ((0, 12), (12, 64), (12, 34))
    assert coarse.order == ((0, 2), (), (1,), ())
    assert [t.label for lane in coarse.tasks for t in lane] == ["mlp(W)", "attn(W)", "mlp(W)"]
