"""`python -m sim exchange`: its JSON, the what-ifs without SMs, mistakes in a line."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.cli import exchange as command
from sim.communication.exchange import offload
from sim.experiments import comm_sms
from sim.scenario import SCENARIOS, load

V3 = str(SCENARIOS / "v3_2048gpu.yaml")


@pytest.fixture(scope="module")
def found() -> list[offload.Offload]:
    return comm_sms.offloads(load(V3, ["outputs=[result]"]))


def test_without_sms_exchanges_are_a_little_faster(found: list[offload.Offload]) -> None:
    """At 20 SMs the NIC binds already; an even exchange gains nothing from copies in switches. What it gains is that of
    no kernel: chunks for all nodes that are full together."""
    assert [(row.name, row.sms) for row in found] == [("dispatch(F)", 20), ("combine(F)", 20)]
    for row in found:
        assert 0.92 * row.kernel_s < row.copy_engine_s < row.kernel_s
        assert row.in_network_s == row.copy_engine_s


def test_the_kernel_beside_them_is_that_of_the_sweep(found: list[offload.Offload]) -> None:
    (split,) = comm_sms.splits(load(V3, ["outputs=[result]"]), "follow", (20,))
    alone = {e.name: e for e in split.exchanges}
    for row in found:
        assert row.kernel_s == alone[row.name].seconds and row.copy_engine_s > alone[row.name].bound_s


def test_the_page_has_the_figures_of_the_command(found: list[offload.Offload]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "COMM_SMS.md").read_text(encoding="utf-8")
    part = page.split("## What-ifs without SMs")[1]
    for row in found:
        assert f"{row.copy_engine_s * 1e6:,.0f} us" in part and f"{row.kernel_s * 1e6:,.0f}" in part


def test_the_json_holds_all_parts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "PACES", ())
    monkeypatch.setattr(comm_sms, "splits", lambda scenario, *_, **__: iter(()))  # tested in test_sweep, and slow
    assert main(["exchange", V3, "comm.sms=12"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["overrides"] == ["outputs=[result]", "comm.sms=12"]
    assert list(told) == ["scenario", "overrides", "warps", "splits", "paces", "offload", "published", "profile"]
    assert told["warps"] == "follow" and list(told["splits"]) == list(told["paces"]) == ["follow", "fixed"]
    assert [set(row) for row in told["offload"]] == [set(offload.Offload._fields)] * 2
    assert told["offload"][0]["sms"] == 12


@pytest.mark.parametrize(("words", "line"), [
    ([V3, "comm.sms=7"], "<command line> comm.sms=7: found 7; legal: even numbers from 2 to 130"),
    (["nothing.yaml"], "nothing.yaml: cannot be read: "),
    ([str(SCENARIOS / "zb_chunk_times.yaml")], f"{SCENARIOS}/zb_chunk_times.yaml: a scenario with chunk_times has no"),
    ([V3, "--format"], "unrecognized arguments: --format; see python -m sim exchange --help"),
])  # fmt: skip
def test_wrong_input_is_a_line_and_2(words: Sequence[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchange", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchange", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m sim exchange SCENARIO.yaml")
    assert main(["exchange"]) == 2


def test_the_timeline_is_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every exchange of a layer, with lanes of all roles; other files of the folder stay."""
    (tmp_path / "mine.txt").write_text("kept")
    assert main(["exchange", V3, "batch.sequence_length=512", "--timeline", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for name in ("dispatch(F)", "combine(F)", "dispatch(B)", "combine(B)"):
        assert f"{name}: " in text
    assert all(text.count(f"\n  {role:8} ") >= 8 for role in ("send", "forward", "receive"))
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "exchange.html"}


@pytest.mark.parametrize(("words", "line"), [
    (["comm.sms=0", "--timeline"], "copy engines have no roles to look into; found comm.sms 0, give it 2 or more"),
    (["--out", "x"], "--out is where the page of --timeline goes"),
])  # fmt: skip
def test_a_timeline_that_cannot_be_is_refused(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchange", V3, *words]) == 2
    assert line in capsys.readouterr().err


def test_a_foreign_page_is_refused_and_one_of_ours_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["exchange", V3, "batch.sequence_length=512", "--timeline", "--out", str(tmp_path)]
    page = tmp_path / "exchange.html"
    page.write_text("mine")
    assert main(words) == 2
    assert "is no file of ours and would be replaced" in capsys.readouterr().err and page.read_text() == "mine"
    page.unlink()
    assert main(words) == main(words) == 0
