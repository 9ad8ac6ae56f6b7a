"""Two layouts by hand, bytes on every class of link and memory of every rank: experts over 32 ranks with
their columns over two (EP32 ETP2), and a pipeline of four positions with two stages each (VPP 2). Their like for
tensor, sequence and context parallelism: in tests/sim/models/test_shared_layers.py, FSDP2 and HSDP:
test_sharding.py."""

from collections import Counter
from math import comb

import pytest

from hwmodels.op import AllToAll, Collective, Op, Send
from sim import assembly
from sim.layout import optimizer
from sim.layout.machine import Machine
from sim.layout.plan import Plan, lay_out
from sim.layout.traffic import FORWARD
from sim.models.layer import COMMUNICATION
from sim.scenario.files import from_mapping
from sim.simulation import run

FP32, BF16 = 4, 2
CUBLAS = 32 * 2**20


def built(scenario: dict[str, object]) -> tuple[Plan, Machine]:
    plan = lay_out(from_mapping(scenario))
    return plan, assembly.machine(plan)


def sent(machine: Machine) -> list[Op]:
    """What a rank exchanges inside the layers of a micro-batch, forward and backward."""
    return [
        kernel.op for unit in machine.units for direction in "FBW" for part in machine.parts(unit, direction)
        for kernel in part.kernels
        if kernel.lane == COMMUNICATION and isinstance(kernel.op, AllToAll | Collective | Send)
    ]  # fmt: skip


# --- EP32 ETP2 --------------------------------------------------------------------------------------------------------

T, H, LAYERS, V, E, K, WIDE = 4096, 2048, 48, 151936, 128, 8, 768
"""Tokens of a micro-batch; of Qwen3-30B-A3B hidden width, layers, vocabulary, experts, how many a token has, width."""
EXPERTS = {
    "cluster": {"node": "h100x8", "nodes": 8}, "model": "qwen3_30b_a3b", "precision": "bf16", "stack": "megatron",
    "parallel": {"tensor": 2, "expert": 32, "expert_tensor": 2}, "schedule": "1f1b", "outputs": ["result"],
    "batch": {"sequences": 64, "sequence_length": T, "micro_batch": 1},
}  # fmt: skip
OWN, ROWS = T // 2, T // 2 * K + E // 32 * 64 // 2
"""Tokens of a rank of two; its rows of four experts, each padded by half a tile of 128, of both ranks together."""
DENSE = LAYERS * (H * (32 + 2 * 4) * 128 // 2 + 32 * 128 // 2 * H + 2 * 128 + 2 * H + H * E) + 2 * V // 2 * H + H
"""Half of all heads, columns and vocabulary; norms of layers and of heads, and the router, whole."""
SHARE = LAYERS * 4 * 3 * H * WIDE // 2
"""Half the columns of four experts a layer."""


def test_bytes_of_experts_over_32_ranks_and_columns_over_two() -> None:
    """Expert groups take every second GPU of eight nodes: four each. A layer exchanges four times a row a token and
    expert: seven eighths leave the node; three quarters change GPU (on their way to the one that faces their target).
    Rows go to the partner and their sums come back, each way. Attention of two ranks gathers or scatters five times, as
    ends do. Beside rows the group tells each other counts, eight bytes an expert and rank, and a probability a row in
    FP32, whose gradient goes back; these go straight to each rank."""
    _, machine = built(EXPERTS)
    nvlink, nics = Counter[str](), Counter[str]()
    for op in sent(machine):
        kind = "exchange" if isinstance(op, AllToAll) else f"{op.ranks}"  # type: ignore[union-attr]
        nvlink[kind] += op.nvlink_bytes()  # type: ignore[union-attr]
        nics[kind] += op.wire_bytes()  # type: ignore[union-attr]
    exchanged = LAYERS * 4 * OWN * K * H * BF16
    counts, scores = LAYERS * 32 * E * 8 * 31 / 32, 2 * LAYERS * OWN * K * FP32
    assert nics == {"exchange": exchanged * 7 / 8, "2": 0, "32": counts / 4 + scores * 7 / 8}
    columns = LAYERS * 4 * ROWS * H * BF16
    tensor = (5 * LAYERS + 5) * T * H * BF16 / 2 + T * 2 * 12 / 2
    straight = counts + scores * 3 / 32
    assert nvlink == {"exchange": exchanged * 3 / 4, "2": columns + tensor, "32": straight}


def test_bytes_of_gradients_and_parameters_of_those() -> None:
    """Everything but experts has 32 copies, four on a node; each expert has one."""
    plan, machine = built(EXPERTS)
    reduce, gather = (rings(plan, machine, 0) for rings in (optimizer.reduce_rings, optimizer.gather_rings))
    sizes = [(op.kind, op.ranks, op.nodes, op.size) for op in (*reduce, *gather)]
    assert sizes == [
        ("reduce_scatter", 32, 8, DENSE * FP32), ("reduce_scatter", 1, 1, SHARE * FP32),
        ("all_gather", 32, 8, DENSE * BF16), ("all_gather", 1, 1, SHARE * BF16),
    ]  # fmt: skip
    assert [op.wire_bytes() for op in reduce] == [pytest.approx(DENSE * FP32 * 31 / 32 / 4), 0]


def test_memory_of_those() -> None:
    """States of a 32nd of what has copies, and of all experts. Of a layer a rank keeps, of its own tokens, what norms
    take and give and the gate's scores; of all tokens what attention does; of a row and its partner's the input, the
    first product and the activation. While it goes back a layer holds two hidden states, the one gathered again, and
    gradients of its rows."""
    memory = run(from_mapping(EXPERTS), interval=False).summary["peak_memory_bytes"][0]
    assert memory["weights"] == BF16 * (DENSE + SHARE)
    assert memory["gradients"] == FP32 * (DENSE + SHARE)
    assert memory["optimizer states"] == 12 * (DENSE // 32 + SHARE)
    q, kv, normed = 32 * 128 // 2, 4 * 128 // 2, H * BF16 + 4 + H * BF16
    attention = OWN * normed + T * BF16 * (q + 2 * kv + 2 * (q + kv) + q) + T * FP32 * 16
    mixture = OWN * (normed + 2 * FP32 * E) + 2 * ROWS * BF16 * (H + 2 * WIDE // 2 + WIDE // 2)
    head, embedding = OWN * normed + T * V // 2 * BF16, 8 * T
    backward = T * 3 * H * BF16 + 2 * OWN * K * BF16 * (H + 3 * WIDE // 2)
    assert memory["activations"] == LAYERS * (attention + mixture) + head + embedding + backward
    reached = 32 * (1 - comb(E - 4, K) / comb(E, K))
    assert memory["communication buffers"] == pytest.approx(OWN * reached * 2 * H * BF16, rel=2e-3)
    assert memory["total"] == sum(size for part, size in memory.items() if part != "total")


# --- VPP --------------------------------------------------------------------------------------------------------------

TOKENS, WIDTH, INNER, WORDS, MICRO = 2048, 4096, 14336, 128256, 8
"""Of Llama-3 8B with 16 layers, two a stage: tokens of a micro-batch, widths, vocabulary; micro-batches."""
STAGES = {
    "cluster": {"node": {"base": "h100x8", "gpus": 2}, "nodes": 4}, "model": {"base": "llama3_8b", "layers": 16},
    "precision": "bf16", "stack": "megatron", "parallel": {"pipeline": 4}, "outputs": ["result"],
    "schedule": {"name": "interleaved", "chunks": 2}, "placement": [2] * 8,
    "batch": {"sequences": 2 * MICRO, "sequence_length": TOKENS, "micro_batch": 1},
}  # fmt: skip
LAYER = WIDTH * (32 + 2 * 8) * 128 + 32 * 128 * WIDTH + 3 * WIDTH * INNER + 2 * WIDTH
ENDS = [WORDS * WIDTH, 0, 0, WORDS * WIDTH + WIDTH]


def test_bytes_of_a_pipeline_of_four_positions_with_two_stages_each() -> None:
    """Two GPUs a node are a position: messages leave through NICs, gradients stay on NVLink. A micro-batch crosses
    seven ends, back too: the last position sends activations once, from its first stage, and the first gradients."""
    plan, machine = built(STAGES)
    hidden = TOKENS * WIDTH * BF16
    outputs = [Counter(message.output for message in row) for row in plan.messages.sent]
    assert [row[FORWARD] for row in outputs] == [2 * MICRO] * 3 + [MICRO]
    assert [row.total() - row[FORWARD] for row in outputs] == [MICRO] + [2 * MICRO] * 3
    ops = [machine.message(plan.mesh, m.position, m.target, m.end) for row in plan.messages.sent for m in row]
    assert sum(op.wire_bytes() for op in ops) == 2 * 7 * MICRO * hidden
    assert not any(op.nvlink_bytes() for op in ops) and not sent(machine)
    for position in range(4):
        held = 4 * LAYER + ENDS[position]
        rings = [ring for s in plan.holds[position] for ring in optimizer.reduce_rings(plan, machine, s) if ring.size]
        assert sum(ring.nvlink_bytes() for ring in rings) == held * FP32 / 2
        assert not any(ring.wire_bytes() for ring in rings)


def test_memory_of_that_pipeline() -> None:
    """Position p runs 2(3 - p) + 4 forwards before its first backward and one more with it: four of its first stage,
    four of its second, then of its first again, while backward takes those of the second: the first position has eight
    of its first stage in the end. The last position has logits too, of one micro-batch at a time."""
    memory = run(from_mapping(STAGES), interval=False).summary["peak_memory_bytes"]
    q, kv, normed = 32 * 128, 8 * 128, WIDTH * BF16 + 4 + WIDTH * BF16
    attention = normed + BF16 * (q + 2 * kv + q + kv + q) + FP32 * 32
    stage = 2 * TOKENS * (attention + normed + BF16 * 3 * INNER)
    backward = TOKENS * BF16 * (2 * WIDTH + 3 * INNER)
    head, embedding = TOKENS * (normed + BF16 * WORDS), 8 * TOKENS
    activations = [chunks * stage + backward for chunks in (11, 9, 7, 5)]
    activations[0] += (4 + 4) * embedding
    activations[3] += head
    for position, row in enumerate(memory):
        held = 4 * LAYER + ENDS[position]
        assert row["weights"] == held * BF16 and row["gradients"] == held * FP32
        assert row["optimizer states"] == held * 12 / 2
        assert row["activations"] == activations[position]
        assert row["total"] == sum(size for part, size in row.items() if part != "total")


# --- CP4 ring ---------------------------------------------------------------------------------------------------------

RING = {
    "cluster": {"node": {"base": "h100x8", "gpus": 1}, "nodes": 4}, "model": {"base": "llama3_8b", "layers": 4},
    "precision": "bf16", "stack": "megatron", "parallel": {"context": 4}, "outputs": ["result"],
    "batch": {"sequences": 2, "sequence_length": 8192, "micro_batch": 1},
}  # fmt: skip


def test_memory_of_a_ring_of_four() -> None:
    """A rank has a quarter of the tokens and all heads, columns and vocabulary; states are shared over the ring. Of a
    token a layer keeps what norms take and give, q, k and v as made and as turned, attention's output, and what the
    network makes first and its activation; while it goes back, two hidden states and gradients of the network."""
    memory = run(from_mapping(RING), interval=False).summary["peak_memory_bytes"][0]
    held, tokens = 4 * LAYER + 2 * WORDS * WIDTH + WIDTH, 8192 // 4
    assert memory["weights"] == held * BF16 and memory["gradients"] == held * FP32
    assert memory["optimizer states"] == held * 12 / 4
    q, kv, normed = 32 * 128, 8 * 128, WIDTH * BF16 + 4 + WIDTH * BF16
    layer = normed + BF16 * (q + 2 * kv + q + kv + q) + FP32 * 32 + normed + BF16 * 3 * INNER
    head, backward = normed + BF16 * WORDS, BF16 * (2 * WIDTH + 3 * INNER)
    assert memory["activations"] == tokens * (4 * layer + head + 8 + backward)
    assert memory["total"] == sum(size for part, size in memory.items() if part != "total")
