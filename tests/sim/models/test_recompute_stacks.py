"""What backward computes again on stacks that lower blocks: its kernels are forward's, its bytes are not kept."""

from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from hwmodels.document import DocumentError
from hwmodels.op import AllToAll, Gemm
from sim.analysis.notes import notes
from sim.assembly import machine
from sim.layout.plan import lay_out
from sim.models.lowering import modules
from sim.models.recompute import AGAIN, MODULES, Recompute
from sim.models.stacks.stack import KINDS
from sim.scenario import from_mapping

NONE, SELECTIVE = Recompute("none"), Recompute("selective_op")
RECIPES = {"megatron": ("bf16", "fp8_current", "fp8_block"), "torch": ("bf16",)}
CASES = [
    (stack, model, precision, expert)
    for stack, recipes in RECIPES.items() for precision in recipes
    for model, experts in (
        ("llama3_8b", (1,)), ("qwen3_30b_a3b", (1, 8)), ("deepseek_v3", (8,)), ("deepseek_v2_lite", (1, 8)),
        ("nemotron4_15b", (1,)),
    ) for expert in experts
]  # fmt: skip
WORDS = {
    ("megatron", "llama3_8b"): "core_attention mlp",
    ("megatron", "qwen3_30b_a3b"): "core_attention norm activation moe",
    ("megatron", "deepseek_v3"): " ".join(MODULES),
    ("torch", "llama3_8b"): "core_attention norm activation mlp",
    ("torch", "qwen3_30b_a3b"): "core_attention norm activation moe",
    ("torch", "deepseek_v3"): "core_attention mla_up_projection norm activation mlp moe",
}


def scenario(stack="megatron", model="llama3_8b", precision="bf16", expert=1, **changes):
    return from_mapping({
        "cluster": {"node": "h200x8", "nodes": 1}, "model": model, "precision": precision, "stack": stack,
        "parallel": {"expert": expert}, "schedule": "1f1b", "outputs": ["result"],
        "batch": {"sequences": 8, "sequence_length": 2048}, **changes,
    })  # fmt: skip


@cache
def on(*case):
    return machine(lay_out(scenario(*case)))


def chosen(*words):
    return Recompute("modules", tuple(each for each in MODULES if each in words))


def layers(own):
    """One layer of each sort."""
    return tuple({unit.kind: unit for unit in own.units if unit.block}.values())


def kernels(own, choice, unit, direction):
    site = own.site._replace(recompute=choice)
    return [kernel for part in own.lowering.parts(site, unit, direction) for kernel in part.kernels]


def kept(own, choice, unit):
    return own.lowering.kept(own.site._replace(recompute=choice), unit).at(own.site)


def regained(own, choice, unit):
    return own.lowering.regained(own.site._replace(recompute=choice), unit).at(own.site)


def again(own, choice, unit):
    """Kernels that run a second time, and what of the backward runs once."""
    parts = own.lowering.parts(own.site._replace(recompute=choice), unit, "B")
    second = [k for part in parts if part.name.endswith(AGAIN) for k in part.kernels]
    return second, [k for part in parts if not part.name.endswith(AGAIN) for k in part.kernels]


@pytest.mark.parametrize("stack, model", sorted(WORDS))
@pytest.mark.parametrize("recipe", ["bf16", "fp8_current"])
def test_modules_that_a_model_has(stack, model, recipe):
    own = on(stack, model, recipe if recipe in RECIPES[stack] else "bf16", 8 if model == "deepseek_v3" else 1)
    assert " ".join(modules(own.site)) == WORDS[stack, model]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_word_frees_what_its_kernels_make(case):
    own = on(*case)
    for word in modules(own.site):
        freed = [kept(own, NONE, unit) - kept(own, chosen(word), unit) for unit in layers(own)]
        ran = [again(own, chosen(word), unit)[0] for unit in layers(own)]
        assert any(freed) and [each > 0 for each in freed] == [bool(each) for each in ran], word


@settings(max_examples=150, deadline=None)
@given(
    case=st.sampled_from(CASES), words=st.sets(st.sampled_from(MODULES)), more=st.sampled_from(MODULES),
)  # fmt: skip
def test_memory_falls_and_time_rises_by_what_runs_again(case, words, more):
    own, few, many = on(*case), chosen(*words), chosen(*words, more)
    for unit in layers(own):
        assert kept(own, many, unit) <= kept(own, few, unit)
        second, once = again(own, many, unit)
        assert once == kernels(own, NONE, unit, "B"), "the rest of backward is as it was"
        assert not Counter(second) - Counter(kernels(own, NONE, unit, "F")), "nothing runs that forward does not run"
        assert not Counter(again(own, few, unit)[0]) - Counter(second)
        for direction in "FW":
            assert kernels(own, many, unit, direction) == kernels(own, NONE, unit, direction)
        if kept(own, many, unit) < kept(own, few, unit):
            assert len(second) > len(again(own, few, unit)[0]), "nothing is free"
        freed = kept(own, NONE, unit) - kept(own, many, unit)
        assert 0 <= regained(own, many, unit) - regained(own, NONE, unit) <= freed, "there again, at most all of it"


def test_what_modules_of_megatron_free_by_hand():
    """A token of a MoE layer of DeepSeek-V3, BF16 and in blocks of FP8 (a scale of 4 bytes for 128)."""
    h, q, out, rows, w, heads = 7168, 24576, 16384, 8, 2048, 128
    for precision, byte, narrow in (("bf16", 2, False), ("fp8_block", 1 + 4 / 128, True)):
        own = on("megatron", "deepseek_v3", precision, 8)
        unit = next(unit for unit in own.units if unit.routed)
        t, received = own.site.tokens, own.site.rows
        shared = byte * h * narrow + 2 * 2 * w + byte * w
        for word, each, row in (
            ("core_attention", 4 * heads + 2 * out * narrow, 0),
            ("mla_up_projection", 2 * (2 * q + out) + (byte * 1536 + 4) + (byte * 512 + 4), 0),
            ("norm", (byte * h + 4) + (2 * h + 4) + byte * h * narrow, 0),
            ("activation", 0, byte * w),
            ("shared_experts", shared, 0),
            ("moe", shared + 2 * 4 * 256, byte * h + 2 * 2 * w + byte * w),
        ):
            freed = kept(own, NONE, unit) - kept(own, chosen(word), unit)
            assert freed == pytest.approx(t * each + received * row, rel=1e-12), (word, rows)


def test_what_modules_of_torch_free_by_hand():
    own = on("torch", "llama3_8b", "bf16", 1)
    (unit,) = layers(own)
    h, w = 4096, 14336
    for word, each in (
        ("core_attention", 2 * h + 4 * 32), ("norm", 2 * (2 * h + 4)), ("activation", 2 * 2 * w), ("mlp", 4 * 2 * w),
    ):  # fmt: skip
        assert kept(own, NONE, unit) - kept(own, chosen(word), unit) == 2048 * each, word


NAMES = {
    ("megatron", "activation"): ["swiglu"], ("megatron", "norm"): ["mlp_norm", "input_norm"],
    ("megatron", "core_attention"): ["memset", "seed", "sdpa"],
    ("megatron", "mla_up_projection"): ["q_norm", "q_up", "kv_norm", "kv_up", "rope_q", "rope_kv"],
    ("megatron", "shared_experts"): ["shared_fc1", "shared_act", "shared_fc2"],
    ("torch", "norm"): ["mlp_norm", "attn_norm", "q_norm", "kv_norm"],
    ("torch", "core_attention"): ["memset", "sdpa"],
}  # fmt: skip


@pytest.mark.parametrize("stack, word", sorted(NAMES))
def test_kernels_of_a_word(stack, word):
    own = on(stack, "deepseek_v3", "bf16", 8)
    unit = next(unit for unit in own.units if unit.routed)
    assert [kernel.name for kernel in again(own, chosen(word), unit)[0]] == NAMES[stack, word]


def test_a_quantised_input_that_is_not_kept_is_quantised_again():
    own = on("megatron", "deepseek_v3", "fp8_block", 8)
    unit = next(unit for unit in own.units if unit.routed)
    names = [[k.name for k in again(own, chosen(word), unit)[0]] for word in ("activation", "norm")]
    assert names == [
        ["swiglu", *["cast_rows_experts_fc2_fprop"] * own.site.local_experts],
        ["mlp_norm", "cast_x_shared_fc1", "input_norm", "cast_x_q_down", "cast_x_kv_down"],
    ]


@pytest.mark.parametrize("stack", RECIPES)
def test_a_mixture_that_runs_again_exchanges_again(stack):
    own = on(stack, "qwen3_30b_a3b", "bf16", 8)
    (unit,) = layers(own)
    parts = own.lowering.parts(own.site._replace(recompute=chosen("moe")), unit, "B")
    assert [part.name for part in parts] == [
        "attn again", "dispatch again", "mlp again", "combine again", "combine", "mlp", "dispatch", "attn",
    ]  # fmt: skip
    assert [part.name for part in parts if part.meets] == ["dispatch again", "combine again", "combine", "dispatch"]
    assert sum(isinstance(k.op, AllToAll) for part in parts for k in part.kernels) == 4


def test_megatron_runs_to_the_end_and_torch_stops_before_what_nobody_needs():
    """A dense network and a whole layer: with the last product, or without it."""
    for stack, last in (("megatron", "fc2"), ("torch", "gate_mul")):
        own = on(stack, "llama3_8b", "bf16", 1)
        (unit,) = layers(own)
        assert again(own, chosen("mlp"), unit)[0][-1].name == last
    own = on("megatron", "llama3_8b", "bf16", 1)
    second, _ = again(own, Recompute("full"), layers(own)[0]._replace(checkpoint="first"))
    assert second == kernels(own, NONE, layers(own)[0], "F")


# --- torchtitan's policy ----------------------------------------------------------------------------------------------


def test_the_selective_policy_keeps_attention_and_every_second_product():
    """Llama-3 8B: of q, k, v, o, gate, up, down it saves q, v, gate and down, and runs k, o and up again."""
    own = on("torch", "llama3_8b", "bf16", 1)
    (unit,) = layers(own)
    second, once = again(own, SELECTIVE, unit)
    assert [k.name for k in second if isinstance(k.op, Gemm)] == ["k", "o", "up"] and second[-1].name == "gate_mul"
    assert not {"sdpa", "q", "v", "gate", "down"} & {k.name for k in second} and once == kernels(own, NONE, unit, "B")
    h, kv, w, heads = 4096, 1024, 14336, 32
    assert kept(own, SELECTIVE, unit) == 2048 * (2 * (h + h + kv + w + h + h) + 4 * heads)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] == "torch"], ids=str)
def test_the_policy_lies_between_all_and_nothing(case):
    own = on(*case)
    for unit in layers(own):
        whole, second = unit._replace(checkpoint="first"), again(own, SELECTIVE, unit)[0]
        assert kept(own, Recompute("full"), whole) < kept(own, SELECTIVE, unit) < kept(own, NONE, unit)
        assert 0 < len(second) < len(kernels(own, Recompute("full"), whole, "F"))
        assert not Counter(second) - Counter(kernels(own, NONE, unit, "F"))
        assert not any(isinstance(k.op, AllToAll) for k in second), "exchanged rows are saved"


def test_one_layer_in_so_many():
    """torchtitan's selective checkpointing with a number: the n-th, 2 n-th ... layer of a stage."""
    every = Recompute("layers", layers=3, method="every")
    assert every.checkpoints(7) == ("", "", "first", "", "", "first", "") and not every.everywhere


COMPILED = {"name": "torch", "compiled": True}


def laid_out(stack, precision="bf16", **changes):
    return machine(lay_out(scenario(stack, "llama3_8b", precision, **changes)))


def test_compiled_code_makes_again_what_the_policy_does_not_save():
    """Of the products q, k, v, o, gate, up, down every second; norms, rope and the activation, as fused kernels."""
    own = laid_out(COMPILED)
    (unit,) = layers(own)
    second, _ = again(own, SELECTIVE, unit)
    assert [kernel.name for kernel in second] == [
        "attn_norm", "k", "rope_q", "rope_k", "join_heads", "o", "mlp_norm", "memset", "up", "swiglu",
    ]  # fmt: skip
    h, kv, w, heads = 4096, 1024, 14336, 32
    assert kept(own, SELECTIVE, unit) == 2048 * (2 * (h + h + kv + w + h + h) + 4 * heads)


def test_products_in_float8_are_no_mm_of_the_policy_and_largest_values_are_saved():
    own = laid_out(COMPILED, "fp8_current")
    (unit,) = layers(own)
    names = [kernel.name for kernel in again(own, SELECTIVE, unit)[0]]
    assert [name for name in ("q", "k", "v", "o", "gate", "up", "down") if name in names] == [
        "q", "k", "v", "o", "gate", "up",
    ]  # fmt: skip
    assert not [name for name in names if name.startswith(("amax", "scale"))] and "cast_x_attn" in names


@pytest.mark.parametrize("chunked", [False, True])
def test_what_only_a_saved_sum_over_ranks_reads_is_not_made_again(chunked):
    """The products before reduce-scatters, o and down, in compiled code; eager code runs through them."""
    for stack, left in ((COMPILED, ["k", "up"]), ("torch", ["k", "o", "up"])):
        if chunked and stack == "torch":
            continue
        own = laid_out(stack, parallel={"expert": 1, "tensor": 8, "zero": 3}, overlap={"tensor": chunked})
        (unit,) = layers(own)
        products = [kernel for kernel in again(own, SELECTIVE, unit)[0] if isinstance(kernel.op, Gemm)]
        assert list(dict.fromkeys(kernel.name for kernel in products)) == left
        assert len(products) == len(left) * (8 if chunked else 1)


# --- scenarios --------------------------------------------------------------------------------------------------------


ORDER = {
    "megatron": ["none", "{modules: [core_attention]}", "{modules: [core_attention, mlp]}", "full"],
    "torch": ["none", "{modules: [norm]}", "{modules: [norm, activation]}", "{modules: [norm, mlp]}", "full"],
}


@pytest.mark.parametrize("stack", sorted(ORDER))
def test_a_step_takes_longer_and_less_memory(stack):
    ran = [
        sim.run(scenario(stack, {"base": "llama3_8b", "layers": 4}, batch={"micro_batches": 2, "sequence_length": 4096},
                         recompute=choice if choice in ("none", "full") else {"modules": choice[11:-2].split(", ")}))
        for choice in ORDER[stack]
    ]  # fmt: skip
    times, peaks = ([each.summary[key] for each in ran] for key in ("step_time_s", "worst_memory"))
    held = [peak["peak_bytes"] for peak in peaks]
    assert times == sorted(set(times)) and held == sorted(set(held), reverse=True)


@pytest.mark.parametrize("stack, words", [("megatron", ["mlp"]), ("torch", ["norm", "activation"])])
def test_a_step_takes_longer_by_what_runs_again(stack, words):
    """Two micro-batches of four layers on one GPU, replayed as a graph: eight times those kernels."""
    found = [
        scenario({"name": stack, "cuda_graphs": True}, {"base": "llama3_8b", "layers": 4}, recompute=choice,
                 batch={"micro_batches": 2, "sequence_length": 4096},
                 cluster={"node": {"base": "a100x8", "gpus": 1}, "nodes": 1})  # where no clock goes by what runs
        for choice in ("none", {"modules": words})
    ]  # fmt: skip
    own = machine(lay_out(found[1]))
    unit = next(unit for unit in own.units if unit.block)
    each = sum(own.part_ns(part) for part in own.parts(unit, "B") if part.name.endswith(AGAIN))
    none, again_ = (sim.run(each).summary["phases_per_rank"]["backward"][0] for each in found)
    assert again_ - none == pytest.approx(8 * each / 1e9, rel=1e-6)


def test_a_word_that_a_model_lacks_says_so():
    found = scenario("megatron", "llama3_8b", recompute={"modules": ["mla_up_projection", "norm", "mlp"]})
    lines = [line for line in notes(found, sim.run(found).summary, []) if line.startswith("recompute")]
    assert lines == [
        "recompute.modules: Llama-3 8B has no mla_up_projection, norm to compute again on the megatron stack, so that "
        "changes nothing"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"stack": "megatron", "recompute": "selective_op"}, "recompute.kind: the megatron stack has no policy by op"),
        ({"stack": "deepseek", "recompute": "selective_op"}, "it goes with: torch"),
        ({"precision": "fp8_delayed", "recompute": {"modules": ["norm"]}}, "norm: delayed scaling has moved on"),
    ],
)
def test_what_a_stack_cannot_compute_again_is_refused(changes, told):
    with pytest.raises(DocumentError, match=told):
        scenario(**changes)


def test_only_one_stack_has_the_policy():
    assert [name for name, kind in KINDS.items() if kind.selective] == ["torch"]
