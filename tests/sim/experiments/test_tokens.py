"""`python -m sim tokens`: figures of V3, loads as a run has them, MaxVio falling, mistakes in a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwmodels.refused import Refused
from sim import assembly, simulation
from sim.__main__ import main
from sim.experiments.tokens import LAYER_TOKENS, STEP_TOKENS, survey
from sim.layout import plan
from sim.models import deepseek
from sim.routing.bias import SPEED, max_violation
from sim.routing.gate import gate_of
from sim.routing.hosts import in_order
from sim.routing.imbalance import loads_of, popularity_of
from sim.routing.traffic import traffic
from sim.scenario import SCENARIOS, Scenario, from_mapping, load

V3, SAMPLED, LITE = (str(SCENARIOS / f"{name}.yaml") for name in ("v3_2048gpu", "v3_sampled", "v2_lite"))
TINY = """\
name: tiny
cluster: {node: h800x8, nodes: 2}
model: {base: deepseek_v2_lite, layers: 6, mtp_depth: 1, q_rank: 128, vocabulary: 1024, score: sigmoid}
parallel: {pipeline: 2, expert: 4}
schedule: 1f1b
batch: {micro_batches: 4, sequence_length: 1024}
placement: even
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return str(tmp_path / "tiny.yaml")


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["tokens", *words, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


# --- what a run has ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("routing", ["sampled", "{kind: skewed, max_vio: 1}", "{kind: sampled, redundant_experts: 4}"])
def test_loads_are_those_of_a_run(tiny: str, capsys: pytest.CaptureFixture[str], routing: str) -> None:
    scenario = load(tiny, [f"routing={routing}", "outputs=[result]"])
    found, drawn = told(capsys, tiny, f"routing={routing}"), _drawn(scenario)
    assert [layer["layer"] for layer in found["layers"]] == [1, 2, 3, 4, 5, 6]  # five, and the prediction module's
    for what, values in (("received", drawn.received), ("rows", drawn.rows)):
        tables = [layer["first_micro_batch"][what] for layer in found["layers"]]
        assert (np.array(tables) == values[:, 0]).all() and len(tables[0]) == found["ranks"] == 8
        for layer, of_layer in zip(found["layers"], values, strict=True):
            assert layer[what] == pytest.approx(
                {"smallest": of_layer.min(), "mean": of_layer.mean(), "largest": of_layer.max()}
            )
    rows = simulation.run(scenario, False).summary["expert_rows"]
    assert rows["smallest"] == min(layer["rows"]["smallest"] for layer in found["layers"])
    assert rows["largest"] == max(layer["rows"]["largest"] for layer in found["layers"])


def _drawn(scenario: Scenario) -> Any:
    laid = plan.lay_out(scenario)
    return loads_of(laid, assembly.machine(laid))


def test_rows_are_whole_tiles_and_max_vio_is_as_asked(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, tiny, "routing={kind: skewed, max_vio: 1}")
    assert all(rows % 128 == 0 for layer in found["layers"] for rows in layer["first_micro_batch"]["rows"])
    assert [layer["max_vio_popularity"] for layer in found["layers"]] == pytest.approx([1.0] * 6)
    assert all(layer["max_vio"] != layer["max_vio_popularity"] for layer in found["layers"])


@pytest.mark.parametrize("routing", ["{kind: sampled, spread: 0}", "sampled", "{kind: skewed, max_vio: 1}"])
def test_max_vio_is_that_of_tokens_counted(tiny: str, routing: str) -> None:
    """Every token of the step through the gate, 8 ranks and 4 micro-batches of 512: mean over six layers within 0.04.
    With experts alike it is all chance: 1,536 tokens an expert have 2.4 % noise, of 64 the largest is 5.8 % up."""
    scenario = load(tiny, [f"routing={routing}", "batch.sequence_length=512"])
    found, shape = survey(scenario), scenario.model
    assert shape is not None and found["step_tokens"] == 8 * 4 * 512
    mixture = deepseek.mixture(shape)
    liked, gate = popularity_of(scenario, mixture, 6), gate_of(mixture)
    counted = [
        sum(traffic(gate, liked[layer], in_order(64, 4, 8), 512, 0, layer, m, first).slots
            for m in range(4) for first in (0, 4))
        for layer in range(6)
    ]  # fmt: skip
    ours = np.mean([layer["max_vio"] for layer in found["layers"]])
    assert ours == pytest.approx(max_violation(np.array(counted)).mean(), abs=0.04)
    if "spread: 0" in routing:
        assert ours == pytest.approx(0.058, abs=0.015)
        assert all(layer["max_vio_popularity"] == 0 for layer in found["layers"])


def test_a_recorded_histogram_has_its_max_vio(tiny: str) -> None:
    """One expert of 64 with three times the tokens of the others: 3 / (66 / 64) - 1."""
    histogram = [[3000] + [1000] * 63]
    found = survey(load(tiny, [f"routing={{kind: recorded, histogram: {histogram}}}"]))
    assert [layer["max_vio_popularity"] for layer in found["layers"]] == pytest.approx([3 * 64 / 66 - 1] * 6)
    assert [layer["max_vio"] for layer in found["layers"]] == pytest.approx([3 * 64 / 66 - 1] * 6, abs=0.05)


def test_balanced_routing_has_expected_values(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, tiny)
    site = assembly.machine(plan.lay_out(load(tiny))).site
    assert found["expected"] and not told(capsys, tiny, "routing=sampled")["expected"]
    for layer in found["layers"]:
        assert set(layer["first_micro_batch"]["received"]) == {site.received} and layer["max_vio"] == 0
        assert set(layer["first_micro_batch"]["rows"]) == {site.rows} == {layer["rows"]["mean"]}
        assert layer["max_vio_popularity"] == 0


# --- how far tokens go ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def v3() -> dict[str, Any]:
    return survey(load(V3))


@pytest.mark.parametrize("how", ["priced", "drawn"])
def test_a_token_of_v3_reaches_as_many_nodes_and_ranks_as_known(v3: dict[str, Any], how: str) -> None:
    """3.96 and 7.49 (sim.validation.exchanges.SPREAD, two digits), within four standard errors of 8,192 tokens."""
    assert v3["reach"][how]["nodes"] == pytest.approx(3.96, abs=0.005 + 4 * 0.002)
    assert v3["reach"][how]["ranks"] == pytest.approx(7.49, abs=0.005 + 4 * 0.007)


def test_every_layer_of_v3_sends_tokens(v3: dict[str, Any]) -> None:
    assert len(v3["layers"]) == 59 and v3["reach"]["drawn"]["tokens"] == 59 * LAYER_TOKENS
    assert [v3["layers"][at]["layer"] for at in (0, -1)] == [3, 61]


def test_uneven_experts_receive_what_their_tokens_reach(tiny: str) -> None:
    """Two ways to the same mean: loads drawn without tokens, and tokens through the gate."""
    found = survey(load(tiny, ["routing={kind: sampled, spread: 0.3}"]))
    mean = np.mean([layer["received"]["mean"] for layer in found["layers"]])
    assert mean / found["tokens"] == pytest.approx(found["reach"]["drawn"]["ranks"], rel=0.01)
    assert found["reach"]["drawn"]["nodes"] == 1


# --- the bias ---------------------------------------------------------------------------------------------------------


def test_max_vio_falls_to_what_chance_leaves(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, tiny, "routing=sampled", "--steps", "60")
    steps, alike = found["bias"]["steps"], found["bias"]["alike"]
    assert [s["step"] for s in steps] == list(range(60))
    assert (found["bias"]["tokens"], found["bias"]["speed"]) == (STEP_TOKENS, SPEED)
    asked = np.mean([layer["max_vio_popularity"] for layer in found["layers"]])
    assert steps[0]["mean"] == pytest.approx(asked, rel=0.15)
    assert steps[-1]["mean"] < 1.5 * alike < 0.4 * steps[0]["mean"]
    means = np.array([s["mean"] for s in steps]).reshape(6, 10).mean(axis=1)
    assert (np.diff(means[:4]) < 0).all()
    assert all(s["mean"] <= s["largest"] for s in steps)


def test_without_steps_no_bias_is_run(tiny: str) -> None:
    assert "bias" not in survey(load(tiny))


# --- text and mistakes ------------------------------------------------------------------------------------------------


def test_the_tables(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", tiny, "routing=sampled", "--steps", "2"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == "" and lines[0].startswith(
        "tiny, with routing=sampled: sampled routing, 1,024 tokens a rank and micro-batch"
    )
    assert lines[2].split()[0] == "layer" and [line.split()[0] for line in lines[3:9]] == list("123456")
    assert lines[2].endswith("MaxVio  of popularity") and "as drawn in a step of 32,768 tokens" in out
    assert "a token reaches 1.00 nodes" in out and "MaxVio largest" in out
    assert [line.split()[0] for line in lines[-4:-2]] == ["0", "1"]


def test_expected_loads_have_one_max_vio(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", tiny]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[2].endswith("MaxVio") and "as expected: no tokens are drawn" in out


@pytest.mark.parametrize(("words", "line"), [
    ([SAMPLED, "comm.sms=7"], "<command line> comm.sms=7: found 7; legal: even numbers from 2 to 130"),
    (["nothing.yaml"], "nothing.yaml: cannot be read: "),
    ([str(SCENARIOS / "zb_chunk_times.yaml")], f"{SCENARIOS}/zb_chunk_times.yaml: a scenario with chunk_times has no"),
    ([LITE, "--steps", "1"], f"{LITE}: only a sigmoid gate has a bias"),
    ([SAMPLED, "--steps", "0"], "--steps expects a whole number, 1 or more; found 0"),
    ([SAMPLED, "--steps", "many"], "argument --steps: invalid int value: 'many'; see python -m sim tokens --help"),
    ([SAMPLED, "--format", "csv"], "argument --format: invalid choice: 'csv'"),
    (["--steps", "3"], "a scenario file is missing; see python -m sim tokens --help"),
    ([LITE, "model.dense_layers=27"], f"{LITE}: DeepSeek-V2-Lite has no layer with experts"),
    ([SAMPLED, "parallel.pipeline=2", "batch.sequences=2048"],
     "<command line> batch.sequences=2048: batch.sequences 2048 make 2 micro-batches a pipeline, which dualpipe"),
])  # fmt: skip
def test_wrong_input_is_a_line_and_2(words: Sequence[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m sim tokens SCENARIO.yaml")
    assert main(["tokens"]) == 2


def test_survey_of_plain_values_says_what_is_missing() -> None:
    times = {"forward": "2 ms", "backward_input": "2 ms", "weight": "1 ms"}
    mapping = {"schedule": "1f1b", "parallel": {"pipeline": 2}, "batch": {"micro_batches": 4}, "chunk_times": times}
    with pytest.raises(Refused, match="no tokens to route"):
        survey(from_mapping(mapping))
