"""Steps of prefill and decode: sums of their kernels, forms by price, experts hit, overlap, and published steps."""

import random
from dataclasses import replace

import numpy as np
import pytest

from hwmodels.op import GroupedGemm, Memory, cast
from sim.models.blocks.mla import Latent
from sim.models.layer import COMMUNICATION
from sim.scenario.values import Routing
from sim.serving import networks, system
from sim.serving.attention import attention
from sim.serving.deployment import deployed
from sim.serving.experts import loads
from sim.serving.grid import Grid, prompts
from sim.serving.prices import Kernel
from sim.serving.rank import Batch
from sim.serving.steady import decode_step
from tests.sim.serving.instances import stepper
from tests.sim.serving.loads import closed, document, loaded

LIKED = Routing("sampled", spread=0.3, redundant_experts=32)


def test_a_hundred_random_steps_equal_their_kernels() -> None:
    """One micro-batch is its kernels one after another, in the cheaper form of attention."""
    random.seed(3)
    for given in (stepper("h200x8", 8, 1), stepper("h800x8", 1, 16), stepper("h100x8", 4, 1, name="llama3_70b")):
        for _ in range(34):
            batch = Batch(
                random.randint(1, 80), random.choice([1, 2]), random.uniform(100, 9000), random.random() < 0.2
            )
            own = given.at(batch)
            drawn = iter(own.loads(batch))
            total = 0
            for made in own.units:
                kernels = networks.end(own.rank, made, batch)
                if not made.end:
                    forms = [attention(own.rank, made, batch, form) for form in (True, False)]
                    kernels = min(forms, key=own.prices.kernels_ns) if isinstance(made.mixer, Latent) else forms[0]
                if made.dense:
                    kernels = kernels + networks.dense(own.rank, made, made.dense, batch.tokens)
                if made.routed and made.gate:
                    load, t = next(drawn), -(-batch.tokens // own.rank.tensor if own.rank.exchanges else -batch.tokens)
                    sent = [Kernel("", cast(t, 7168))] if own.rank.exchanges and batch.prefill else []
                    for more in (
                        networks.gate(own.rank, made.gate, t), networks.routed(own.rank, made, batch, t, load), sent,
                        networks.shared(own.rank, made.routed, t), networks.gathered(own.rank, batch.tokens),
                        *(networks.exchange(own.rank, made.gate, batch, load, back) for back in (False, True)),
                    ):  # fmt: skip
                        kernels = kernels + more
                total += sum(own.prices.ns(kernel.op) for kernel in kernels)
            assert given.ns(batch) == total


def test_a_step_told_kernel_by_kernel_is_the_step() -> None:
    for own in (stepper("h200x8", 8, 1), stepper("h100x8", 1, 16, routing=LIKED)):
        batch = Batch(24, 1, 3000.0)
        told = list(own.kernels(batch))
        assert sum(own.prices.ns(kernel.op) for _, kernel in told) == own.ns(batch)
        names = {part for part, _ in told}
        assert names >= {"embedding", "attention", "gate", "experts", "head"}


def test_experts_of_answers_have_masked_products_and_those_of_prompts_have_not() -> None:
    """Where rows come by exchanges, in FP8: a tensor group's experts are grouped."""
    roles = {
        (expert, prompt): {k.op.role for _, k in stepper("h100x8", tensor, expert).kernels(Batch(24, 1, 3000.0, prompt))
                           if isinstance(k.op, GroupedGemm)}
        for tensor, expert in ((1, 16), (8, 1)) for prompt in (False, True)
    }  # fmt: skip
    assert roles == {(16, False): {"masked"}, (16, True): {"fprop"}, (1, False): {"fprop"}, (1, True): {"fprop"}}


def test_a_prompt_alone_in_its_expert_group_loads_it_less() -> None:
    """Others' ranks have no tokens: experts have a sixteenth of the rows, and exchanges only what is sent."""
    own = stepper("h100x8", 1, 16)
    full, alone = Batch(1, 2048, 2048.0, True), Batch(1, 2048, 2048.0, True, 1 / 16)
    assert own.loads(alone)[0].rows < own.loads(full)[0].rows / 10 and own.ns(alone) < 0.8 * own.ns(full)


def test_the_form_of_latent_attention_is_found_by_price() -> None:
    """Absorbed for a decode step, plain for a whole prompt; they cross where a prompt's part is some hundred tokens."""
    own = stepper("h200x8", 8, 1)
    made = own.units[10]

    def plain_is_cheaper(batch: Batch) -> bool:
        absorbed, plain = (own.prices.kernels_ns(attention(own.rank, made, batch, form)) for form in (True, False))
        return plain < absorbed

    assert not plain_is_cheaper(Batch(32, 1, 4000.0)) and plain_is_cheaper(Batch(1, 4096, 4096.0, True))
    crossing = [q for q in (1, 16, 64, 128, 256, 512, 1024, 2048) if plain_is_cheaper(Batch(1, q, 4096.0, True))]
    assert crossing and crossing == [q for q in (64, 128, 256, 512, 1024, 2048) if q >= crossing[0]]


def test_few_tokens_hit_few_experts() -> None:
    """4 tokens that choose 8 of 256 hit 256 (1 - (1 - 8/256)^4) = 30.5 on average, which is what is read."""
    gating = stepper("h200x8", 8, 1).gating
    assert gating is not None
    for tokens in (1, 4, 64, 1000):
        hits = [load.hits for load in loads(gating, tokens)]
        assert np.mean(hits) == pytest.approx(256 * (1 - (1 - 8 / 256) ** tokens), rel=0.03)
        assert {load.rows for load in loads(gating, tokens)} == {8 * tokens}


def test_copies_of_liked_experts_even_out_the_busiest_rank() -> None:
    skewed = Routing("skewed", max_vio=4.0)
    both = skewed, replace(skewed, redundant_experts=32)
    alone, copied = (stepper("h100x8", 1, 32, routing=each).gating for each in both)
    assert alone is not None and copied is not None
    before, after = (np.mean([load.above for load in loads(each, 8192)]) for each in (alone, copied))
    assert before > 1.5 and after < 1.2


def test_the_grid_is_near_each_step_priced() -> None:
    decode, prefill = stepper("h100x8", 1, 16, routing=LIKED), stepper("h100x8", 1, 16, True, LIKED, prompts=True)
    grid = Grid(decode, prefill)
    random.seed(5)
    for _ in range(20):
        sequences, keys = random.randint(1, 200), random.uniform(50, 20000)
        told = float(grid.decode_ns(sequences, np.array([keys]))[0])
        assert told == pytest.approx(decode.ns(Batch(sequences, 1, keys)), rel=0.03)
    for _ in range(8):
        tokens, pairs = random.randint(64, 8192), random.uniform(64, 8000)
        assert grid.prefill_ns(tokens, pairs) == pytest.approx(prefill.ns(prompts(tokens, pairs)), rel=0.12)


def test_more_of_anything_takes_longer() -> None:
    own = stepper("h200x8", 8, 1)
    times = [own.ns(Batch(n, 1, keys)) for n, keys in ((4, 500.0), (4, 5000.0), (32, 5000.0), (128, 5000.0))]
    assert times == sorted(times)


@pytest.mark.parametrize("concurrency, ms", [(4, 9.73), (8, 11.71), (16, 15.39), (64, 30.52)])
def test_published_steps_of_one_node(concurrency: int, ms: float) -> None:
    """DeepSeek-R1 on 8 H200s, SGLang TP8 (IX-H200-SG-*): median time a token, at half of the output's length. Nothing
    is fitted. A bandwidth bound alone is 3.8 times too short at 4."""
    told = stepper("h200x8", 8, 1).ns(Batch(concurrency, 1, 0.9 * 1024 * 1.5)) / 1e6
    assert told == pytest.approx(ms, rel=0.10)


def test_rows_of_prompts_are_copied_to_their_experts_and_back() -> None:
    """Normal exchanges hand over a token once for all experts of a rank; low-latency ones a row for each."""
    own = stepper("h100x8", 1, 32)
    parts = [
        [kernel for part, kernel in own.kernels(batch) if part == "experts" and kernel.name in ("scatter", "gather")]
        for batch in (Batch(1, 4096, 4096.0, True), Batch(64, 1, 4096.0))
    ]
    assert len(parts[0]) == 2 * 58 and not parts[1]
    scatter = parts[0][0].op
    assert isinstance(scatter, Memory) and scatter.write == 7168 * (1 + 4 / 128) > scatter.read > 0.8 * scatter.write


def test_ranks_of_several_nodes_meet_before_each_exchange_of_prompts() -> None:
    own = stepper("h100x8", 1, 32)
    for batch, node, times in ((Batch(1, 4096, 4096.0, True), own, 2), (Batch(64, 1, 4096.0), own, 0),
                               (Batch(1, 4096, 4096.0, True), stepper("h100x8", 1, 8), 0)):  # fmt: skip
        met = [kernel for _, kernel in node.kernels(batch) if kernel.name.startswith("notify")]
        assert len(met) == times * 58 and all(kernel.lane == COMMUNICATION for kernel in met)


def test_tensorrt_llm_gathers_tokens_inside_a_node_of_hoppers() -> None:
    """Ranks that attend alone: all tokens come to each rank, its experts are one kernel, and sums are scattered; over
    nodes, by another engine and where experts are shared out by columns nothing of that."""

    def names(engine: str, node: str, pool: dict[str, int], batch: Batch) -> set[str]:
        asked = closed(1, 1, 1, 1)
        serve = loaded(document(asked, pool, model="deepseek_v3", node=node, precision="fp8", engine=engine))
        own = deployed(serve, serve.pools[0]).grid
        return {kernel.name for _, kernel in (own.prefilling if batch.prefill else own.decoding).kernels(batch)}

    inside, rows = {"expert": 8}, {"all_gather", "experts", "reduce_scatter"}
    for batch in (Batch(64, 1, 1000.0), Batch(1, 2048, 2048.0, True)):
        assert rows <= names("tensorrt_llm", "h200x8", inside, batch)
        assert not {"dispatch", "combine", "cast_sent", "routed_down"} & names("tensorrt_llm", "h200x8", inside, batch)
    few = Batch(64, 1, 1000.0)
    assert not rows & names("sglang", "h200x8", inside, few)
    assert {"dispatch", "experts"} <= names("tensorrt_llm", "h200x8", {"expert": 16}, few)
    assert "experts" not in names("tensorrt_llm", "h200x8", {"tensor": 8}, few)


APART = {
    "q_a_norm", "copy_latents", "kv_a_norm", "write_cache", "cast_q", "cast_attended", "copy_heads", "order_scales",
    "scale_routed",
}  # fmt: skip
"""Kernels of a layer of answers that SGLang of April 2025 has (its forward_absorb, forward_deepgemm_masked and
forward_deepep) and later versions have not; both norms of what is compressed are two of them."""


def test_sglang_of_april_2025_has_more_kernels() -> None:
    """Every layer of answers: nine more for latents and experts' outputs, for one norm and one index less."""
    later, batch = stepper("h100x8", 1, 32), Batch(64, 1, 4096.0)
    earlier = replace(later, rank=later.rank._replace(apart=True), known={}, drawn={}, built={})
    both = [[kernel.name for _, kernel in own.kernels(batch)] for own in (later, earlier)]
    new = [name for name in both[1] if name not in both[0]]
    assert set(new) == APART and set(both[0]) - set(both[1]) == {"latent_norms", "align"}
    assert new.count("cast_attended") == 61 and new.count("order_scales") == 58
    assert later.ns(batch) < earlier.ns(batch) < 1.1 * later.ns(batch)
    copied = next(kernel.op for _, kernel in earlier.kernels(batch) if kernel.name == "cast_attended")
    assert copied.bytes() == 64 * 128 * 512 * (2 + 1 + 4 / 128)


def test_steps_of_deepseeks_profile() -> None:
    """H800s, routing balanced: prefill by EP32 (62,713 tokens/s a node), decode by EP128 of 128 sequences of 4,096
    (18,598), both in two micro-batches."""
    decode = stepper("h800x8", 1, 128, True).ns(Batch(128, 1, 4096.0))
    assert 8 * 128 / (decode / 1e9) == pytest.approx(18598, rel=0.05)
    even = Routing("balanced", redundant_experts=32)
    prefill = stepper("h800x8", 1, 32, True, even, prompts=True).ns(Batch(4, 4096, 4096.0, True))
    assert 8 * 16384 / (prefill / 1e9) == pytest.approx(62713, rel=0.10)


def test_the_busiest_rank_is_told_beside_the_mean() -> None:
    """Three times as many rows for the most popular expert load its rank more; a model without experts has none."""
    pool, more = {"expert": 8}, {"model": "deepseek_v2_lite", "precision": "bf16"}
    above = []
    for routing in ({"kind": "balanced"}, {"kind": "skewed", "max_vio": 2.0}):
        serve = loaded(document(closed(4, 4, 100, 20), pool, routing=routing, **more))
        asked, log = system.run(serve)
        told = decode_step(serve, asked, log)
        own = deployed(serve, serve.pools[0]).grid.decoding.loads(Batch(told["sequences"], 1, told["keys"]))
        assert told["busiest_over_mean"] == pytest.approx(sum(load.above for load in own) / len(own))
        above.append(told["busiest_over_mean"])
    assert 1 < above[0] < above[1]
    serve = loaded(document(closed(1, 1, 100, 20)))
    assert decode_step(serve, *system.run(serve))["busiest_over_mean"] is None
