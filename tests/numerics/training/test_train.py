"""`train` stops and goes on as if it had not stopped; runs behind the turn begin from another's weights."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from numerics.training import study, train  # noqa: E402
from numerics.training.arms import MAIN, ORDERS, SEEDS, SIDE, behind_plan  # noqa: E402
from numerics.training.run import Run  # noqa: E402
from numerics.training.schedules import Ramp  # noqa: E402
from tests.numerics.training import small  # noqa: E402

SETTINGS = replace(small.SETTINGS, steps=6, evaluate=3, micro_batches=Ramp(1, 1))


def test_a_run_goes_on_from_its_folder(tmp_path, monkeypatch):
    whole = train.main(SETTINGS, small.corpus(), tmp_path / "whole", save=2)
    save, stopped = Run.save, []

    def once(run, path):
        save(run, path)
        if run.done == 4 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", once)
    with pytest.raises(KeyboardInterrupt):
        train.main(SETTINGS, small.corpus(), tmp_path / "parts", save=2)
    parts = train.main(SETTINGS, small.corpus(), tmp_path / "parts", save=2)
    assert torch.equal(whole.flat.weights, parts.flat.weights) and torch.equal(whole.history, parts.history)
    kept = json.loads((tmp_path / "whole" / train.HISTORY).read_text())
    assert [row["step"] for row in kept["held"]] == [3, 6] and len(kept["history"]) == 6
    assert json.loads((tmp_path / "parts" / train.HISTORY).read_text()) == kept


def test_a_run_is_evaluated_when_it_says_however_often_it_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "REPORTS", 1)
    train.main(SETTINGS, small.corpus(), tmp_path, save=2)
    assert [row["step"] for row in json.loads((tmp_path / train.HISTORY).read_text())["held"]] == [3, 6]


def test_runs_behind_the_turn_begin_where_another_ended(tmp_path, monkeypatch):
    """The main arms in one order, and one side arm; the plan itself has all."""
    main, side = behind_plan()[: len(MAIN)], behind_plan()[-1:]
    assert [(arm, seed) for arm, seed in behind_plan() if arm in SIDE] == [(arm, ORDERS) for arm in SIDE]
    assert len(behind_plan()) == SEEDS * len(MAIN) + len(SIDE)
    monkeypatch.setattr(study, "behind_plan", lambda: main + side)
    file = tmp_path / "rows.jsonl"
    settings = replace(SETTINGS, evaluate=0)
    assert study.main(settings, settings, small.corpus(), file, 1e9, lambda text: None, study.BEHIND)
    heading, *rows = study.read(file)
    assert heading["kind"] == "about behind"
    assert [(row["kind"], row["arm"], row["seed"]) for row in rows] == [
        ("behind", arm.name, seed) for arm, seed in main + side
    ]
    start = torch.load(tmp_path / study.START, weights_only=True)["tensors"]["weights"]
    one = Run(settings, small.corpus(), start=tmp_path / study.START)
    assert torch.equal(one.flat.weights, start) and one.done == 0
    fresh = Run(settings, small.corpus())
    assert rows[0]["losses"][0] < float(fresh.evaluate()["loss"])
