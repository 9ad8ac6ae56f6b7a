"""Words that nobody wrote down: they are read as far as they can be, told, counted, and never in the way."""

import csv
import random
from dataclasses import replace

import pytest

from hwmodels.refused import Refused
from sim.models.recompute import MODULES
from sim.validation.runs import grammar, machines, words
from sim.validation.runs.rows import FILE, asked, read
from sim.validation.runs.scenario import Mapped, mapped

ROWS = list(asked(read(FILE)))
BY_ID = {run.id: run for run in ROWS}
TOKENS = words.table("tokens")


def say(column, phrase):
    return grammar.read(TOKENS.get(column, TOKENS["free"]), phrase)


@pytest.mark.parametrize(("column", "phrase", "keys"), [
    ("precision", "FP8-MX", {"precision": "mxfp8"}),
    ("precision", "FP8_CS (per-tensor)", {"precision": "fp8_current"}),
    ("precision", "fp8 delayed scaling recipe", {"precision": "fp8_delayed"}),
    ("precision", "FP8 sub-channel", {"precision": "fp8_block"}),
    ("precision", "nv-fp4", {"precision": "nvfp4"}),
    ("precision", "bfloat16 mixed", {"precision": "bf16"}),
    ("data_parallel", "Megatron-FSDP", {"parallel.zero": 3}),
    ("data_parallel", "distributed optimizer", {"parallel.zero": 1}),
    ("recompute", "full recompute", {"recompute": "full"}),
    ("recompute", "No activation checkpointing", {"recompute": "none"}),
    ("recompute", "selective recompute: layernorm, moe_act, mla_up_proj",
     {"recompute": {"modules": ["mla_up_projection", "activation", "norm"]}}),
    ("recompute", "selective", {"recompute": {"modules": ["core_attention"]}}),
    ("recompute", "block, 4 layers", {"recompute": {"layers": 4, "method": "block"}}),
    ("recompute", "every 2nd layer", {"recompute": {"layers": 2, "method": "every"}}),
    ("other", "CUDA graphs: attn, moe_router", {"stack.cuda_graphs": False, "stack.graphed": ["attention", "router"]}),
    ("other", "full-iteration CUDA graph", {"stack.cuda_graphs": True}),
    ("other", "CUDA Graphs disabled", {"stack.cuda_graphs": False}),
    ("other", "a2a dispatcher", {"stack.dispatcher": "alltoall"}),
    ("other", "DeepEP + HybridEP", {"stack.dispatcher": "hybridep"}),
    ("other", "pipeline layout Et*3|(tt|)*29mL", {"placement": "Et*3|(tt|)*29mL"}),
    ("overlap", "TP userbuffers off", {"overlap.tensor": False}),
    ("overlap", "without p2p overlap, grad reduce", {"overlap.pipeline": False, "overlap.gradients": True}),
    ("overlap", "EP overlap = False", {"overlap.expert": False}),
    ("overlap", "tp userbuffers=n/a", {}),
    ("overlap", "no overlap", {f"overlap.{key}": False
                               for key in ("gradients", "parameters", "tensor", "expert", "pipeline")}),
])  # fmt: skip
def test_known_tokens_are_read_out_of_any_phrase(column, phrase, keys):
    assert dict(say(column, phrase).keys) == keys


def test_what_nobody_understands_is_told_and_counts_as_not_said():
    run = replace(BY_ID["TT-002"], overlap="FSDP2 prefetch, frobnicated gathers", other="torch.compile; ~zorp~")
    row = mapped(run)
    assert {"not understood: frobnicated gathers", "not understood: zorp"} <= set(row.notes)
    assert {"overlap (not understood)", "other (not understood)"} <= set(row.defaults)
    assert row.plain["overlap"]["gradients"] is True  # what is safe is read


def flat(plain, before=""):
    out = {}
    for key, value in plain.items():
        inner = flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
        out |= inner
    return {key: sorted(value) if key.endswith("modules") else value for key, value in out.items()
            if not key.endswith("release")}  # fmt: skip


def tried(run):
    try:
        return mapped(run)
    except Refused as refused:
        assert str(refused) and "\n" not in str(refused)
        return None


def test_without_the_table_nearly_the_same_scenarios_come_out(monkeypatch):
    """The whole table taken away, which is harder than the phrases of one family."""
    with_table = {run.id: tried(run) for run in ROWS}
    table = words.table
    monkeypatch.setattr(words, "table", lambda name: {c: {} for c in words.COLUMNS} if name == "words" else table(name))
    words._alike.cache_clear()
    own = {name: (row, tried(BY_ID[name])) for name, row in with_table.items() if row}
    words._alike.cache_clear()
    alike = [name for name, (row, other) in own.items() if other and flat(row.plain) == flat(other.plain)]
    assert len(alike) / len(own) > 0.85
    cells = [key for row, other in own.values() for key, value in flat(row.plain).items()
             if other is None or flat(other.plain).get(key) != value]  # fmt: skip
    assert len(cells) / len(own) < 0.15  # keys that differ, of a dozen and more a row


UNKNOWN = ("~~", "quantum bus 7", "=", "| ||", "(((", "no", "=False", "überlappt", "a,b;c", "NaN", "\\d+(", "1e9", "🚂")


def test_phrases_cut_mixed_and_spelled_anew_never_fail():
    """Random subsets in new orders, in capitals or not, with words that nobody knows."""
    draw = random.Random(15)
    everything = {column: list(table) for column, table in words.table("words").items()}
    for run in draw.choices(ROWS, k=600):
        changed = {}
        for column in words.COLUMNS:
            own = draw.choices(everything[column] + list(UNKNOWN), k=draw.randint(0, 3))
            text = draw.choice(("; ", ", ", " + ", " | ")).join(own)
            changed[column] = draw.choice((str.upper, str.lower, str))(text[: draw.randint(0, len(text) + 1)])
        row = tried(replace(run, **changed))
        assert row is None or isinstance(row, Mapped)


def test_modules_are_those_of_recompute():
    assert {token["module"] for token in TOKENS["recompute"] if "module" in token} == set(MODULES)


@pytest.mark.parametrize(("name", "stands", "told"), [
    ("H100-80GB SXM", "H100", False), ("NVIDIA H100 80GB HBM3", "H100", False), ("DGX-H100", "H100", False),
    ("h100", "H100", False), ("H100 NVL", "H100", True), ("GH200", "H100", True), ("B200-180GB", "B200", False),
    ("DGX GB200", "GB200", False), ("GB200 NVL72", "GB200", False), ("GB300-NVL72", "GB300", False),
    ("A100 SXM4 40GB", "A100-40GB", False), ("A100", "A100-80GB", True), ("A800", "A100-80GB", True),
    ("H800", "H800", False), ("AMD Instinct MI300X", "MI300X", False), ("MI325X", "MI300X", True),
])  # fmt: skip
def test_gpus_under_other_names(name, stands, told):
    like = machines.gpu(replace(BY_ID["TT-002"], gpu=name))
    assert (like.gpu, bool(like.note)) == (stands, told)


@pytest.mark.parametrize("name", ["TPU v5p", "H1000", "L40S", "", "V100"])
def test_a_gpu_that_nothing_stands_for_is_refused(name):
    with pytest.raises(Refused, match="unknown GPU"):
        machines.gpu(replace(BY_ID["TT-002"], gpu=name))


def test_gpus_that_fill_no_nodes_are_spread_evenly():
    counts = {gpus: machines.cluster(replace(BY_ID["TT-002"], gpus=gpus)) for gpus in (4, 12, 20, 64)}
    assert {gpus: (each["node"]["gpus"], each["nodes"]) for gpus, each in counts.items()} == {
        4: (4, 1), 12: (6, 2), 20: (5, 4), 64: (8, 8)}  # fmt: skip


def file_of(path, changes, head=None, newline="\r\n", mark="\ufeff"):
    with FILE.open(encoding="utf-8", newline="") as file:
        names, *lines = list(csv.reader(file))
    row = dict(zip(names, next(line for line in lines if line[0] == "TT-002"), strict=True))
    keep = head or names
    rows = [[str({**row, **change}.get(name, "")) for name in keep] for change in changes]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark)
        csv.writer(file, lineterminator=newline).writerows([keep, *rows, []])
    return path


def test_numbers_marks_and_ids_as_people_write_them(tmp_path):
    path = file_of(tmp_path / "runs.csv", [
        {"gpus": "1,024", "sequence_length": "8K", "step_s": "1,202.5", "chunks": "-", "expert": "n/a"},
        {"gpus": "16 GPUs", "sequence_length": "8192.0", "step_s": "830 ms", "expert_tensor": ""},
        {"id": "", "tensor": "two"},
    ])  # fmt: skip
    first, second, third = read(path)
    assert (first.gpus, first.sequence_length, first.step_s, first.chunks, first.expert) == (1024, 8192, 1202.5, 1, 1)
    assert (second.id, second.gpus, second.sequence_length, second.step_s) == ("TT-002 (2)", 16, 8192, 0.83)
    assert third.id == "line 4" and "tensor (tp): expected a whole number" in third.wrong
    assert third in list(asked([third]))  # it counts as refused, with the reason
    with pytest.raises(Refused, match="found 'two'"):
        mapped(third)


def test_columns_that_are_not_there_say_nothing(tmp_path):
    head = ["id", "model", "gpu", "gpus", "micro_batch", "sequences", "sequence_length", "step_s"]
    (run,) = read(file_of(tmp_path / "runs.csv", [{}], head))
    row = mapped(run)
    assert run.tensor == run.pipeline == 1 and row.plain["precision"] == "bf16"
    assert {"precision", "parallel.zero", "recompute", "stack.name"} <= set(row.defaults)


def test_a_family_that_nobody_described_is_of_the_software_that_its_words_name():
    run = replace(BY_ID["TT-002"], family="mine")
    assert mapped(run).plain["stack"]["name"] == "torch"
    other = replace(run, overlap="", other="Megatron-LM", data_parallel="zero1", source="")
    assert mapped(other).plain["stack"]["name"] == "megatron" and "stack.name" in mapped(other).defaults


def test_a_row_may_say_how_many_of_its_gpus_a_node_has():
    run = replace(BY_ID["TT-002"], gpus=32, other="torch.compile; 8 nodes of 4 GPUs")
    assert machines.cluster(run) == {"node": {"base": "h100x8", "gpus": 4}, "nodes": 8}
    assert not [each.left for each in words.meanings(run) if each.left]
    with pytest.raises(Refused, match="8 nodes of 4 GPUs are 32 GPUs, not 64"):
        machines.cluster(replace(run, gpus=64))


@pytest.mark.parametrize(("name", "key", "told"), [
    ("DGXC-054", "other (instead)", "Megatron Core's stand for them"),
    ("MB-072", "other (instead)", "their copies run beside compute"),
    ("MB-003", "model (instead)", "latent attention of about as many weights"),
    ("MZ-006", "model (instead)", "Mamba-2 of as many columns"),
])  # fmt: skip
def test_what_stands_for_something_else_is_told_and_counts_as_not_said(name, key, told):
    row = mapped(BY_ID[name])
    assert key in row.defaults and any(told in note for note in row.notes)
    assert row.scenario


def test_every_given_row_is_answered():
    """By its scenario: none of the 537 is refused for what it says."""
    assert [run.id for run in ROWS if not (row := tried(run)) or not row.scenario] == []


def test_a_layout_of_other_layers_is_left_to_the_rule():
    """A proxy of a preset whose stages are of the whole model, and a phrase of another model's."""
    proxy = replace(BY_ID["MB-084"], model="deepseek-v3 (16-layer proxy)")
    row = mapped(proxy)
    assert "placement" not in row.plain or row.plain["placement"] == "even"
    assert "placement (instead)" in row.defaults and row.scenario
    whole = replace(BY_ID["MB-084"], model="DeepSeekV3 (w/o MTP)")
    assert mapped(whole).plain["placement"] == "Et*4|(t*4|)*14tL" and mapped(whole).scenario
