"""The table of attention by kernel: made again from what was timed, byte for byte."""

import json
from pathlib import Path

import pytest

from hwmodels.attention import FILE, KERNELS
from hwmodels.refused import Refused
from numerics.tables import attentions, calibrate

TIMED = Path(attentions.__file__).parents[1] / "card" / "timed"


def test_the_committed_table_comes_of_the_committed_times(tmp_path):
    calibrate.write(attentions.compared(TIMED), tmp_path)
    assert (tmp_path / "attention.json").read_bytes() == FILE.read_bytes()
    assert {row["kernel"] for row in json.loads(FILE.read_text())["rows"]} == {*KERNELS} - {"cudnn"}


def test_a_ratio_is_the_median_over_calls_that_are_long_enough():
    def row(heads, flash, cudnn):
        us = {"flash2": flash, "cudnn": cudnn}
        return {"width": 64, "heads": heads, "sequence": 1024, "forward": us, "backward": us}

    made = list(attentions.flash_2([row(8, 900.0, 100.0), row(32, 1500.0, 1000.0), row(64, 3200.0, 2000.0)]))
    assert [(each["direction"], each["ratio"]) for each in made] == [("backward", 1.55), ("forward", 1.55)]


def test_a_folder_without_times_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"has no attentions\.json"):
        attentions.compared(tmp_path)
