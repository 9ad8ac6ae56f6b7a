"""Every key of a scenario and of a model's dimensions: with another value a figure of the run moves, or a line says it
does not; and never both. The lines are in result.json, in a Result, in records of sweeps and on the terminal.

Scenarios are small; each holds keys that others do not feel.
"""

import json
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import yaml

import sim
from hwmodels.refused import Refused
from sim.__main__ import main
from sim.experiments.record import record
from sim.experiments.unfelt import LABELS, UNTOLD, unfelt
from sim.models.family import form
from sim.scenario import SCENARIOS, from_mapping, load, models
from sim.scenario.form import ScenarioForm
from sim.simulation import run

LITE, LLAMA, TIMES, EIGHT = (
    str(SCENARIOS / f"{name}.yaml") for name in ("v2_lite", "llama3_70b", "zb_chunk_times", "dualpipe_8x20")
)
SMALL = ("cluster.nodes=2", "parallel.pipeline=2", "batch.sequences=32", "batch.sequence_length=512",
         "outputs=[result]")  # fmt: skip
MOE = (LITE, *SMALL, "model.layers=4", "parallel.expert=8", "cluster.fabric.base=ft3")
SCENARIOS_OF = {
    "experts over nodes": (*MOE, "cluster.nodes=4", "parallel.expert=16"),
    "experts of a node": MOE,
    "copy engines": (*MOE, "comm.sms=0"),
    "one stage, no exchanges": (*MOE, "parallel.pipeline=1", "parallel.expert=1"),
    "dense": (LLAMA, *SMALL, "model.layers=4"),
    "shared layers": (LLAMA, *SMALL, "model.layers=4", "stack=megatron", "parallel.tensor=2", "parallel.context=2"),
    "shared tokens alone": (LLAMA, *SMALL, "model.layers=4", "stack=megatron", "parallel.context=2"),
    "shared experts": (
        LLAMA,
        *SMALL,
        "model=qwen3_30b_a3b",
        "model.layers=4",
        "stack=megatron",
        "parallel.tensor=2",
        "parallel.expert=4",
    ),
    "times": (TIMES,),
    "times of one position": (TIMES, "parallel.pipeline=1"),
    "times of messages that take none": (EIGHT,),
}
VALUES = {
    "precision": "fp8", "parallel.pipeline": 4, "parallel.expert": 2, "schedule.name": "gpipe", "schedule.chunks": 3,
    "placement": "even", "batch.sequences": 128, "batch.sequence_length": 1024, "batch.micro_batch": 2,
    "batch.micro_batches": 32, "routing.kind": "sampled", "routing.redundant_experts": 16, "comm.sms": 24,
    "comm.warps": "fixed", "comm.exchange": "closed", "comm.hold": "always", "comm.messages": "waited",
    "comm.waits": "measured", "optimizer.name": "muon", "optimizer.reduce": "after", "seed": 5, "pricing": "roofline",
    "jitter": 0.02, "limits.memory": "1 GB", "limits.step_time": "1 us", "cluster.nodes": 8,
    "cluster.placement": "scattered", "cluster.routing": "ecmp", "chunk_times.forward": "30 ms",
    "chunk_times.backward_input": "30 ms", "chunk_times.weight": "30 ms", "chunk_times.overlapped": "90 ms",
    "chunk_times.p2p": "3 ms", "faults": "[{kind: gpu, at: 1, slower: 2}]",
    "batch.packed": "false", "overlap.expert": "true", "recompute.kind": "full", "recompute.modules": "[mlp, moe]",
    "recompute.layers": 2, "states.master": "bf16", "states.moments": "fp32", "states.gradients": "bf16",
    "states.parameters": "bf16", "optimizer.offload": "host",
    "offload": 0.5, "optimizer.unseen": 0.5, "schedule.waiting": 0,
    "stack.name": "torch", "comm.collectives": "nccl", "parallel.tensor": 4, "parallel.sequence": "false",
    "parallel.context": 4, "parallel.context_kind": "all_gather", "parallel.expert_tensor": 2,
    "parallel.order": "cp-tp-dp-ep-pp", "overlap.tensor": "true", "parallel.zero": 0, "parallel.shard": 1,
    "parallel.no_sync": "true",
    "overlap.gradients": "true", "overlap.parameters": "true", "overlap.buckets": "1 GB", "overlap.gather": "before",
    "overlap.pipeline": "false",
}  # fmt: skip
"""Another value than any of the scenarios has."""
ELSEWHERE = {
    "name", "outputs", "detail", "fold",  # decide no figure, as docs/REFERENCE.md says
    "cluster.node", "cluster.fabric", "model",  # documents, whose keys are gone through by themselves
    "parallel.reshard",  # has one legal value, but for parallel.zero 3
    "stack.release", "stack.compiled", "stack.cuda_graphs", "stack.graphed", "stack.dispatcher",  # likewise
    "stack.loss_parallel", "stack.attention", "stack.cross_entropy", "stack.unpadded", "stack.fused_experts",
    "stack.norms", "stack.scales", "stack.casts", "stack.early_stop", "stack.rope", "stack.router",
    "stack.gating", "stack.permute", "stack.weighting", "stack.padded", "stack.sequential", "stack.accumulation",
    "stack.bf16_first", "stack.bf16_last",
    "stack.bf16_prediction", "stack.attention_precision", "stack.output_layer",
    "stack.repeated", "stack.compiled_ends", "stack.update", "stack.clips", "stack.flat", "stack.metrics",
    "recompute.method", "routing.spread", "routing.max_vio", "routing.histogram",  # refused where they do not belong
    "schedule.group",  # likewise: of interleaved stages
    "tables",  # of a trace: tests/numerics/tables/test_traced.py
    *(f"batch.lengths.{key}" for key in ("kind", "length", "low", "high", "median", "sigma", "histogram")),  # likewise
}  # fmt: skip


def keys(form_of, above=""):
    for name, field in form_of.model_fields.items():
        inner = next((a for a in (field.annotation, *get_args(field.annotation)) if hasattr(a, "model_fields")), None)
        if inner and name != "faults":
            yield from keys(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}"


known = cache(load)
"""Figures and lines are of one scenario."""


@cache
def figures(path, *overrides, interval=False):
    """What a run tells of itself aside; or None where it is refused."""
    try:
        summary = run(known(path, overrides), interval).summary
    except Refused:
        return None
    return {key: value for key, value in summary.items() if key not in ("scenario", "detail", *UNTOLD)}


def lines(path, *overrides):
    return [line.split(" changes nothing")[0] for line in unfelt(known(path, overrides))]


def test_every_key_is_gone_through():
    assert set(keys(ScenarioForm)) == VALUES.keys() | ELSEWHERE


@pytest.mark.parametrize("name", SCENARIOS_OF)
def test_a_key_of_a_scenario_is_felt_or_told(name):
    words = SCENARIOS_OF[name]
    moved = 0
    for key, value in VALUES.items():
        drawn = key == "seed"  # which moves intervals
        base, changed = (figures(*words, *more, interval=drawn) for more in ((), (f"{key}={value}",)))
        if changed is not None:
            assert (key in lines(*words, f"{key}={value}")) == (changed == base), key
            moved += changed != base
    assert moved > 3 and lines(*words) == []


MODELS = {
    "without experts": (*MOE, "model.dense_layers=4", "parallel.expert=1"),
    "gpt_oss_20b": (LLAMA, "model=gpt_oss_20b", *SMALL, "model.layers=4", "parallel.expert=8"),
    "nemotron_h_8b": (LLAMA, "model=nemotron_h_8b", *SMALL, "model.layers=4"),
}


def another(field, value):
    """Another value of a dimension than the one it has."""
    words = [word for word in get_args(field.annotation) if isinstance(word, str)]
    if words:
        return next(word for word in words if word != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 2 * value or 2
    return 16 if value is None else "attention+dense"


@pytest.mark.parametrize("name", MODELS)
def test_a_dimension_of_a_model_is_felt_or_told(name):
    """Such as a window without a layer that has one, parts of Mamba-2 layers without them, GEGLU for SwiGLU."""
    words = MODELS[name]
    shape, base, silent = load(words[0], words[1:]).model, figures(*words), []
    for key, field in form(shape.family).model_fields.items():
        word = f"model.{key}={json.dumps(another(field, getattr(shape, key)))}"
        changed = figures(*words, word) if key not in LABELS else None
        if changed is not None:
            assert (f"model.{key}" in lines(*words, word)) == (changed == base), word
            silent += [key] if changed == base else []
    assert silent and lines(*words) == []


def test_a_line_says_what_the_key_is():
    assert list(unfelt(load("llama3_70b", ["model.window=128", "comm.sms=12", "comm.waits=measured"]))) == [
        "comm.sms changes nothing: Llama-3 70B has no experts, so no kernel of exchanges runs or holds SMs",
        "comm.waits changes nothing: Llama-3 70B has no experts, so no kernel of exchanges runs or holds SMs",
        "model.window changes nothing in this run: no kernel, byte or FLOP of Llama-3 70B depends on it (keys that a "
        "query of a window layer sees at most)",
    ]


@pytest.mark.parametrize(("group", "felt"), [(2, False), (4, True)])
def test_a_group_of_as_many_micro_batches_as_without_it_is_told(group, felt):
    """On two positions, groups are of two."""
    words = (LLAMA, *SMALL, "model.layers=4", "schedule.name=interleaved", f"schedule.group={group}")
    assert (figures(*words) != figures(*words[:-1])) == felt
    assert lines(*words) == [] if felt else ["schedule.group"]


@pytest.mark.parametrize("precision", ["fp8_delayed", "fp8_current", "fp8_block"])
def test_states_are_told_beside_every_recipe(precision):
    """A recipe of TransformerEngine has formats of its own."""
    words = (*SMALL, "model.layers=4", "stack=megatron", f"precision={precision}", "states.master=fp32")
    assert f"states.master changes nothing: precision {precision} has them so" in list(unfelt(load(LLAMA, words)))


def test_a_model_of_ones_own_is_asked_about_and_a_default_in_a_file_is_not(tmp_path):
    """Also below `models/`, and over changes of changes."""
    text = (SCENARIOS / "models" / "llama3_8b.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(f"{text}\nwindow: 128\nchunk: 0\nmamba_state: 16\n")
    content = {**load(LLAMA, SMALL).resolved, "model": "mine.yaml", "comm": {"sms": 20, "warps": "fixed"}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    found = ["comm.warps", "model.window", "model.mamba_state"]
    assert lines(str(tmp_path / "s.yaml")) == found
    again = load(load(tmp_path / "s.yaml"), ["model.sinks=true", "comm.sms=20"])
    assert [line.split()[0] for line in unfelt(again)] == ["comm.warps", "comm.sms", *found[1:]]


@pytest.mark.parametrize("name", models())
def test_models_that_ship_have_no_dimension_to_no_end_but_those_of_their_gates(name):
    """Given back from what they resolve to, where every dimension stands in the scenario itself."""
    expert = 1 if not load(LLAMA, [f"model={name}"]).model.__dict__.get("experts") else 2
    scenario = load(LLAMA, [f"model={name}", *SMALL, "parallel.pipeline=1", f"parallel.expert={expert}"])
    idle = [line.split()[0] for line in unfelt(from_mapping(scenario.resolved), further=False)]
    assert set(idle) <= {"model.groups", "model.groups_per_token"}


def test_lines_are_in_all_that_a_run_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["comm.sms=12", "outputs=[result]"]
    line = "comm.sms changes nothing: chunk_times have no exchanges"
    assert sim.run(TIMES, words).summary["unfelt"] == record(load(TIMES, words))["summary"]["unfelt"] == [line]
    assert main([TIMES, *words, "-q", "--out", "o"]) == 0
    assert capsys.readouterr().err == f"{TIMES}: {line}\n"
    assert json.loads(Path("o/result.json").read_text())["unfelt"] == [line]
    assert main(["check", TIMES, *words]) == 0
    assert capsys.readouterr().err == f"{TIMES}: {line}\n"
    assert sim.run(TIMES, ["outputs=[result]"]).summary["unfelt"] == []


@pytest.mark.parametrize("precision", ["fp8_delayed", "mxfp8"])
def test_recipes_of_transformer_engine_are_asked_and_advised(precision):
    """They are no recipes of sim.models.precision."""
    words = [*SMALL, "model.layers=4", "stack=megatron", "cluster.node=b200x8", f"precision={precision}"]
    result = sim.run(LLAMA, [*words, "states.moments=fp32", "limits.memory=1 GB"])
    assert result.summary["step_time_s"] > 0
    assert any(line.startswith("states.moments") for line in result.summary["unfelt"])


@pytest.mark.parametrize(("dispatcher", "collectives", "why"), [
    ("hybridep", "ring", "HybridEP moves"), ("alltoall", "nccl", "NCCL moves"), ("deepep", "nccl", ""),
    ("alltoall", "ring", ""),
])  # fmt: skip
def test_warps_are_of_kernels_that_have_them(dispatcher, collectives, why):
    words = (
        *SMALL, "model=qwen3_30b_a3b", "model.layers=4", f"stack={{name: megatron, dispatcher: {dispatcher}}}",
        "parallel.expert=16", "cluster.nodes=4", f"comm.collectives={collectives}", "comm.warps=fixed",
    )  # fmt: skip
    said = [line for line in unfelt(load(LLAMA, words), further=False) if line.startswith("comm.warps")]
    assert said == ([f"comm.warps changes nothing: {why} what is exchanged, timed as it was measured"] if why else [])


@pytest.mark.parametrize("word", ["router=plain", "gating=fp32", "sequential=true"])
def test_what_a_stack_does_with_experts_changes_nothing_where_there_are_none(word):
    key = f"stack.{word.partition('=')[0]}"
    dense, routed = ([*SMALL, *own, "model.layers=4", "stack.name=megatron", f"stack.{word}"] for own in (
        [], ["model=qwen3_30b_a3b"]))  # fmt: skip
    said = [line for line in unfelt(load(LLAMA, dense), further=False) if line.startswith(key)]
    assert said == [f"{key} changes nothing: Llama-3 70B has no experts"]
    assert not [line for line in unfelt(load(LLAMA, routed), further=False) if line.startswith(key)]


@pytest.mark.parametrize("node", ["b200x8", "h100x8", "a100x8"])
def test_watts_are_felt_where_a_card_of_the_architecture_was_metered(node):
    key = "cluster.node.device.power"
    own = load(
        LLAMA, (*SMALL, "model.layers=4", "stack=torch", "precision=bf16", f"cluster.node={node}", f"{key}=500 W")
    )
    line = f"{key} changes nothing: what watts leave of a clock is not known of ampere"
    assert [each for each in unfelt(own, further=False) if each.startswith(key)] == [line] * (node == "a100x8")


LEVELS = "cluster.node.device.hierarchy"


@pytest.mark.parametrize(("word", "line"), [
    (f"{LEVELS}.shared_memory.technology=edram", f"{LEVELS}.shared_memory.technology changes nothing: descriptive, "),
    (f"{LEVELS}.l2.technology=sram", f"{LEVELS}.l2.technology changes nothing: the level is so without it"),
    (f"{LEVELS}={{l2: {{capacity: 50 MiB}}}}", f"{LEVELS}.l2.capacity changes nothing: the level is so without it"),
    (f"{LEVELS}.l2.technology=stt_mram", ""),
])  # fmt: skip
def test_levels_of_a_device_that_change_nothing_are_told(word, line):
    told = [each for each in unfelt(load(*_small(word))) if each.startswith(LEVELS)]
    assert [each.startswith(line) for each in told] == [True] * bool(line)


def _small(word):
    return str(SCENARIOS / "llama3_8b_one_gpu.yaml"), [word, "model.layers=2", "outputs=[result]"]
