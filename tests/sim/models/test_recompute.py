"""What backward computes again: as a value, in kernels and bytes of each family, and in a step's time and memory."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.device import load as device
from hwmodels.document import DocumentError
from hwmodels.op import AllToAll
from hwmodels.price import Pricer
from sim import simulation
from sim.models.activations import Kept
from sim.models.family import family
from sim.models.layer import EXPERT, Site, Unit
from sim.models.precision import RECIPES
from sim.models.recompute import AGAIN, FIRST, INSIDE, MODULES, RECIPE, Recompute
from sim.scenario import SCENARIOS, from_mapping, load
from tests.sim.models.test_sizes import SHAPES

NONE, FULL = Recompute("none"), Recompute("full")
V3, QWEN, LLAMA = SHAPES["deepseek_v3"], SHAPES["qwen3_30b_a3b"], SHAPES["llama3_8b"]
LAYERS = (
    (V3, Unit("dense", 0, True)), (V3, Unit("moe", 3, True, True)),
    (QWEN, Unit("attention+moe", 0, True, True)), (LLAMA, Unit("attention+dense", 0, True)),
    (SHAPES["nemotron_h_8b"], Unit("mamba", 0, True)),
)  # fmt: skip
RECIPE_OF_V3 = ("mla_up_projection", "norm", "activation")


def named(each):
    return getattr(each, "kind", None) or each.name


def chosen(*modules):
    return Recompute("modules", tuple(each for each in MODULES if each in modules))


def site(shape, recompute, recipe="fp8"):
    return Site(shape, RECIPES[recipe], 1, 4096, 16384, 16384, 1.0, 4.0, 4, 64, 8, recompute)


@cache
def prices():
    from hwmodels.collectives import wires
    from hwmodels.node import load as node
    from sim.communication.exchange.price import Fidelity

    return Pricer(
        device("h800"), wires(node("h800x8"), None), 20, "measured", Fidelity("kernel", "follow"), True, False
    )


def ops(where, unit, directions):
    own = family(where.shape.family)
    return [k for d in directions for part in own.parts(where, unit, d) for k in part.kernels]


def ns(where, unit, directions="FBW"):
    return sum(prices().price(kernel.op).ns for kernel in ops(where, unit, directions))


def held(where, unit):
    return family(where.shape.family).kept(where, unit).at(where)


# --- the value --------------------------------------------------------------------------------------------------------


def test_a_recipe_answers_with_what_was_published():
    assert RECIPE.again("norm", True) and not RECIPE.again("norm", False)
    for module in MODULES:
        assert not NONE.again(module, True) and not FULL.again(module, True), "a second forward keeps all"
        assert chosen(module).again(module, False) and not chosen(module).again("another", True)


@pytest.mark.parametrize("layers", range(8))
@pytest.mark.parametrize("each", range(1, 5))
def test_groups_of_layers(layers, each):
    uniform = Recompute("layers", layers=each).checkpoints(layers)
    assert uniform == tuple(FIRST if i % each == 0 else INSIDE for i in range(layers))
    block = Recompute("layers", layers=each, method="block").checkpoints(layers)
    assert block == (FIRST,) * min(each, layers) + ("",) * max(0, layers - each)
    assert FULL.checkpoints(layers) == (FIRST,) * layers
    assert all(other.checkpoints(layers) == ("",) * layers for other in (NONE, RECIPE, chosen("mlp")))


def read(choice):
    return load(SCENARIOS / "v2_lite.yaml", [f"recompute={choice}"])


def test_what_a_scenario_says():
    assert read("none").recompute == NONE and read("{kind: full}").recompute == FULL
    assert read("{modules: [norm, core_attention]}").recompute == chosen("core_attention", "norm")
    assert read("{layers: 2}").recompute == Recompute("layers", layers=2)
    assert read("{layers: 2, method: block}").recompute.method == "block"
    assert read("{modules: []}").recompute == Recompute("modules")


def test_a_choice_reloads_and_the_recipe_keeps_its_hash():
    for choice in ("none", "{modules: [moe]}", "{layers: 2, method: block}"):
        scenario = read(choice)
        again = from_mapping(scenario.resolved)
        assert again.recompute == scenario.recompute and again.scenario_hash == scenario.scenario_hash
    assert read("recipe").scenario_hash == load(SCENARIOS / "v2_lite.yaml").scenario_hash != read("none").scenario_hash


def test_one_choice_has_one_hash():
    for one, other in (
        ("{modules: [norm, mlp]}", "{modules: [mlp, norm]}"), ("{layers: 2}", "{layers: 2, method: uniform}"),
        ("full", "{kind: full}"), ("recipe", "{kind: recipe}"),
    ):  # fmt: skip
        assert read(one).scenario_hash == read(other).scenario_hash
    assert read("{modules: [mlp, norm]}").resolved["recompute"] == {"modules": ["norm", "mlp"]}


@pytest.mark.parametrize(
    "choice, told",
    [
        ("ful", "found 'ful', did you mean 'full'? legal: recipe, none, full"),
        ("{modules: [moe_act]}", "found 'moe_act'"),
        ("{kind: full, layers: 2}", "found kind and layers; legal: one of kind, modules, layers"),
        ("{kind: full, method: block}", "method goes with layers, e.g. {layers: 1, method: uniform}"),
        ("{layers: 0}", "expected a whole number, 1 or more; found 0"),
    ],
)
def test_what_does_not_go_together_is_refused(choice, told):
    with pytest.raises(DocumentError) as caught:
        read(choice)
    assert told in str(caught.value)


# --- kernels and bytes of a layer -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    layer=st.sampled_from(LAYERS), modules=st.sets(st.sampled_from(MODULES)), more=st.sampled_from(MODULES),
    recipe=st.sampled_from(sorted(RECIPES)),
)  # fmt: skip
def test_what_is_computed_again_takes_time_and_is_not_kept(layer, modules, more, recipe):
    """One module more never keeps more nor takes less."""
    shape, unit = layer
    few, many = (site(shape, chosen(*names), recipe) for names in (modules, modules | {more}))
    assert held(many, unit) <= held(few, unit)
    assert ns(many, unit) >= ns(few, unit)
    if held(many, unit) < held(few, unit):
        assert ns(many, unit) > ns(few, unit), "nothing is free"
    assert ops(many, unit, "W") == ops(few, unit, "W")


@pytest.mark.parametrize("unit", [unit for shape, unit in LAYERS if shape is V3], ids=lambda u: u.kind)
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_the_recipe_of_v3_is_its_modules(unit, recipe):
    named, published = site(V3, chosen(*RECIPE_OF_V3), recipe), site(V3, RECIPE, recipe)
    assert ops(named, unit, "FBW") == ops(published, unit, "FBW") and held(named, unit) == held(published, unit)
    assert family("deepseek").workspace(named) == family("deepseek").workspace(published)


@pytest.mark.parametrize("shape, unit", LAYERS, ids=named)
def test_a_whole_layer_runs_forward_before_its_backward(shape, unit):
    """Its backward is that of a layer that keeps all, behind its forward; its input stays, and all is there again."""
    where, own = site(shape, FULL), family(shape.family)
    whole = unit._replace(checkpoint=FIRST)
    kept = held(site(shape, NONE), unit)
    assert ops(where, whole, "B") == ops(where, unit, "F") + ops(where, unit, "B")
    assert ops(where, whole, "FW") == ops(where, unit, "FW") == ops(site(shape, NONE), unit, "FW")
    assert held(where, whole) == 4096 * 2 * shape.hidden and held(where, whole._replace(checkpoint=INSIDE)) == 0
    assert held(where, whole) + own.regained(where, whole).at(where) == kept
    assert own.regained(where, whole._replace(checkpoint=INSIDE)).at(where) == kept


@pytest.mark.parametrize("shape, unit", [row for row in LAYERS if row[1].routed], ids=named)
@pytest.mark.parametrize("choice", [FULL, chosen("moe")], ids=lambda c: c.kind)
def test_a_mixture_that_runs_again_exchanges_again(shape, unit, choice):
    """Both exchanges of forward meet the group once more, in backward."""
    where = site(shape, choice)
    unit = unit._replace(checkpoint=FIRST if choice is FULL else "")
    first, second = (family(shape.family).parts(where, unit, direction) for direction in "FB")
    again = [part for part in second if part.name.endswith(AGAIN) and part.meets]
    assert [part.name for part in again] == ["dispatch again", "combine again"] and {p.meets for p in again} == {EXPERT}
    sent = [[k.op for k in part.kernels if isinstance(k.op, AllToAll)] for part in again]
    assert sent == [[k.op for k in p.kernels if isinstance(k.op, AllToAll)] for p in first if p.meets]
    assert len([part for part in second if part.meets]) == 4
    inside = family(shape.family).regained(where, unit)
    assert inside.token and inside.row, "dispatched rows and first products are there again"


def test_what_the_modules_of_v3_free():
    """A token of a MoE layer of V3 in FP8, by hand."""
    unit, scaled = LAYERS[1][1], 1 + 4 / 128
    frees = {
        "core_attention": 16384 * (1.5 + 4 / 128) + 4 * 128,
        "mla_up_projection": 2 * (2 * 24576 + 16384),
        "norm": (7168 + 1536 + 512 + 7168) * scaled,
    }
    for module, each in frees.items():
        freed = held(site(V3, NONE), unit) - held(site(V3, chosen(module)), unit)
        assert freed == 4096 * each, module
    act = held(site(V3, NONE), unit) - held(site(V3, chosen("activation")), unit)
    assert act == (4096 + 16384) * 2048 * scaled, "of the shared expert and of routed rows"


def test_nothing_is_regained_without_whole_modules():
    for shape, unit in LAYERS:
        for choice in (RECIPE, NONE, chosen("norm", "core_attention", "activation")):
            assert family(shape.family).regained(site(shape, choice), unit) == Kept()


def test_temporaries_of_attention_leave_out_what_is_kept():
    """q, k and v of V3 are kept or made again, and never counted twice."""
    none, recipe = (family("deepseek").workspace(site(V3, choice)) for choice in (NONE, RECIPE))
    assert recipe - none == 4096 * 2 * (2 * 24576 + 16384)


def test_loads_are_felt_wherever_a_mixture_runs_again():
    """Also where the first layer with experts is none of those that run again: the dense one of its stage is."""
    from sim import assembly
    from sim.disturbances.durations import curves
    from sim.disturbances.exchanges import loaded_exchanges
    from sim.layout.plan import lay_out

    machine = assembly.machine(lay_out(read("{layers: 1, method: block}")))
    assert not machine.routed[0].checkpoint and any(unit.checkpoint for unit in machine.routed)
    assert {"mlp(F)", "mlp(B)", "mlp again(B)", "mlp(W)"} == set(curves(machine))
    again = {"dispatch again(B)", "combine again(B)"}
    assert set(loaded_exchanges(machine)) == again | {f"{n}({d})" for n in ("dispatch", "combine") for d in "FB"}


# --- a step -----------------------------------------------------------------------------------------------------------


DENSE = {
    "cluster": {"node": "h800x8", "nodes": 2}, "model": {"base": "llama3_8b", "layers": 12}, "precision": "bf16",
    "parallel": {"pipeline": 4}, "schedule": "1f1b", "batch": {"micro_batches": 8, "sequence_length": 4096},
    "placement": [3, 3, 3, 3], "outputs": ["result"],
}  # fmt: skip
ORDER = ("none", "{modules: [activation]}", "{modules: [activation, norm]}", "{modules: [norm, mlp]}", "full")


@cache
def summary(choice, *changes):
    return simulation.run(from_mapping(DENSE, [f"recompute={choice}", *changes]), False).summary


def peak(found):
    return found["worst_memory"]["peak_bytes"]


@pytest.mark.parametrize("less, more", list(pairwise(ORDER)))
def test_memory_falls_and_time_rises(less, more):
    assert peak(summary(more)) < peak(summary(less))
    assert summary(more)["step_time_s"] > summary(less)["step_time_s"]
    for figure in ("tokens_per_step", "layers_per_stage"):
        assert summary(more)[figure] == summary(less)[figure]
    flop = [summary(each)["mfu"]["causal"] * summary(each)["step_time_s"] for each in (less, more)]
    assert flop[0] == pytest.approx(flop[1]), "publishers count no FLOPs twice"


def test_a_step_takes_longer_by_what_runs_again():
    """1F1B with equal stages: every backward of a layer is longer by its forward, 8 + 3 of them on the longest way."""
    from sim import assembly
    from sim.layout.plan import lay_out

    machine = assembly.machine(lay_out(from_mapping(DENSE)))
    layers = [unit for unit in machine.stages[1] if unit.block]
    forward = sum(machine.unit_ns(unit, "F") for unit in layers) / 1e9
    longer = summary("full")["phases_per_rank"]["backward"][1] - summary("none")["phases_per_rank"]["backward"][1]
    assert longer == pytest.approx(8 * forward, rel=1e-9)


def test_layers_in_groups_keep_fewer_inputs_and_more_at_once():
    one, three = summary("{layers: 1}"), summary("{layers: 3}")
    assert one["step_time_s"] == three["step_time_s"] == summary("full")["step_time_s"]
    none, one, three = (each["peak_memory_bytes"][0]["activations"] for each in (summary("none"), one, three))
    held, forwards = 4096 * 4096 * 2, 4
    layer = none // forwards // 3
    assert one == forwards * 3 * held + layer - held and three == forwards * held + 3 * layer - held


def test_a_block_is_the_first_layers_of_each_stage():
    found = [summary(f"{{layers: {n}, method: block}}") for n in (1, 2, 3)]
    times = [each["step_time_s"] for each in (summary("none"), *found)]
    peaks = [peak(each) for each in (summary("none"), *found)]
    assert times == sorted(set(times)) and times[-1] == summary("full")["step_time_s"]
    assert peaks == sorted(set(peaks), reverse=True) and peaks[-1] == peak(summary("full"))


MOE = [
    "model={base: qwen3_30b_a3b, layers: 12}", "parallel.expert=4", "parallel.pipeline=4", "batch.sequence_length=2048",
]  # fmt: skip


@pytest.mark.parametrize("schedule", ["1f1b", "zb1p", "dualpipe", "interleaved"])
def test_every_schedule_runs_it(schedule):
    """A pair that overlaps has what is computed again in its rounds."""
    words = [*MOE, f"schedule={schedule}", "placement=even"]
    none, moe, full = (summary(choice, *words) for choice in ("none", "{modules: [moe]}", "full"))
    assert none["step_time_s"] < moe["step_time_s"] < full["step_time_s"]
    assert peak(full) <= peak(moe) <= peak(none), "equal under zb1p, where weight gradients that wait decide"


def test_unequal_loads_are_felt_by_what_runs_again():
    """Ranks that differ: routed parts that run again are longer by their rows too."""
    words = [*MOE, "schedule=1f1b", "placement=even"]
    even = [summary(choice, *words)["step_time_s"] for choice in ("none", "full")]
    drawn = [
        summary(choice, *words, "routing={kind: sampled, spread: 0.5}")["step_time_s"] for choice in ("none", "full")
    ]
    assert drawn[1] - drawn[0] > even[1] - even[0] > 0
    block = summary("{layers: 1, method: block}", *words)["step_time_s"]
    assert drawn[0] < block < drawn[1]
