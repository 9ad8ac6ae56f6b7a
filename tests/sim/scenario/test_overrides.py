"""Overrides reach anything, and a bad one is reported by its own words."""

from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.document import DocumentError, parse
from sim.scenario import FOREVER, SCENARIOS, Cluster, load
from sim.scenario.overrides import apply, override
from sim.scenario.stages import PLACEMENTS

V3 = str(SCENARIOS / "v3_2048gpu.yaml")


def cluster(*overrides: str) -> Cluster:
    found = load(V3, overrides).cluster
    assert found is not None
    return found


def test_a_figure_inside_a_named_machine_is_replaced_and_becomes_an_assumption() -> None:
    node = cluster("cluster.node.nic.bandwidth=100GB/s", "cluster.node.device.hbm.bandwidth=4TB/s").node
    assert (node.nic.bandwidth, node.device.hbm.bandwidth_bytes_per_s) == (100e9, 4e12)
    for figure in (node.figures["nic.bandwidth"], node.device.figures["hbm.bandwidth"]):
        assert (figure.kind, figure.source) == ("assumed", "override")
    untouched = cluster().node
    assert node.nvlink == untouched.nvlink
    assert node.device.figures["hbm.capacity"] == untouched.device.figures["hbm.capacity"]


def test_a_cited_figure_keeps_its_own_kind_and_source() -> None:
    node = cluster("cluster.node.gpus={value: 4, kind: datasheet, source: a leaflet}").node
    assert (node.gpus, node.figures["gpus"].kind, node.figures["gpus"].source) == (4, "datasheet", "a leaflet")


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_machine_is_swapped_whole_and_later_words_win(order: tuple[int, ...]) -> None:
    words = ["cluster.node=h100x8", "cluster.node.nic.bandwidth=100 GB/s", "cluster.node.device=h200"]
    node = cluster(*(words[i] for i in order)).node
    after = order.index(0)
    assert node.name == "8 x H100"
    assert node.nic.bandwidth == (100e9 if order.index(1) > after else 50e9)
    assert node.device.name == ("H200 SXM" if order.index(2) > after else "H100 SXM")


def test_overrides_reach_every_part() -> None:
    scenario = load(V3, ["schedule=interleaved", "schedule.chunks=3", "model.layers=48", "cluster.fabric=null",
                         "precision=bf16", "routing=balanced", "detail=op", "fold=false", "batch.sequences=4096",
                         "placement=[" + ", ".join(["1"] * 48) + "]"])  # fmt: skip
    assert (scenario.schedule.name, scenario.schedule.chunks) == ("interleaved", 3)
    assert scenario.model is not None and scenario.model.layers == 48
    assert scenario.cluster is not None and scenario.cluster.fabric is None
    assert (scenario.precision, scenario.detail, scenario.fold) == ("bf16", "op", False)
    assert scenario.placement == (1,) * 48


def test_a_stack_that_is_a_word_stays_that_stack() -> None:
    """Its defaults are no reason to have DeepSeek's kernels instead."""
    llama = {
        "cluster": {"node": "h100x8", "nodes": 1}, "model": "llama3_8b", "precision": "bf16", "stack": "megatron",
        "batch": {"sequences": 8},
    }  # fmt: skip
    found = load(llama, ["stack.dispatcher=alltoall", "stack.cuda_graphs=true"]).stack
    assert (found.name, found.cuda_graphs) == ("megatron", True)


def test_a_figure_of_a_named_node_of_rollouts_can_be_changed() -> None:
    found, wrong = apply(parse("rl: {rollout: {node: h200x8}}", "rl.yaml"), ["rl.rollout.node.nic.bandwidth=100GB/s"])
    assert not wrong and found.content["rl"]["rollout"]["node"] == {"base": "h200x8", "nic": {"bandwidth": "100GB/s"}}


def test_a_fabric_figure_can_be_changed() -> None:
    fabric = cluster("cluster.fabric.radix=128").fabric
    assert fabric is not None and (fabric.radix, fabric.nodes_per_leaf, fabric.endpoints) == (128, 64, 8 * 8192)


BAD = {
    "zzz": "an override is written key=value, e.g. parallel.pipeline=8",
    "=3": "an override is written key=value, e.g. parallel.pipeline=8",
    "parallel..expert=3": "an override is written key=value, e.g. parallel.pipeline=8",
    "parallel.expert=[1": "not YAML: did not find expected ',' or ']'",
    "fold=maybe": "expected true or false; found 'maybe'",
    "parallel.expert=many": "expected a whole number; found 'many'",
    "parallel.tp=8": "unknown key 'tp', did you mean 'tensor'? legal: context, context_kind, "
    "expert, expert_tensor, no_sync, order, pipeline, reshard, sequence, shard, tensor, zero",
    "parallel.dp=8": "unknown key 'dp'; legal: context, context_kind, "
    "expert, expert_tensor, no_sync, order, pipeline, reshard, sequence, shard, tensor, zero; "
    "data parallelism is what tensor, context and pipeline leave of the GPUs",
    "parallel.exprt=8": "unknown key 'exprt', did you mean 'expert'? legal: context, context_kind, "
    "expert, expert_tensor, no_sync, order, pipeline, reshard, sequence, shard, tensor, zero",
    "paralel.expert=8": "paralel: unknown key 'paralel', did you mean 'parallel'? legal: batch, chunk_times, "
    "cluster, comm, detail, faults, fold, jitter, limits, model, name, offload, optimizer, outputs, overlap, parallel, "
    "placement, precision, pricing, recompute, routing, schedule, seed, stack, states, tables",
    "cluster.node.nic.bandwidth=0 GB/s": "expected more than 0, e.g. \"50 GB/s\"; found '0 GB/s'",
    "cluster.node.nic.bandwidth=3": 'number 3 needs a unit, e.g. "3 GB/s"',
    "cluster.node.nic.bandwith=3 GB/s": "unknown key 'bandwith',"
    " did you mean 'bandwidth'? legal: bandwidth, efficiency, latency",
    "cluster.node.nic=50 GB/s": "expected a mapping with bandwidth, efficiency, latency; found '50 GB/s'",
    "cluster.node.gpus=0": "expected a whole number, 1 or more; found 0",
    "cluster.node.device.peak_flops.int8=1 TFLOP/s": "unknown key 'int8'; legal: bf16, fp32, fp8, mxfp8, nvfp4, tf32",
    "cluster.nodes=250": "parallel.expert: 125 ranks of a position (2000 GPUs / parallel.pipeline 16) cannot be "
    "divided by parallel.expert 64; legal: 1, 5, 25, 125",
    "cluster.node.device=a100": "precision: A100 SXM 80 GB (cluster.node) has no fp8 peak; legal: bf16",
    "cluster.node.device={base: a100}": "precision: A100 SXM 80 GB (cluster.node) has no fp8 peak; legal: bf16",
    "cluster.fabric.layers=4": "a fat tree has 2 or 3 layers here; found 4",
    "cluster.fabric.radix=63": "half the ports look down, half up: expected an even number; found 63",
    "comm.sms=-2": "found -2; legal: even numbers from 2 to 130 (H800 SXM has 132 SMs), 0: copy engines",
    "cluster.node.device.sms=20": "comm.sms: found 20, the default (of an H800's 132); write fewer, or comm.sms=0; "
    "legal: even numbers from 2 to 18 (H800 SXM has 20 SMs), 0: copy engines",
    "comm.sms=many": "expected a whole number; found 'many'",
    "pricing=": "a value is missing; null stands for a key that is not written",
    "schedule= ": "a value is missing; null stands for a key that is not written",
    "placement=[]": "found []; legal: " + PLACEMENTS,
    "outputs=[]": "names nothing; [result] has figures alone; legal: result, report, trace, events, links, loads",
    "limits.memory=80": 'number 80 needs a unit, e.g. "80 GB"',
    "batch.sequences.each=3": "batch.sequences: expected a whole number; found {'each': 3}",
    "model.hiden=512": "unknown key 'hiden', did you mean 'hidden'? legal: dense_intermediate, dense_layers, "
    "expert_intermediate, experts, experts_per_token, family, groups, groups_per_token, heads, hidden, kv_rank, "
    "layers, mtp_depth, name, q_rank, qk_nope, qk_rope, route_scale, score, shared_experts, source, "
    "unmodelled, unmodelled_parameters, v_head, vocabulary",
    "model.score=tanh": "found 'tanh'; legal: sigmoid, softmax",
    "model.route_scale=0": "expected a finite number above 0; found 0",
    "model.route_scale=.inf": "expected a finite number above 0; found inf",
    "model.route_scale=.nan": "expected a finite number above 0; found nan",
    "routing.redundant_experts=16129": "found 16129; legal: multiples of 64 from 0 to 16128 (each rank of "
    "parallel.expert 64 then has all 256 experts)",
    "routing.redundant_experts=16127": "16383 slots (model.experts 256 + 16127) cannot be divided by "
    "parallel.expert 64; nearest legal: 16128",
    "faults.0.slower=2": "faults: no list is written that has item 0; write it whole: faults=[...]",
    "placement.3=4": "placement: found {'3': 4}; legal: " + PLACEMENTS,
    "cluster.node.gpus=.inf": "expected a whole number, 1 or more; found inf",
    "cluster.fabric.radix=.nan": "expected a whole number, 1 or more; found nan",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_override_says_exactly_what_is_wrong(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(V3, [text])
    assert str(caught.value).splitlines()[0] == f"<command line> {text}: {BAD[text]}"


def test_all_bad_overrides_and_the_files_own_mistakes_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(Path(V3).read_text() + "pace: slow\n")
    with pytest.raises(DocumentError) as caught:
        load(str(file), ["zzz", "fold=maybe", "cluster.node.nic.bandwidth=3", "model.layers=x"])
    starts = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    assert starts == ["<command line> zzz", "<command line> fold=maybe", f"{file}:13:1",
                      "<command line> cluster.node.nic.bandwidth=3", "<command line> model.layers=x"]  # fmt: skip


FAULTS = "faults=[{kind: gpu, at: 1, slower: 2, end: 3 s}, {kind: link, at: 9, slower: 3}]"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("faults.1.slower=4", [(1, 2.0), (9, 4.0)]),
        ("faults[0].at=5", [(5, 2.0), (9, 3.0)]),
        ("faults.1={slower: 5}", [(1, 2.0), (9, 5.0)]),
        ("faults.0.end=null", [(1, 2.0), (9, 3.0)]),
    ],
)
def test_items_of_a_list_go_by_number(text: str, found: list[tuple[int, float]]) -> None:
    faults = load(V3, [FAULTS, text]).faults
    assert [(fault.at, fault.slower) for fault in faults] == found
    assert (faults[0].end_ns == FOREVER) == ("null" in text)


def test_items_of_lists_in_lists_and_numbers_go_by_number_too() -> None:
    rows = "routing={kind: recorded, histogram: [" + str([1] * 256) + "]}"
    histogram = load(V3, [rows, "routing.histogram.0.3=7"]).routing.histogram
    assert histogram is not None and histogram[0][2:5] == (1, 7, 1)
    layers = "placement=[" + "2, " * 29 + "1, 1, 1]"
    placement = load(V3, ["schedule=dualpipev", layers, "placement.30=2", "placement.31=0"]).placement
    assert placement == (*[2] * 29, 1, 2, 0)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("faults.2.slower=4", "faults: no item '2' in the list; legal: 0 to 1"),
        ("faults.last.slower=4", "faults: no item 'last' in the list; legal: 0 to 1"),
        ("faults.-1=4", "faults: no item '-1' in the list; legal: 0 to 1"),
        ("faults.1=4", "faults[1]: expected a mapping with kind, at, slower, start, end, every, lasts, time_constant; "
         "found 4"),
        ("faults.1.slower=0", "faults[1].slower: expected a number from 1 to 1000; found 0"),
        ("faults[0].begin=1 s", "unknown key 'begin'; legal: at, end, every, kind, lasts, slower, start, "
         "time_constant"),
        ("faults.0.start=4 s", "faults[0].end: found 3.000 s; legal: later than start (4.000 s)"),
        ("faults.0.end=0 s", "faults[0].end: found 0 ns; legal: later than start (0 ns)"),
        ("faults.1.at=4000", "faults[1].at: 4000 is not there; legal: 0 to 2047 (ranks)"),
    ],
)  # fmt: skip
def test_a_bad_item_is_told_by_its_own_override(text: str, what: str, tmp_path: Path) -> None:
    file = tmp_path / "two_faults.yaml"
    file.write_text(Path(V3).read_text() + FAULTS.replace("=", ": ") + "\n")
    with pytest.raises(DocumentError) as caught:
        load(str(file), [text])
    assert str(caught.value) == f"<command line> {text}: {what}"


def test_every_rank_may_have_every_expert_once() -> None:
    assert load(V3, ["routing.redundant_experts=16128"]).routing.redundant_experts == 16128
    with pytest.raises(DocumentError, match=r"found 8; legal: 0 \(each rank of parallel.expert 1 then has"):
        load(V3, ["routing.redundant_experts=8", "parallel.expert=1"])


def test_a_key_that_is_missing_is_not_blamed_on_the_last_override(tmp_path: Path) -> None:
    file = tmp_path / "bare.yaml"
    file.write_text("schedule: zb1p\n")
    with pytest.raises(DocumentError) as caught:
        load(str(file), ["seed=3"])
    assert str(caught.value) == f"{file}:1:1: batch: missing; expected a mapping, e.g. {{sequences: 15360}}"


def test_sampled_routing_of_chunk_times_is_the_only_mistake_told() -> None:
    with pytest.raises(DocumentError) as caught:
        load(str(SCENARIOS / "zb_chunk_times.yaml"), ["routing=sampled", "seed=3"])
    what = "routing.kind: sampled routing needs a model; chunk_times have no experts"
    assert str(caught.value) == f"<command line> routing=sampled: {what}"


@settings(max_examples=50)
@given(st.lists(st.from_regex(r"\A[a-z_]{1,8}\Z"), min_size=1, max_size=4), st.integers() | st.booleans())
def test_an_override_is_its_path_and_its_value(path: list[str], value: int | bool) -> None:
    found, document = override(f"{'.'.join(path)}={str(value).lower()}")
    assert list(found) == path
    assert document.content == value and type(document.content) is type(value)
