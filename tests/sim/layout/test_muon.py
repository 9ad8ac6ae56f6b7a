"""Muon: matrices are the parameters of linear layers, products and moments by hand."""

from pathlib import Path

import pytest

from hwmodels.op import Gemm
from sim import assembly, simulation
from sim.analysis import memory
from sim.layout import muon, optimizer, plan
from sim.models.family import weights
from sim.scenario import from_mapping, load

SCENARIOS = Path(__file__).parents[3] / "scenarios"
SMALL = {
    "cluster": {"node": "h800x8", "nodes": 2, "fabric": "ndr"},
    "model": {"base": "deepseek_v2_lite", "layers": 4, "vocabulary": 1024},
    "precision": "bf16",
    "parallel": {"pipeline": 2, "expert": 4},
    "schedule": "1f1b",
    "batch": {"micro_batches": 4},
    "placement": "even",
    "pricing": "roofline",
    "outputs": ["result"],
}


def laid_out(scenario):
    laid = plan.lay_out(scenario)
    return laid, assembly.machine(laid)


@pytest.mark.parametrize("name", ["v3_2048gpu", "v2_lite", "v2_236b", "llama3_70b"])
def test_matrices_are_all_parameters_of_linear_layers_and_of_experts(name):
    laid, machine = laid_out(load(str(SCENARIOS / f"{name}.yaml")))
    for unit in machine.units:
        own, held = weights(machine.site.shape, [unit]), muon.matrices(machine, unit)
        sizes = {kind: sum(m.size * n for m, n in held.items() if m.expert is kind) for kind in (False, True)}
        assert sizes[False] == own.linear
        assert sizes[True] == own.experts * optimizer.experts_held(laid, machine)


@pytest.mark.parametrize("stack", ["megatron", "torch"])
@pytest.mark.parametrize("name", ["llama3_8b", "qwen3_30b_a3b", "kimi_k2", "mixtral_8x7b", "nemotron3_super_120b_a12b"])
@pytest.mark.parametrize("tensor", [1, 2])
def test_of_libraries_too_gates_left_out(stack, name, tensor):
    """A router's gradient is a product of a unit as others are, and AdamW's."""
    model = {"base": name, "layers": 8}
    mixed = name != "llama3_8b"
    document = SMALL | {
        "model": model, "stack": stack, "cluster": {"node": "h200x8", "nodes": 2}, "pricing": "measured",
        "parallel": {"expert": 4 if mixed else 1, "tensor": tensor, "sequence": tensor > 1, "expert_tensor": 1},
        "placement": "balanced",
    }  # fmt: skip
    laid, machine = laid_out(from_mapping(document))
    for unit in machine.units:
        own, held = weights(machine.site.shape, [unit]), muon.matrices(machine, unit)
        sizes = {kind: sum(m.size * n for m, n in held.items() if m.expert is kind) for kind in (False, True)}
        assert sizes[False] == own.linear
        assert sizes[True] == own.experts * optimizer.experts_held(laid, machine)


@pytest.mark.parametrize(("rows", "columns"), [(4096, 4096), (57344, 8192), (512, 32768)])
def test_five_iterations_of_three_products(rows, columns):
    """4 a a b + 2 a a a FLOPs each; the roofline's time is no less than they take at the peak."""
    machine = laid_out(from_mapping(SMALL))[1]
    a, b = sorted((rows, columns))
    pricer = machine.pricer
    alone = sum(pricer.price(Gemm(*shape, precision="bf16")).ns for shape in ((a, a, b), (a, a, a), (a, b, a)))
    ns = muon.orthogonal_ns(machine, muon.Matrix(rows, columns, False))
    assert ns == 5 * alone
    assert ns >= 5 * (4 * a * a * b + 2 * a**3) / machine.cluster.node.device.peak_flops["bf16"] * 1e9


def test_a_rank_does_what_its_shard_touches():
    """Four equal matrices over 4 ranks, each a whole one at best and two where shards lie across: 2 of 4 on average;
    one rank does all; of one matrix everybody does all of it."""
    machine = laid_out(from_mapping(SMALL))[1]
    unit = machine.units[1]
    each = {m: muon.orthogonal_ns(machine, m) for m in muon.matrices(machine, unit)}
    stage = next(i for i, units in enumerate(machine.stages) if unit in units)
    whole = sum(
        n * muon.orthogonal_ns(machine, m) for u in machine.stages[stage] for m, n in muon.matrices(machine, u).items()
    )
    assert each and muon.update_ns(machine, stage, 1, 1) == pytest.approx(whole, abs=1)
    shares = [muon.update_ns(machine, stage, ranks, ranks) for ranks in (1, 2, 4, 8)]
    assert shares == sorted(shares, reverse=True) and all(
        s * r >= whole for s, r in zip(shares, (1, 2, 4, 8), strict=True)
    )


def test_matrices_keep_one_moment():
    """Half a moment pair less: 2 bytes (BF16) of each parameter in a matrix that the rank updates."""
    laid, machine = laid_out(from_mapping(SMALL, ["optimizer.name=muon"]))
    adamw, _ = laid_out(from_mapping(SMALL))
    for position in range(2):
        held = [optimizer.shards(laid, machine, stage) for stage in laid.holds[position]]
        less = sum(h.matrices / h.dense_ranks + h.experts / h.expert_ranks for h in held) * 2
        states = [memory.constant(each, machine, position)["optimizer states"] for each in (adamw, laid)]
        assert states[0] - states[1] == pytest.approx(less, abs=2)
        assert 0 < less < 2 * sum(h.updated for h in held)


def test_a_step_gets_longer_by_the_gather_and_the_products():
    laid, machine = laid_out(from_mapping(SMALL, ["optimizer.name=muon"]))
    plain, _ = laid_out(from_mapping(SMALL))
    longer, before = optimizer.tail(laid, machine, 0), optimizer.tail(plain, machine, 0)
    held = optimizer.shards(laid, machine, 0)
    products = muon.update_ns(machine, 0, held.dense_ranks, held.expert_ranks)
    gathers = sum(
        machine.pricer.price(ring._replace(size=2 * count)).ns
        for ring, count in zip(optimizer.gather_rings(laid, machine, 0), (held.matrices, held.experts), strict=True)
    )
    saved = before.update_ns - (longer.update_ns - products - gathers)
    assert 0 < saved < before.update_ns  # one moment less is read and written
    assert (longer.reduce_ns, longer.norm_ns, longer.gather_ns) == (before.reduce_ns, before.norm_ns, before.gather_ns)
    steps = [
        simulation.run(from_mapping(SMALL, [f"optimizer.name={name}"]), False).summary["step_time_s"]
        for name in ("adamw", "muon")
    ]
    assert steps[1] > steps[0]


def test_adamw_is_what_was_there_and_keeps_its_hash():
    said, unsaid = (from_mapping(SMALL, more) for more in (["optimizer.name=adamw"], []))
    assert said.scenario_hash == unsaid.scenario_hash != from_mapping(SMALL, ["optimizer.name=muon"]).scenario_hash
    assert from_mapping(from_mapping(SMALL, ["optimizer.name=muon"]).resolved).optimizer.name == "muon"
