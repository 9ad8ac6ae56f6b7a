"""What documents cost: equal ones as a batch of them, two ranks by hand, longer ones never less."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim import simulation
from sim.assembly import assembled
from sim.disturbances.attention import attending, prices
from sim.disturbances.documents import Documents
from sim.engine.lowering import lower
from sim.layout.plan import lay_out
from sim.simulation import simulated

S = 2048


def scenario(model, *words, gpus=2, **batch):
    document = {
        "cluster": {"node": {"base": "h800x8", "gpus": gpus}, "nodes": 1}, "model": {"base": model, "layers": 4},
        "precision": "bf16", "outputs": ["result"], "batch": {"micro_batches": 3, "sequence_length": S, **batch},
    }  # fmt: skip
    return sim.load(document, words)


def packed(model, *words, **batch):
    return scenario(model, *words, lengths={"kind": "lognormal", "median": 300, "sigma": 1.2}, **batch)


@pytest.mark.parametrize(
    "model", ["llama3_8b", "deepseek_v2_lite", "gpt_oss_20b", "llama4_scout", "nemotron_h_8b", "mpt_7b"]
)
@pytest.mark.parametrize("length", [256, 1024, S])
def test_equal_documents_are_a_batch_of_them(model, length):
    """A packed step of documents that fill sequences is the step of so many short sequences, to the nanosecond."""
    whole = simulation.run(scenario(model, lengths={"kind": "fixed", "length": length}), False).summary
    short = simulation.run(scenario(model, sequence_length=length, micro_batch=S // length), False).summary
    for key in ("step_time_s", "tokens_per_step", "phases_s", "mfu", "peak_memory_bytes"):
        assert whole[key] == short[key]
    assert whole["documents"]["mean_length"] == length and "imbalance_s" not in whole["documents"]


def test_one_document_a_sequence_is_the_step_without_lengths():
    bare = simulation.run(scenario("deepseek_v2_lite", "parallel.expert=2"), False).summary
    for lengths in ({"kind": "uniform", "from": S, "to": S}, {"kind": "recorded", "histogram": [[4 * S, 1]]}):
        full = simulation.run(scenario("deepseek_v2_lite", "parallel.expert=2", lengths=lengths), False).summary
        assert full["step_time_s"] == bare["step_time_s"] and full["mfu"] == bare["mfu"]


def test_padding_costs_what_tokens_cost():
    lengths = {"kind": "uniform", "from": 1, "to": S}
    padded = simulation.run(scenario("llama3_8b", lengths=lengths, packed=False), False).summary
    bare = simulation.run(scenario("llama3_8b"), False).summary
    assert padded["step_time_s"] == bare["step_time_s"]
    assert padded["tokens_per_step"] == pytest.approx((1 - padded["documents"]["padding"]) * bare["tokens_per_step"])
    assert 0.2 < padded["documents"]["padding"] < 0.8


def by_hand(model, rows, *words):
    """(run, machine, attending) of documents that are given: rows[micro-batch][replica] of their tokens."""
    plan = lay_out(packed(model, *words, micro_batches=len(rows)))
    machine = assembled(plan)[0]
    flat = [np.array(each) for row in rows for each in row]
    owner = np.repeat(np.arange(len(flat)), [len(each) for each in flat])
    documents = Documents(np.concatenate(flat), owner, len(rows), len(rows[0]), S)
    return simulated(plan, machine, documents), machine, attending(machine, documents)


def test_two_ranks_by_hand():
    """Two ranks of a group meet behind the attention of each layer, so it counts as the slower one's; that of the first
    layer backward and of the next micro-batch forward follow each other with no meeting between, so their sum does."""
    words = ("parallel.expert=2", "model.dense_layers=0")
    rows = [[[S], [512] * 4], [[512] * 4, [1024] * 2], [[S], [S]]]
    ran, machine, _ = by_hand("deepseek_v2_lite", rows, *words)
    ns = {
        kit.parts.tasks[segment.lane][segment.first].label: last
        for kit in lower(lay_out(packed("deepseek_v2_lite", *words)), machine).known
        for segment, last in zip(kit.parts.segments, kit.parts.lasts, strict=True)
    }
    more = {  # ns by which a part takes longer than for the documents that kits are priced for [micro-batch][replica]
        label: np.array([[slower(machine, label, each[0], ns[label]) for each in row] for row in rows])
        for label in ("attn(F)", "attn(B)")
    }
    forward, backward = more.values()
    between = (backward[:-1] + forward[1:]).max(axis=1).sum() + forward[0].max() + backward[-1].max()
    layers = 3 * (forward.max(axis=1).sum() + backward.max(axis=1).sum())
    assert ran.timeline.end == ran.alike.end + between + layers
    assert between < forward.max(axis=1).sum() + backward.max(axis=1).sum()


def slower(machine, label, length, ns):
    """ns that a part of `ns` takes longer for documents that all are of one length."""
    by = prices(machine)
    factor = np.interp(length, by.lengths, by.parts["moe", label])
    return int(np.ceil(ns * factor)) - ns


def test_both_halves_of_a_pair_feel_their_own_micro_batch():
    rows = [[[S], [64] * 32], [[64] * 32, [S]]]
    words = ("parallel.expert=2", "model.dense_layers=0", "overlap.expert=true")
    ran, machine, _ = by_hand("deepseek_v2_lite", rows, *words)
    kit, work = ran.lowered.kits[0][1], ran.times(0, 1)
    assert kit.fine.kind == "F+BW"
    for number, segment in enumerate(kit.parts.segments):
        label = kit.parts.tasks[segment.lane][segment.first].label
        ns = kit.parts.lasts[number]
        lengths = {"attn(F)": (64, S), "attn(B)": (S, 64)}.get(label)  # forward of the second, backward of the first
        expected = [ns + slower(machine, label, length, ns) for length in lengths] if lengths else [ns, ns]
        assert work[number].tolist() == expected


def test_documents_go_with_all_else_that_makes_ranks_differ():
    """Loads, faults and jitter on top of documents. Few tokens on the slow rank can even be luck."""
    more = ("routing=sampled", "jitter=1%", "faults=[{kind: gpu, at: 1, slower: 1.1}]", "parallel.expert=2")
    result = simulation.run(packed("deepseek_v2_lite", *more), False).summary
    even = simulation.run(scenario("deepseek_v2_lite", *more), False).summary
    own = result["documents"]
    assert result["step_time_s"] == pytest.approx(own["even_step_time_s"] + own["imbalance_s"])
    assert result["routing"]["kind"] == "sampled" and abs(own["imbalance_s"]) < 0.05 * result["step_time_s"]
    assert own["even_step_time_s"] < even["step_time_s"]  # which has whole sequences of attention


def test_replicas_that_exchange_nothing_wait_where_gradients_are_reduced():
    rows = [[[S], [512] * 4], [[S], [512] * 4]]
    ran, _, by = by_hand("llama3_8b", rows)
    (steps,) = ran.timeline.positions
    ends = steps.ends[-1]
    assert ends[0] - ends[1] == pytest.approx((by.attention[:, 0] - by.attention[:, 1]).sum(), rel=1e-4)
    assert ran.timeline.end - ends[0] == ran.alike.end - ran.alike.positions[0].ends[-1][0]
    half = (ends[0] - ends[1]) / 2
    assert ran.timeline.end - ran.evened == pytest.approx(half, rel=1e-3)


@cache
def of(model):
    machine = assembled(lay_out(packed(model)))[0]
    return machine, prices(machine)


@given(st.sampled_from(["llama3_8b", "gpt_oss_20b", "deepseek_v2_lite"]), st.integers(1, S - 1), st.data())
def test_two_documents_in_one_never_cost_less(model, first, data):
    """Longer documents meet more tokens. Documents of one length cost no more than unequal ones of as many tokens."""
    second = data.draw(st.integers(1, S - first))
    _, by = of(model)
    for times in by.parts.values():
        a, b, both = np.interp([first, second, first + second], by.lengths, times)
        assert (first + second) * both >= (first * a + second * b) * (1 - 1e-9)


def test_a_mean_over_tokens_is_the_sum_over_documents():
    """Attention over whole documents goes by the sum of squares of their lengths."""
    _, _, by = by_hand("llama3_8b", [[[S], [1000, 1000, 48]]])
    whole, cut = by.attention[0]
    assert cut / whole == pytest.approx((2 * 1000**2 + 48**2) / S**2, rel=1e-3)


def test_flops_count_the_pairs_that_there_are():
    model = "gpt_oss_20b"
    result = simulation.run(scenario(model, lengths={"kind": "recorded", "histogram": [[100, 3], [700, 1]]}), False)
    plan = lay_out(scenario(model, lengths={"kind": "recorded", "histogram": [[100, 3], [700, 1]]}))
    from sim.disturbances.documents import drawn

    documents = drawn(plan.scenario.batch, 0, 3, 2)
    machine = assembled(plan)[0]
    total = sum(n * machine.family.flop(machine.site.shape, n, True) for n in documents.tokens.tolist())
    rate = result.summary["tflops_per_gpu"]["causal"] * 1e12
    assert rate * result.summary["step_time_s"] * 2 == pytest.approx(total, rel=1e-12)


def test_what_is_told():
    told = simulation.run(packed("deepseek_v2_lite", "parallel.expert=2"), False).summary
    own = told["documents"]
    assert own["ranks_max"] >= own["ranks_p95"] > 1 and own["micro_batches_max"] >= own["micro_batches_p95"] > 1
    assert 0 < own["attention_share"] < 1
    assert told["step_time_s"] - own["even_step_time_s"] == pytest.approx(own["imbalance_s"]) and own["imbalance_s"] > 0
    assert told["waiting_for_peers_s"] > 0 and own["padding"] == 0
    assert own["mean_length"] * own["per_sequence"] == pytest.approx(S)
