"""From steps to phases: order on the streams as the profile shows it, and what waits for what."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.op import Collective, Memory
from sim.models import deepseek
from sim.models.layer import COMMUNICATION, COMPUTE, EXPERT, WEIGHT, Kernel, Part, Unit
from sim.models.stacks.sharing import TENSOR
from sim.step.overlap import Composition, compose

TICK = Memory("tiny", 1, 0.0, 0.0)
ORDER = {"F": ("attn", "dispatch", "mlp", "combine"), "B": ("combine", "mlp", "dispatch", "attn"), "W": ("mlp", "attn")}
KINDS = ("F", "B", "W", "BW", "F+B", "F+BW")


def parts(unit: Unit, direction: str) -> tuple[Part, ...]:
    """Like the DeepSeek family's: MoE layers talk, dense ones do not; embedding and head are single parts."""
    if (unit.kind, direction) == ("embedding", "W"):
        return ()
    if unit.kind not in ("moe", "dense"):
        return (_placed(unit.kind, direction, unit.layer, (Kernel(unit.kind, TICK),)),)
    names = [n for n in ORDER[direction] if unit.kind == "moe" or n in ("attn", "mlp")]
    return tuple(_part(name, direction, unit.layer) for name in names)


def _part(name: str, direction: str, layer: int) -> Part:
    talks = name in ("dispatch", "combine")
    kernel = Kernel(name, TICK, COMMUNICATION if talks else COMPUTE)
    kernels: tuple[Kernel, ...] = (kernel, kernel)
    if (name, direction) == ("mlp", "W"):
        kernels = (kernel, kernel._replace(lane=WEIGHT), kernel)
    return _placed(name, direction, layer, kernels, EXPERT * talks)


def _placed(name: str, direction: str, layer: int, kernels: tuple[Kernel, ...], meets: str = "") -> Part:
    return Part(name, direction, layer, kernels, meets, deepseek.PLACES[direction, name])


def moe(count: int) -> list[Unit]:
    return [Unit("moe", i) for i in range(count)]


def lanes(composition: Composition) -> dict[int, list[int]]:
    """Lane -> indices of its phases, in launch order."""
    out: dict[int, list[int]] = {}
    for i, phase in enumerate(composition.phases):
        out.setdefault(phase.lane, []).append(i)
    return out


def names(composition: Composition, lane: int) -> list[str]:
    """Parts on a lane, in launch order, phases of one part taken together."""
    out: list[str] = []
    for i in lanes(composition)[lane]:
        phase = composition.phases[i]
        text = f"{phase.label}{phase.layer}"
        out += [text] if not out or out[-1] != text else []
    return out


# --- order ------------------------------------------------------------------------------------------------------------


def test_a_pair_of_layers_runs_as_in_the_profile() -> None:
    pair = compose("F+BW", moe(1), moe(1), parts)
    assert names(pair, COMPUTE) == ["attn(F)0", "mlp(B)0", "mlp(W)0", "mlp(F)0", "attn(B)0", "attn(W)0"]
    assert names(pair, COMMUNICATION) == ["combine(B)0", "dispatch(F)0", "dispatch(B)0", "combine(F)0"]


def test_the_backward_half_goes_through_its_layers_in_reverse() -> None:
    pair = compose("F+BW", moe(3), moe(3), parts)
    assert names(pair, COMPUTE) == [
        name
        for f, b in zip((0, 1, 2), (2, 1, 0), strict=True)
        for name in (f"attn(F){f}", f"mlp(B){b}", f"mlp(W){b}", f"mlp(F){f}", f"attn(B){b}", f"attn(W){b}")
    ]


def test_uneven_stages_pair_as_far_as_they_go() -> None:
    """Three layers forward beside one backward, and the reverse: what is left runs by itself."""
    long = compose("F+B", moe(3), moe(1), parts)
    first = ["attn(F)0", "mlp(B)0", "mlp(F)0", "attn(B)0"]
    assert names(long, COMPUTE) == [*first, "attn(F)1", "mlp(F)1", "attn(F)2", "mlp(F)2"]
    short = compose("F+B", moe(1), moe(2), parts)
    assert names(short, COMPUTE) == ["attn(F)0", "mlp(B)1", "mlp(F)0", "attn(B)1", "mlp(B)0", "attn(B)0"]


def test_the_ends_of_the_model_take_a_round_each() -> None:
    first, last = [Unit("embedding", -1), Unit("dense", 0)], [Unit("moe", 0), Unit("head", -1)]
    pair = compose("F+BW", first, last, parts)
    assert names(pair, COMPUTE) == [
        "embedding(F)-1", "head(B)-1", "head(W)-1", "attn(F)0", "mlp(B)0", "mlp(W)0", "mlp(F)0", "attn(B)0", "attn(W)0",
    ]  # fmt: skip
    assert names(pair, COMMUNICATION) == ["combine(B)0", "dispatch(B)0"]


def test_parts_without_places_run_forward_then_backward() -> None:
    """A family that says nothing of rounds gets one half after the other, each in its own order."""

    def plain(unit: Unit, direction: str) -> tuple[Part, ...]:
        return tuple(part._replace(place=0) for part in parts(unit, direction))

    found = compose("F+BW", moe(1), moe(1), plain).phases
    assert list(dict.fromkeys(p.label for p in found)) == [
        f"{name}({direction})" for direction in "FBW" for name in ORDER[direction]
    ]


@pytest.mark.parametrize("direction", "FBW")
def test_places_keep_the_order_of_a_pass(direction: str) -> None:
    found = [part.place for part in parts(Unit("moe", 0), direction)]
    assert found == sorted(set(found))


@pytest.mark.parametrize(("kind", "expected"), [
    ("F", ["attn(F)", "dispatch(F)", "mlp(F)", "combine(F)"]),
    ("B", ["combine(B)", "mlp(B)", "dispatch(B)", "attn(B)"]),
    ("W", ["mlp(W)", "attn(W)"]),
    ("BW", ["combine(B)", "mlp(B)", "mlp(W)", "dispatch(B)", "attn(B)", "attn(W)"]),
])  # fmt: skip
def test_lone_steps(kind: str, expected: list[str]) -> None:
    found = compose(kind, moe(1), moe(1), parts).phases
    assert list(dict.fromkeys(p.label for p in found)) == expected


# --- needs ------------------------------------------------------------------------------------------------------------

STAGES = st.lists(st.sampled_from(["moe", "dense", "head", "projection", "embedding"]), min_size=1, max_size=5).map(
    lambda kinds: [Unit(kind, i) for i, kind in enumerate(kinds)]
)


@given(st.sampled_from(KINDS), STAGES, STAGES)
def test_every_part_runs_once_and_only_after_what_it_needs(kind: str, f: Sequence[Unit], b: Sequence[Unit]) -> None:
    found = compose(kind, f, b, parts)
    wanted = [p for d in kind.replace("+", "") for u in (f if d == "F" else b) for p in parts(u, d)]
    assert sorted((p.label, p.layer, len(p.kernels)) for p in wanted) == sorted(
        (run[0].label, run[0].layer, sum(len(p.kernels) for p in run)) for run in by_part(found)
    )
    for i, phase in enumerate(found.phases):
        assert all(0 <= j < i for j in phase.needs)
        assert bool(phase.meets) == (phase.lane == COMMUNICATION)


def by_part(composition: Composition) -> list[list]:  # type: ignore[type-arg]
    groups: dict[int, list] = {}  # type: ignore[type-arg]
    for phase in composition.phases:
        groups.setdefault(phase.part, []).append(phase)
    return list(groups.values())


@given(st.sampled_from(["F+B", "F+BW"]), STAGES, STAGES)
def test_each_half_is_a_chain_and_they_never_wait_for_each_other(kind: str, f: list[Unit], b: list[Unit]) -> None:
    found = compose(kind, f, b, parts)
    for half in "FB":
        chain = [i for i, p in enumerate(found.phases) if p.half == half]
        assert [found.phases[i].needs for i in chain] == [(), *((i,) for i in chain[:-1])]


@given(st.sampled_from(["BW", "F+BW"]), STAGES, STAGES)
def test_a_weight_gradient_needs_the_input_gradient_beside_it(kind: str, f: list[Unit], b: list[Unit]) -> None:
    found = compose(kind, f, b, parts)
    seen: set[int] = set()
    for phase in found.phases:
        if phase.half != "W" or phase.part in seen:
            continue
        seen.add(phase.part)
        (need,) = phase.needs
        mate = found.phases[need]
        assert (mate.name, mate.half, mate.layer) == (phase.name, "B", phase.layer)
        assert all(p.part != mate.part for p in found.phases[need + 1 :])


def test_a_weight_step_by_itself_needs_nothing_outside() -> None:
    found = compose("W", [], moe(2), parts)
    assert [p.needs for p in found.phases if p.label == "attn(W)"] == [(), ()]


def test_streams_of_one_part_take_turns() -> None:
    """Kernels that change stream make a phase each, chained."""
    first, second, third = (p for p in compose("W", [], moe(1), parts).phases if p.label == "mlp(W)")
    assert (first.lane, second.lane, third.lane) == (COMPUTE, WEIGHT, COMPUTE)
    assert (first.needs, second.needs, third.needs) == ((), (0,), (1,))
    assert first.part == second.part == third.part


# --- outputs ----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(KINDS), STAGES, STAGES)
def test_outputs_leave_after_the_last_phase_of_their_half(kind: str, f: list[Unit], b: list[Unit]) -> None:
    found = compose(kind, f, b, parts)
    for half, out in (("F", found.forward_out), ("B", found.backward_out)):
        assert out == max((i for i, p in enumerate(found.phases) if p.half == half), default=-1)


def test_every_phase_is_on_one_lane() -> None:
    found = compose("F+BW", moe(2), moe(2), parts)
    assert sorted(i for row in lanes(found).values() for i in row) == list(range(len(found.phases)))
    assert set(lanes(found)) == {COMPUTE, COMMUNICATION, WEIGHT}


def test_a_step_with_no_units_is_refused() -> None:
    with pytest.raises(ValueError, match="a step of kind 'F' with no units"):
        compose("F", [], moe(1), parts)


# --- what is known to be wrong ----------------------------------------------------------------------------------------


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        compose("X", moe(1), moe(1), parts)


def test_a_part_without_kernels_is_no_need() -> None:
    def hollow(unit: Unit, direction: str) -> tuple[Part, ...]:
        return tuple(p._replace(kernels=() if p.label == "attn(F)" else p.kernels) for p in parts(unit, direction))

    assert compose("F", moe(1), [], hollow).phases[0].needs == ()


def test_a_part_of_any_name_runs() -> None:
    def other(unit: Unit, direction: str) -> tuple[Part, ...]:
        return tuple(p._replace(name=p.name.replace("mlp", "ffn")) for p in parts(unit, direction))

    assert len({p.part for p in compose("F", moe(1), [], other).phases}) == 4


def test_kernels_that_a_collective_runs_ahead_of_do_not_wait_for_it() -> None:
    """Two gathers, each beside the two kernels behind it: those wait for what was before, and what follows for both."""
    tick, ahead = Kernel("tick", TICK), Kernel("gather", TICK, COMMUNICATION, meets="tensor", ahead=2)
    part = Part("mlp", "F", 0, (tick, ahead, tick, tick, ahead, tick, tick, tick))
    found = compose("F", moe(1), (), lambda unit, direction: (part,)).phases
    assert [len(phase.kernels) for phase in found] == [1, 1, 2, 1, 2, 1]
    assert [phase.needs for phase in found] == [(), (0,), (0,), (1, 2), (1, 2), (3, 4)]
    assert [phase.meets for phase in found] == ["", "tensor", "", "tensor", "", ""]


@pytest.mark.parametrize(("nodes", "ahead", "moves"), [(1, 0, True), (2, 0, False), (1, 1, False)])
def test_in_a_pair_a_tensor_groups_collectives_do_not_queue_behind_exchanges(nodes, ahead, moves):
    """Inside a node, and where nothing of their part runs beside them."""
    gather = Kernel("gather", Collective("all_gather", 1.0, 2, nodes), COMMUNICATION, meets=TENSOR, ahead=ahead)
    product = Kernel("product", TICK)

    def tensor(unit: Unit, direction: str) -> tuple[Part, ...]:
        whole = parts(unit, direction)
        return tuple(p._replace(kernels=(gather, product)) if p.name == "attn" else p for p in whole)

    def streams(kind: str) -> set[int]:
        phases = compose(kind, moe(1), moe(1), tensor).phases
        return {phase.lane for phase in phases for kernel in phase.kernels if kernel.name == "gather"}

    assert streams("F") == streams("BW") == {COMMUNICATION}
    assert streams("F+BW") == {COMPUTE if moves else COMMUNICATION}
