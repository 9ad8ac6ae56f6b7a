"""What careless people write is one line that says what to write, at the place where they wrote it."""

import json
from pathlib import Path

import pytest

import sim
from hwmodels.refused import Refused
from sim.__main__ import main
from tests.cross.test_hostile import CHUNKS, TINY


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "t.yaml").write_text(TINY)
    (tmp_path / "c.yaml").write_text(CHUNKS)
    (tmp_path / "file").write_text("x")
    (tmp_path / "list.yaml").write_text("[]")
    (tmp_path / "listed.yaml").write_text(
        TINY.replace("{base: deepseek_v2_lite, layers: 4, vocabulary: 1024}", "list.yaml")
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("words", "line"), [
    (["t.yaml", "cluster.node.device.sms=1"],
     "<command line> cluster.node.device.sms=1: comm.sms: found 20, the default (of an H800's 132); write fewer, or "),
    (["t.yaml", "faults=[{kind: gpu, slower: 2}]"],
     "<command line> faults=[{kind: gpu, slower: 2}]: faults[0].at: missing; expected the number of a rank, or of"),
    (["t.yaml", "x-foo=1"], "<command line> x-foo=1: unknown key 'x-foo'; legal: batch, chunk_times, "),
    (["t.yaml", "comm.s-m-s=1"], "<command line> comm.s-m-s=1: unknown key 's-m-s', did you mean 'sms'?"),
    (["t.yaml", "cluster.node={}"], "<command line> cluster.node={}: cluster.node.device: missing; legal: a100, "),
    (["listed.yaml"], "list.yaml:1:1: model: expected the keys of a model; found []"),
    (["exchange", "t.yaml", "parallel.expert=1"],
     "t.yaml: with parallel.expert 1 nothing is exchanged, so there is nothing to sweep"),
    (["exchange", "t.yaml", "--timeline", "parallel.expert=1"],
     "t.yaml: with parallel.expert 1 nothing is exchanged, so there is nothing to look into"),
    (["exchange", "t.yaml", "model.dense_layers=4", "routing=balanced"],
     "t.yaml: DeepSeek-V2-Lite has no experts, so no exchanges to sweep"),
    (["exchange", "t.yaml", "--timeline", "--out", "file"], "file: is a file; name a folder with --out"),
])  # fmt: skip
def test_a_careless_command_is_one_line(words, line, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1


def test_a_key_that_is_no_word_is_one_line():
    with pytest.raises(Refused) as caught:
        sim.load({**sim.load("c.yaml").resolved, 1: 2})
    assert str(caught.value) == "<mapping>: [1]: a key is a word; found 1"


def test_a_table_that_is_asked_for_and_has_nothing_in_it_is_told(capsys):
    """Not where nobody asked: by default all are written that there are."""
    assert main(["c.yaml", "outputs=[links, loads]", "-q", "--out", "o"]) == 0
    loads = "outputs: no loads.csv, for loads are drawn where routing is not balanced"
    assert capsys.readouterr().err == f"c.yaml: outputs: no links.csv, for chunk_times have no links\nc.yaml: {loads}\n"
    assert sorted(json.loads(Path("o/result.json").read_text())["files"]) == ["scenario.yaml"]
    assert main(["t.yaml", "outputs=[loads]", "-q", "--out", "p"]) == 0
    assert "outputs" not in capsys.readouterr().err and Path("p/loads.csv").exists()
    assert main(["c.yaml", "outputs=null", "-q", "--out", "q"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("words", "line"), [
    (["check", "rl_v3_256g"], "rl_v3_256g: cannot be read: No such file or directory, did you mean 'rl_v3_256gpu'?"),
    (["sweep", "campain"], "campain: cannot be read: No such file or directory, did you mean 'campaign'?"),
    (["load", "serve_v3"], "serve_v3: cannot be read: No such file or directory, did you mean 'serve_v3_h800'?"),
    (["load", "rl_v3_256gpu"], "rl_v3_256gpu: is no served load: there is no key serve; run what it is with: "),
    (["tokens", "serve_v3_h800"], "serve_v3_h800: is a served load, not a training step; run it with: "),
])  # fmt: skip
def test_a_name_that_is_near_and_a_file_of_another_kind(words, line, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1


@pytest.mark.parametrize(("name", "node", "few"), [
    ("serve_v3_h800", "serve.node", []), ("campaign_v3", "cluster.node", ["campaign.seeds=3"]),
    ("rl_v3_256gpu", "cluster.node", []),
])  # fmt: skip
def test_every_kind_says_what_nothing_reads_of_its_machine(name, node, few, capsys):
    assert main(["check", name, f"{node}.device.registers.latency=5 ns", *few]) == 0
    assert f"{name}: {node}.device.registers.latency changes nothing: descriptive, " in capsys.readouterr().err
