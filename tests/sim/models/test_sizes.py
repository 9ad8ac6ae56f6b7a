"""Every size that ships: its parameters against what others count, FLOPs and caches by hand, and a run of each."""

import os
import time
from pathlib import Path

import pytest

from hwmodels.refused import Refused
from sim import simulation
from sim.models.family import family, main_units, weights
from sim.scenario import from_mapping, models

HF = "transformers 5.24, parameters of the causal language model on the meta device"
COUNTED = {
    "deepseek_67b": (67_425_001_472, HF),
    "deepseek_v2": (235_741_434_880, HF),
    "deepseek_v2_lite": (15_706_484_224, HF),
    "deepseek_v3": (671_026_404_352 + 58 * 256, HF),
    "glm_4_5": (352_797_814_784 + 89 * 160, HF),
    "glm_4_5_air": (106_852_245_504 + 45 * 128, HF),
    "gpt3_175b": (174_604_259_328, HF),
    "gpt_oss_120b": (116_829_156_672, HF),
    "gpt_oss_20b": (20_914_757_184, HF),
    "kimi_k2": (1_026_408_209_408 + 60 * 384, HF),
    "llama2_70b": (68_976_648_192, HF),
    "llama2_7b": (6_738_415_616, HF),
    "llama3_405b": (405_853_388_800, HF),
    "llama3_70b": (70_553_706_496, HF),
    "llama3_8b": (8_030_261_248, HF),
    "llama4_maverick": (400_711_848_960, HF),
    "llama4_scout": (107_769_861_120, HF),
    "mixtral_8x22b": (140_620_634_112, HF),
    "mixtral_8x7b": (46_702_792_704, HF),
    "moonlight_16b_a3b": (15_960_108_544 + 26 * 64, HF),
    "mpt_30b": (29_957_200_896, HF),
    "mpt_7b": (6_649_286_656, HF),
    "nemotron3_nano_30b_a3b": (31_577_937_344 + 23 * 128, HF),
    "nemotron4_15b": (15_628_775_424, HF),
    "nemotron4_340b": (341_029_195_776, HF),
    "nemotron_h_56b": (56_324_350_464, HF),
    "nemotron_h_8b": (8_100_852_736, HF),
    "qwen3_0_6b": (596_049_920, HF),
    "qwen3_235b_a22b": (235_093_634_560, HF),
    "qwen3_30b_a3b": (30_532_122_624, HF),
    "qwen3_32b": (32_762_123_264, HF),
    "qwen3_8b": (8_190_735_360, HF),
}
"""Model -> parameters, and who counted them. A bias that corrects a sigmoid gate, one a routed expert, is a buffer in
transformers and a parameter here, as in the published weights: it is added."""
PUBLISHED = {
    "llama3_405b": (405, None, "arXiv:2407.21783"), "qwen3_30b_a3b": (30.5, 3.3, "arXiv:2505.09388 sec 2"),
    "qwen3_235b_a22b": (235, 22, "arXiv:2505.09388 sec 2"),
    "mixtral_8x7b": (46.7, 12.9, "mistral.ai/news/mixtral-of-experts"),
    "mixtral_8x22b": (141, 39, "mistral.ai/news/mixtral-8x22b"), "kimi_k2": (1040, 32.6, "arXiv:2507.20534 table 2"),
    "moonlight_16b_a3b": (16, 2.9, "arXiv:2502.16982"), "llama4_scout": (109, 17, "ai.meta.com/blog/llama-4"),
    "llama4_maverick": (400, 17, "ai.meta.com/blog/llama-4"), "gpt3_175b": (175, None, "arXiv:2005.14165"),
    "nemotron_h_56b": (56, None, "arXiv:2504.03624"), "deepseek_67b": (67, None, "arXiv:2401.02954"),
    "nemotron3_nano_30b_a3b": (31.6, 3.6, "Nemotron 3 Nano report, NVIDIA 2025"),
}  # fmt: skip
"""Model -> total and active parameters in billions as publishers print them, and where. Llama-4 Scout's 109 includes
the vision tower; Kimi-K2's figures are rounded from others than its weights."""


def shape_of(name, **changes):
    model = {"base": name, **changes} if changes else name
    scenario = {"cluster": {"node": "h200x8", "nodes": 16}, "model": model, "schedule": "1f1b", "precision": "bf16",
                "batch": {"micro_batches": 1}}  # fmt: skip
    return from_mapping(scenario).model


SHAPES = {name: shape_of(name) for name in models()}


def total(shape):
    return weights(shape, main_units(family(shape.family).units(shape)))


def test_every_size_is_held_against_somebody():
    assert sorted([*COUNTED, *BY_HAND]) == sorted(models()), "transformers has no class of these"


BY_HAND = ("grok_1", "nemotron3_super_120b_a12b", "nemotron3_ultra_550b_a55b")


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_parameters_to_the_last_one(name):
    assert total(SHAPES[name]).total == COUNTED[name][0]


def test_grok_1_by_hand():
    """Eight experts of three matrices 6144 x 32768, attention of 48 and 8 heads, a gate, four norms: 64 times; one
    table and a norm. xAI prints 314 B (github.com/xai-org/grok-1, README)."""
    layer = 8 * 3 * 6144 * 32768 + 6144 * (6144 + 2 * 1024) + 6144 * 6144 + 8 * 6144 + 4 * 6144
    assert total(SHAPES["grok_1"]).total == 64 * layer + 131072 * 6144 + 6144 == 315_684_820_992
    assert total(SHAPES["grok_1"]).total / 1e9 == pytest.approx(314, rel=0.006)


@pytest.mark.parametrize(("name", "hidden", "latent", "width", "mamba", "heads", "counts", "printed"), [
    ("nemotron3_super_120b_a12b", 4096, 1024, 2688, 128, 32, (40, 40, 8), 120),
    ("nemotron3_ultra_550b_a55b", 8192, 2048, 5120, 256, 64, (48, 48, 12), 550),
])  # fmt: skip
def test_experts_in_a_latent_space_by_hand(name, hidden, latent, width, mamba, heads, counts, printed):
    """512 experts of two matrices of the latent width, one shared expert twice as wide on the whole width, a product
    down and one up, a gate with biases; Mamba-2 and attention as in Nano; a norm a layer, two tables, a last norm."""
    inner, queries = 64 * mamba, 128 * heads
    mixing = hidden * (2 * inner + 2 * 8 * 128 + mamba) + inner * hidden
    mixing += (inner + 2 * 8 * 128) * 5 + 3 * mamba + inner
    mixture = 512 * 2 * latent * width + 2 * hidden * 2 * width + 2 * hidden * latent + 512 * (hidden + 1)
    attention = hidden * (queries + 2 * 2 * 128) + queries * hidden
    layers = sum(n * each for n, each in zip(counts, (mixing, mixture, attention), strict=True))
    whole = layers + sum(counts) * hidden + 2 * 131072 * hidden + hidden
    assert total(SHAPES[name]).total == whole and whole / 1e9 == pytest.approx(printed, rel=0.006)


def test_flop_of_nemotron_3_super_by_hand():
    """As NVIDIA-NeMo/Megatron-Bridge counts it (training/utils/flop_utils.py, moe_latent_size): routed experts on the
    latent width, both products; 84.4 GFLOP a token of 8,192 with two prediction modules, as published."""
    h, latent, width = 4096, 1024, 2688
    moe = 22 * 2 * latent * width + 2 * h * 2 * width + 2 * h * latent
    attention, mamba = h * (4096 + 2 * 256) + 4096 * h, h * (2 * 8192 + 2 * 1024 + 128) + 8192 * h
    scores, scan, head = 4 * 4096 * 4096, 7 * 8192 * 128, 131072 * h
    main = 6 * (40 * moe + 8 * attention + 40 * mamba + head) + 3 * (8 * scores + 40 * scan)
    assert family("transformer").flop(SHAPES["nemotron3_super_120b_a12b"], 8192, True) == main
    module = 6 * (moe + attention + head + 2 * h * h) + 3 * scores
    assert (main + 2 * module) / 1e9 == pytest.approx(84.4, rel=0.01)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_totals_and_active_parameters_as_printed(name):
    """Within 3 %: publishers round, and count an embedding once, twice or not at all."""
    shape = SHAPES[name]
    whole, met, _ = PUBLISHED[name]
    assert total(shape).total / 1e9 == pytest.approx(whole, rel=0.015)
    if met:
        assert total(shape).active(family(shape.family).mixture(shape)) / 1e9 == pytest.approx(met, rel=0.03)


@pytest.mark.parametrize("name", models())
def test_parameters_are_the_sum_over_units(name):
    """Of embedding, each layer and head: layers of a kind weigh alike, and nothing is counted between them."""
    shape = SHAPES[name]
    own = family(shape.family)
    units = main_units(own.units(shape))
    kinds = {unit.kind: own.weights(shape, unit).total for unit in units}
    assert total(shape).total == sum(kinds[unit.kind] for unit in units)


# --- FLOPs and caches by hand -----------------------------------------------------------------------------------------


def test_flop_of_qwen3_30b_by_hand():
    """6 a weight of q, k, v, o, eight of 128 experts and the head; attention's 4 x pairs x 4096 forward, thrice."""
    attention, experts = 2048 * (4096 + 2 * 512) + 4096 * 2048, 8 * 3 * 2048 * 768
    multiplying = 48 * (attention + experts) + 151936 * 2048
    for causal, pairs in ((True, 2048), (False, 4096)):
        expected = 6 * multiplying + 3 * 48 * 4 * pairs * 4096
        assert family("transformer").flop(SHAPES["qwen3_30b_a3b"], 4096, causal) == expected


def test_flop_of_gpt_oss_20b_by_hand():
    """Half of the layers see 128 keys: 128 less 128^2 / 2 / 4096 on average."""
    attention, experts = 2880 * (4096 + 2 * 512) + 4096 * 2880, 4 * 3 * 2880 * 2880
    multiplying = 24 * (attention + experts) + 201088 * 2880
    for causal, full, window in ((True, 2048, 126), (False, 4096, 128)):
        expected = 6 * multiplying + 3 * 12 * 4 * (full + window) * 4096
        assert family("transformer").flop(SHAPES["gpt_oss_20b"], 4096, causal) == expected


def test_flop_of_nemotron_h_8b_by_hand():
    """24 Mamba-2 layers (in 4096 x 18560, out 8192 x 4096, scan 7 x 8192 x 128), 24 networks, 4 attentions, head."""
    mamba = 4096 * (2 * 8192 + 2 * 8 * 128 + 128) + 8192 * 4096
    attention = 4096 * (4096 + 2 * 1024) + 4096 * 4096
    multiplying = 24 * mamba + 24 * 2 * 4096 * 21504 + 4 * attention + 131072 * 4096
    expected = 6 * multiplying + 3 * (24 * 7 * 8192 * 128 + 4 * 4 * 2048 * 4096)
    assert family("transformer").flop(SHAPES["nemotron_h_8b"], 4096, True) == expected


def test_flop_of_chunks():
    """Llama-4's chunks of 8,192: at 16,384 tokens a query of three layers in four meets half as many as in the fourth;
    at 12,288 it meets (8192^2 + 4096^2) / 12288 / 2 on average."""
    heads = SHAPES["llama4_scout"].attention("chunk")
    assert heads.keys(16384, True) == 4096 and heads.keys(16384, False) == 8192
    assert heads.keys(12288, True) == (8192**2 + 4096**2) / 12288 / 2
    assert heads.keys(4096, True) == 2048 == SHAPES["llama4_scout"].attention("unrotated").keys(4096, True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama3_405b", 126 * 2 * 8 * 128 * 2), ("qwen3_235b_a22b", 94 * 2 * 4 * 128 * 2), ("kimi_k2", 61 * 576 * 2),
        ("mpt_7b", 32 * 2 * 4096 * 2), ("nemotron3_nano_30b_a3b", 6 * 2 * 2 * 128 * 2),
    ],
)  # fmt: skip
def test_cache_of_a_token(name, expected):
    shape = SHAPES[name]
    assert family(shape.family).cache(shape) == expected


def state(shape):
    """Bytes of a sequence's state in Mamba-2 layers, however long it is."""
    return sum("mamba" in shape.kind(number) for number in range(shape.layers)) * shape.mamba.state_bytes()


def test_state_of_hybrids():
    """23 layers of 4,096 channels x 128 elements in FP32, and 4 tokens of 6,144 columns in BF16; none elsewhere."""
    assert state(SHAPES["nemotron3_nano_30b_a3b"]) == 23 * (4096 * 128 * 4 + 6144 * 4 * 2)
    assert state(SHAPES["llama3_8b"]) == 0


def test_training_cost_of_llama_405b_as_deepseek_counts_it():
    """2,448 GFLOP a token at 4,096 (arXiv:2505.09343 table 2); V2 155 there. Theirs of 405B has half of the causal
    attention that their V3 has, 1 % of the whole."""
    cost = {
        name: family(SHAPES[name].family).flop(SHAPES[name], 4096, True) / 1e9
        for name in ("llama3_405b", "deepseek_v2")
    }
    assert cost == {"llama3_405b": pytest.approx(2448, rel=0.011), "deepseek_v2": pytest.approx(155, rel=0.005)}


# --- the page ---------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[3] / "docs" / "MODELS.md"


def table():
    """Rows of docs/MODELS.md: what the families say of each size."""
    lines = ["| `model:` | family | parameters | active | GFLOP a token, causal | all pairs | cache | state |",
             "|---|---|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    for name, shape in sorted(SHAPES.items()):
        own = family(shape.family)
        met = total(shape).active(own.mixture(shape))
        flops = (f"{own.flop(shape, 4096, causal) / 1e9:,.1f}" for causal in (True, False))
        held = f"{state(shape):,.0f} B" if shape.family == "transformer" and state(shape) else ""
        row = (f"`{name}`", shape.family, f"{total(shape).total:,}", f"{met / 1e9:,.2f} billion", *flops,
               f"{own.cache(shape):,.0f} B", held)  # fmt: skip
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def test_the_page_says_what_the_families_say():
    """UPDATE_GOLDENS=1 writes it."""
    begin, end = "<!-- sizes -->\n", "\n<!-- /sizes -->"
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text.partition(begin)[0], text.partition(end)[2]
    whole = f"{head}{begin}{table()}{end}{tail}"
    if os.environ.get("UPDATE_GOLDENS"):
        PAGE.write_text(whole, encoding="utf-8")
    assert text == whole or os.environ.get("UPDATE_GOLDENS")


# --- runs -------------------------------------------------------------------------------------------------------------


def scenario(name, length=4096, **more):
    """Four stages on 16 nodes; experts as they divide; sequences no longer than learned positions."""
    shape = SHAPES[name]
    length = min(length, getattr(shape, "positions", 0) or length)
    mixture = family(shape.family).mixture(shape)
    parallel = {"pipeline": 4, "expert": min(8, mixture.experts) if mixture else 1}
    return {
        "cluster": {"node": "h200x8", "nodes": 16}, "model": name, "schedule": "1f1b", "precision": "bf16",
        "parallel": parallel, "outputs": ["result"],
        "batch": {"micro_batches": 8, "sequence_length": length, "micro_batch": 1}, **more,
    }  # fmt: skip


@pytest.mark.parametrize("name", models())
def test_a_run_of_each(name):
    """At full size: time is conserved, no faster than its peak, memory is the sum of its parts, about a CPU second."""
    start = time.process_time()
    result = simulation.run(from_mapping(scenario(name)))
    assert time.process_time() - start < 3, "1 on a machine to itself"
    told = result.summary
    step, phases = told["step_time_s"], told["phases_per_rank"]
    for position in range(4):
        assert sum(phases[phase][position] for phase in phases) == pytest.approx(step, rel=1e-6)
    assert sum(bar.seconds for bar in result.waterfall) == pytest.approx(step, rel=1e-6)
    assert 0 < told["mfu"]["causal"] <= told["mfu"]["non_causal"] < 1
    assert sum(stage.parameters for stage in result.stages) >= total(SHAPES[name]).total
    for parts in told["peak_memory_bytes"]:
        assert parts["total"] == sum(size for part, size in parts.items() if part != "total")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nemotron3_nano_30b_a3b", ["schedule=dualpipe", "routing=sampled"]),
        ("qwen3_30b_a3b", ["schedule=dualpipe", "precision=fp8", "cluster.node=h800x8"]),
        ("gpt_oss_20b", ["schedule=zb1p", "detail=op"]),
        ("llama4_maverick", ["schedule={name: interleaved, chunks: 2}"]),
        ("glm_4_5_air", ["schedule=dualpipev", "routing=skewed", "routing.max_vio=1"]),
        ("grok_1", ["pricing=roofline"]),
        ("gpt3_175b", ["fold=false"]), ("nemotron_h_8b", ["precision=fp8", "jitter=0.02"]),
    ],
)  # fmt: skip
def test_schedules_precisions_and_loads(name, words):
    result = simulation.run(from_mapping(scenario(name), words))
    told = result.summary
    assert sum(bar.seconds for bar in result.waterfall) == pytest.approx(told["step_time_s"], rel=1e-6)
    assert 0 < told["mfu"]["causal"] < 1.1


@pytest.mark.parametrize("name", ["llama3_8b", "gpt_oss_20b", "nemotron3_nano_30b_a3b", "qwen3_30b_a3b"])
def test_more_tokens_are_never_faster(name):
    """A step of longer sequences, and of more layers, takes longer."""
    steps = [
        simulation.run(from_mapping(scenario(name, length)), False).summary["step_time_s"]
        for length in (2048, 4096, 8192)
    ]
    assert steps == sorted(steps) and steps[0] < steps[-1]


def test_sequences_beyond_learned_positions_are_refused():
    with pytest.raises(Refused, match=r"4096 is beyond the positions that GPT-3 175B learned; legal: 1 to 2048"):
        simulation.run(from_mapping(scenario("gpt3_175b"), ["batch.sequence_length=4096"]))
