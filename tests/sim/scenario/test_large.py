"""Quantities far too large or small: one line that names the key, exit code 2, never a traceback."""

import pytest

from hwmodels.document import DocumentError
from hwmodels.refused import Refused
from sim import simulation
from sim.__main__ import main
from sim.scenario import SCENARIOS, from_mapping, load

V3 = str(SCENARIOS / "v3_2048gpu.yaml")


@pytest.mark.parametrize(("word", "line"), [
    ("seed=99999999999999999999999999",
     "expected a whole number from 0 to 18446744073709551615; found 99999999999999999999999999"),
    ("seed=18446744073709551616",
     "expected a whole number from 0 to 18446744073709551615; found 18446744073709551616"),
    ("cluster.node.nic.bandwidth=1e-30GB/s",
     "expected 1 MB/s or more; found '1e-30GB/s'"),
    ("cluster.node.nvlink.latency=1e30 s", "expected 3600 s or less; found '1e30 s'"),
    ("cluster.node.device.clock=1 Hz", "expected 1 kHz or more; found '1 Hz'"),
    ("cluster.node.gpus=10000000", "expected a whole number from 1 to 1048576; found 10000000"),
    ("batch.sequence_length=1000000000000",
     "expected a whole number from 1 to 2147483648; found 1000000000000"),
    ("batch.sequence_length=100000000",
     "makes 100000000 tokens a micro-batch (with batch.micro_batch 1); legal: up to 16777216"),
    ("batch.sequences=1280000000", "makes 10000000 micro-batches a pipeline; legal: up to 65536"),
    ("batch.micro_batches=10000000",
     "expected a whole number from 1 to 1048576; found 10000000"),
    ("model.layers=100000", "expected a whole number from 1 to 4096; found 100000"),
    ("model.experts=65536", "found 65536; legal: up to 32768"),
    ("model.hidden=10000000000", "expected a whole number from 1 to 1048576; found 10000000000"),
    ("faults=[{kind: gpu, at: 7, slower: 2, start: 1e12 s}]", "faults[0].start: found 1e+12 s; legal: up to 30 days"),
])  # fmt: skip
def test_each_is_one_line_that_names_its_key(word, line, capsys, tmp_path):
    assert main([V3, word, "-q", "--out", str(tmp_path / "o")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and not (tmp_path / "o").exists()
    assert err.startswith(f"<command line> {word}") and err.strip().endswith(line)


def test_what_is_legal_runs():
    """The largest seed, and the smallest rate."""
    most = f"seed={2**64 - 1}"
    words = ["outputs=[result]", "detail=chunk"]
    assert simulation.run(load(V3, [most, *words])).summary["intervals_90"]
    assert simulation.run(load(V3, ["cluster.node.nic.bandwidth=1 MB/s", *words])).summary["step_time_s"] > 0
    lite = load(str(SCENARIOS / "v2_lite.yaml"), [most, "routing=sampled", "outputs=[result]"])
    assert simulation.run(lite).summary["routing"]["max_vio"]["mean"] > 0


def test_what_only_the_run_finds_is_a_line_too(capsys, tmp_path):
    """No key is to blame alone; of chunks it is their sum."""
    times = dict.fromkeys(("forward", "backward_input", "weight"), "29 days")
    long = {"schedule": "gpipe", "parallel": {"pipeline": 2}, "batch": {"micro_batches": 5000}, "chunk_times": times}
    with pytest.raises(DocumentError, match="chunk_times: take 75168000000 s over 5000 micro-batches; legal: up to 90"):
        from_mapping(long)
    with pytest.raises(DocumentError, match="legal: up to 30 days"):
        from_mapping(long | {"chunk_times": times | {"weight": "31 days"}})
    assert main([V3, "cluster.node.nic.efficiency=1e-30", "-q", "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.startswith(f"{V3}: a time or a size is too large to count")


def test_ranks_that_no_memory_holds_are_refused_before_they_are_made():
    words = ["cluster.nodes=1048576", "cluster.fabric=null", "batch.sequences=null", "batch.micro_batches=32"]
    what = "makes 268435456 micro-batches of all ranks, each rank carried by itself; legal: up to 67108864"
    for uneven in ("fold=false", "jitter=1 %"):
        with pytest.raises(DocumentError, match=what):
            load(V3, [*words, uneven])
    load(V3, words)


LARGE = [
    ["cluster.node.nvlink.efficiency=1e-30"],
    ["cluster.node.nic.efficiency=1e-7"],  # each time can be counted, their sum cannot
    ["cluster.node.nvlink.latency=3600 s"],
    ["comm.exchange=messages", "cluster.node.nic.efficiency=1e-30"],
    ["comm.exchange=closed", "cluster.node.nic.efficiency=1e-30"],
    ["cluster.node.device.hbm.bandwidth=1 MB/s", "pricing=roofline"],
    ["model.shared_experts=1048576", "model.expert_intermediate=1048576", "model.hidden=1048576"],
    ["routing=sampled", "cluster.node.nic.efficiency=1e-7"],
]


@pytest.mark.parametrize("words", LARGE, ids=lambda words: words[-1])
def test_times_that_cannot_be_counted_are_refused_where_they_are_made(words):
    with pytest.raises(Refused, match="a time or a size is too large to count"):
        simulation.run(load(V3, ["outputs=[result]", *words]))


@pytest.mark.parametrize("value", [1, 2, 12, 97, 2048, 36, 10**12])
def test_divisors_are_all_found(value):
    from hwmodels.document import indivisible

    said = indivisible("a", value, "b", 7).partition("legal: ")[2].removesuffix(", ...")
    found = [int(word) for word in said.split(", ")]
    assert all(value % each == 0 for each in found) and found == sorted(set(found))
    if value < 10**4:
        assert len(found) == min(12, sum(value % n == 0 for n in range(1, value + 1)))
