"""A trace beside a simulated step: kernels joined by kind and sides; what only one of them has is told."""

import json
from pathlib import Path

import pytest
import yaml

from hwmodels.op import Attention, Gemm, Memory, Send
from hwmodels.refused import Refused
from sim.__main__ import main
from sim.scenario import from_mapping, load
from sim.validation.torch_steps import scenario
from sim.validation.traced import joined, name

TRACE = Path(__file__).parents[2] / "fixtures" / "traces" / "dense.json.gz"
DENSE = {
    "name": "dense", "hidden": 4096, "ffn": 14336, "heads": 32, "kv": 8, "head": 128, "vocab": 128256, "layers": 2,
    "seq": 4096, "mbs": 1,
}  # fmt: skip
"""The step of which TRACE is (tests/fixtures/traces/README.md)."""


def test_kernels_are_joined_by_kind_and_sides() -> None:
    assert name(Gemm(1, 2, 3, "dgrad", "bf16")) == ("product, dgrad", "1 x 2 x 3 bf16")
    assert name(Attention("forward", 1, 32, 4096, 128, 128)) == ("attention, forward", "1 x 32 x 4096 x 128")
    assert name(Memory("copy", 4, 2.0, 2.0)) == name(Memory("copy", 2, 4.0, 4.0)) == ("memory, copy", "16 B")
    assert name(Memory("adam_unseen", 1, 8.0, 6.0)) == name(Memory("adam", 1, 8.0, 6.0))
    assert name(Send(1.0, True, False)) is None


def test_each_side_by_hand(tmp_path: Path) -> None:
    """Two launches of a product in the trace, and one that the step does not have."""
    product = {"m": 4096, "n": 4096, "k": 4096, "role": "fprop", "precision": "bf16"}
    rows = [{"op": "gemm", **product, "samples": 2, "us": 90.0},
            {"op": "memory", "kind": "sort", "rows": 7, "read": 1, "write": 1, "samples": 3, "us": 5.0}]  # fmt: skip
    (tmp_path / "gemm.json").write_text(json.dumps({"rows": rows}))
    found = {(row.kind, row.shape): row for row in joined(from_mapping(scenario(DENSE)), tmp_path)}
    both = found["product, fprop", "4096 x 4096 x 4096 bf16"]
    assert (both.measured, both.measured_s) == (2, pytest.approx(180e-6)) and both.simulated == 4
    alone = found["memory, sort", "14 B"]
    assert (alone.simulated, alone.measured, alone.measured_s) == (0, 3, pytest.approx(15e-6))
    sizes = [abs(row.beyond_s) for row in found.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_a_trace_of_an_h200_is_joined_for_the_most_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the time of its kernels, 95 % meet a simulated one of their kind and sides, and those are 10 % off at most."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(TRACE.parents[3]))
    Path("dense.yaml").write_text(yaml.safe_dump(scenario(DENSE)))
    assert main(["compare", "dense.yaml", str(TRACE), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    both = [row for row in rows if row["simulated"] and row["measured"]]
    theirs, ours = (sum(row[key] for row in both) for key in ("measured_s", "simulated_s"))
    assert theirs > 0.95 * sum(row["measured_s"] for row in rows) and ours == pytest.approx(theirs, rel=0.1)
    counts = {row["shape"]: (row["simulated"], row["measured"]) for row in both if row["kind"] == "product, wgrad"}
    assert counts and all(a == b for a, b in counts.values())
    assert main(["compare", "dense.yaml", str(TRACE)]) == 0
    assert "Kernels that both have take" in capsys.readouterr().out
    page = Path("out/compare/trace.html").read_text()
    assert "trace, stream 7" in page and "simulated, compute" in page and "Where they part" in page


@pytest.mark.parametrize(("content", "line"), [(None, "no.json: cannot be read: No such file"), ("{}", "no.json: ")])
def test_what_is_no_trace_is_one_line(
    content: str | None, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(TRACE.parents[3]))
    if content:
        Path("no.json").write_text(content)
    assert main(["compare", "llama3_8b_one_gpu", "no.json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1 and "Traceback" not in err


def test_chunk_times_have_no_kernels(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="chunk_times have no kernels"):
        joined(load("dualpipe_8x20"), tmp_path)
