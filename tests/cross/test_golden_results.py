"""What is only reported (waterfall, memory by part, price shares, stages) is held to four digits in five scenarios.

Rewritten on purpose, as predictions are: `python tests/cross/test_golden_results.py`.
"""

import json
from pathlib import Path
from unittest.mock import patch

import pytest

import sim
from sim.analysis import left_out
from sim.scenario import load

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SCENARIOS = {
    "v3": ("v3_2048gpu", "outputs=[result,links]"),
    "v3_zb1p": ("v3_2048gpu", "schedule=zb1p", "outputs=[result]"),
    "v3_sampled": ("v3_sampled", "outputs=[result]"),
    "v2_lite": ("v2_lite", "outputs=[result]"),
    "chunk_times": ("zb_chunk_times", "outputs=[result]"),
}
UNTOLD = ("scenario_hash", "events", "wall_seconds", "unfelt", "binds")
"""What names a run, counts the simulator's own work or is told of the words of a scenario, and what says the
waterfall again in a line."""
RENAMED = {"position": "rank"}
"""Field of a stage -> its name in the files, which are older."""


def digest(result):
    """Everything that a result tells, as JSON holds it, numbers to four digits."""
    told = {key: value for key, value in result.summary.items() if key not in UNTOLD}
    told |= {"waterfall": {bar.name: bar.seconds for bar in result.waterfall}, "feasible": result.feasible}
    if "communication" in told:
        told["communication"] = [unshared(row) for row in told["communication"]]
    told["stages"] = [{RENAMED.get(key, key): value for key, value in vars(stage).items()} for stage in result.stages]
    return json.loads(json.dumps(told), parse_float=lambda text: float(f"{float(text):.4g}"), parse_int=four_digits)


def unshared(row):
    """A row of communication as the files, which are older, have it: what an exchange takes on NICs that it shares with
    messages was called alone."""
    alone = {"alone_s": row.get("shared_s", row["alone_s"])}
    return {key: value for key, value in (row | alone).items() if key != "shared_s"}


def four_digits(text):
    return int(float(f"{int(text):.4g}"))


def run(name):
    """Intervals by prices alone: what was learned of measured runs is in a file of its own."""
    file, *overrides = SCENARIOS[name]
    with patch.object(left_out, "widened", lambda intervals, *_: {"intervals_90": intervals}):
        return digest(sim.run(load(str(ROOT / "scenarios" / f"{file}.yaml"), overrides)))


def text(found):
    return json.dumps(found, indent=1) + "\n"


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_that_is_told_has_moved(name):
    assert run(name) == json.loads((GOLDEN / f"result_{name}.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name in SCENARIOS:
        (GOLDEN / f"result_{name}.json").write_text(text(run(name)), encoding="utf-8")
