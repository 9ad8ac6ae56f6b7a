"""Experts in a latent space: what is sent, multiplied and kept is of the narrow width, on every stack."""

import pytest

import sim
from hwmodels.op import AllToAll, Gemm, GroupedGemm
from sim.assembly import machine
from sim.layout.plan import lay_out
from sim.models.family import weights
from sim.scenario import from_mapping

STACKS = ("deepseek", "torch", "megatron")
H, LATENT, WIDTH = 2048, 512, 768


def scenario(stack, latent, expert=8, precision="bf16", **more):
    model = {"base": "qwen3_30b_a3b", "layers": 4, "expert_latent": latent, "shared_intermediate": 1536}
    return from_mapping({
        "cluster": {"node": "h200x8", "nodes": 1}, "model": model | more.pop("model", {}), "precision": precision,
        "stack": stack, "schedule": "1f1b", "outputs": ["result"], "batch": {"sequences": 16, "sequence_length": 2048},
        "parallel": {"expert": expert}, **more,
    })  # fmt: skip


def made(stack, latent, expert=8):
    own = machine(lay_out(scenario(stack, latent, expert)))
    return own, next(unit for unit in own.units if unit.routed)


def kernels(own, unit, direction):
    return [kernel for part in own.lowering.parts(own.site, unit, direction) for kernel in part.kernels]


@pytest.mark.parametrize("stack", STACKS)
def test_what_is_sent_and_multiplied_is_of_the_latent_width(stack):
    own, unit = made(stack, LATENT)
    forward = kernels(own, unit, "F")
    exchanged = [kernel.op.row_bytes for kernel in forward if isinstance(kernel.op, AllToAll)]
    wide = [kernel.op.row_bytes for kernel in kernels(*made(stack, 0), "F") if isinstance(kernel.op, AllToAll)]
    assert [w - e for w, e in zip(wide, exchanged, strict=True)] == [2 * (H - LATENT)] * 2
    grouped = [(kernel.op.n, kernel.op.k) for kernel in forward if isinstance(kernel.op, GroupedGemm)]
    assert grouped == [(2 * WIDTH, LATENT), (LATENT, WIDTH)]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("expert", [1, 8])
def test_two_products_more_each_way_and_as_many_flops_as_counted(stack, expert):
    """Down before what is sent, up behind what comes back; the difference of all products is that of the weights."""
    if stack == "deepseek" and expert == 1:
        pytest.skip("its exchanges are there for one rank too")
    (own, unit), (plain, other) = made(stack, LATENT, expert), made(stack, 0, expert)
    names = [part.name for part in own.lowering.parts(own.site, unit, "F")]
    assert (names[-1] == "expand") == (expert > 1)
    tokens = own.site.tokens
    for direction in "FBW":
        latent = [kernel for kernel in kernels(own, unit, direction) if kernel.name.startswith("latent_")]
        products = [kernel.op for kernel in latent if isinstance(kernel.op, Gemm)]
        assert sum(op.flop() for op in products) == 2 * (2 * tokens * H * LATENT)
        assert not [k for k in kernels(plain, other, direction) if k.name.startswith("latent_")]


@pytest.mark.parametrize("stack", STACKS)
def test_less_is_kept_and_parameters_are_those_of_its_tensors(stack):
    (own, unit), (plain, other) = made(stack, LATENT), made(stack, 0)
    assert own.lowering.kept(own.site, unit).at(own.site) < plain.lowering.kept(plain.site, other).at(plain.site)
    if stack != "deepseek":
        sizes = own.lowering.tensors(own.site._replace(local_experts=128), unit)
        assert sum(sizes) == weights(own.site.shape, [unit]).total


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("more", [
    {}, {"recompute": "full"}, {"schedule": "zb1p", "parallel": {"expert": 2, "pipeline": 2}},
    {"model": {"mtp_depth": 2, "mtp_layer": "attention+moe"}},
])  # fmt: skip
def test_a_run(stack, more):
    assert sim.run(scenario(stack, LATENT, **more)).summary["step_time_s"] > 0


def test_a_pair_of_both_directions_expands_where_the_other_half_is_done():
    assert sim.run(scenario("deepseek", LATENT, schedule="dualpipe", parallel={"expert": 2, "pipeline": 2})).summary


def test_a_prediction_module_may_have_a_layer_of_its_own():
    """Nemotron-3's last layer is a mixture alone, that of its modules has attention too."""
    own = machine(lay_out(scenario("megatron", LATENT, model={"mtp_depth": 1, "mtp_layer": "attention"})))
    assert [unit.kind for unit in own.units if unit.beside] == ["projection", "attention", "head"]
