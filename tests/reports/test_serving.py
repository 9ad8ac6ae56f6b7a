"""The page of a served load: whole without scripts, figures first, lines where their points are."""

import re

import pytest

from reports import serving

LINE = [(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)]
LOAD = [(0, 0, 1, 2, 0.5), (10**9, 1, 3, 0, 0.1)]
QUANTILES = {"p50": 0.5, "p90": 1.0, "p99": None}


def summary(**changes):
    served = {
        "requests": 1200, "span_s": 2.0, "load": "averaged", "ttft_s": QUANTILES, "tpot_s": QUANTILES,
        "end_to_end_s": QUANTILES, "inter_token_s": QUANTILES, "preemptions": 3,
        "swapped": 1, "failures": 0, "down_s": 0.0, "cache_used": {"mean": 0.0123, "most": 0.5},
        "energy": {"joules_per_million": 2.5e6},
        "waiting_s": {"instance": 1.0, "prompt": 3.0, "transfer": 0.0, "answer": 4.0},
        "operating_points": [{"sequences": 1, "tpot_s": 0.01, "output_per_s_gpu": 100.0},
                             {"sequences": 2, "tpot_s": 0.02, "output_per_s_gpu": 150.0}],
        "goodput": {"requests_per_s": 600.0, "part": 0.25},
        "tokens": {"output_per_s_decode_node": 800.0, "output_per_s_decode_gpu": 100.0,
                   "prompt_per_s_prefill_node": 50.0, "cached": 7, "prompt": 70, "usd_per_million": None},
        "pools": [{"does": "both", "instances": 2, "gpus": 8, "weight_bytes": 1e9, "cache_tokens": 4096}],
        "decode_step": {"sequences": 4, "keys": 100.0, "seconds": 0.001, "busiest_over_mean": 1.25, "kernels": [
            {"part": "attention", "name": "q<b>", "launches": 61, "seconds": 0.0015},
            {"part": "experts", "name": "down", "launches": 61, "seconds": 0.0005},
        ]},
    }  # fmt: skip
    return {"scenario": "Load <1>", "serve": served | changes}


def page(**changes):
    return serving.page(summary(**changes), LOAD, {"time to first token": LINE})


def test_all_parts_are_there_and_none_needs_a_script():
    text = page()
    assert re.findall(r'<section id="(\w+)"', text) == ["waits", "causes", "load", "points", "step", "pools"]
    assert "<script" not in text and "<1>" not in text and "q<b>" not in text
    assert (
        "500.0 ms" in text
        and "25.0\N{NO-BREAK SPACE}% of all" in text
        and "75 %" in text
        and "3 caches given up" in text
    )


def test_what_the_page_tells_in_words():
    """Dollars, joules and failures too; no quantile of nothing; a step beside its kernels, and the busiest rank."""
    nothing = dict.fromkeys(QUANTILES)
    text = page(requests=1, tpot_s=nothing, failures=2, down_s=30.0)
    assert "1 request in 2.000 s" in text and "p90 ," not in text and "no request has one" in text
    assert "energy: 2.5 MJ a million tokens" in text and "instances failed: 2 times, 30.00 s in all" in text
    assert "1.23 % is in use on average, 50 % at most." in text
    assert "1.000 ms. Its kernels one after another, in one micro-batch: 2.000 ms." in text
    assert "The busiest rank gets 1.25 times the mean rank's rows" in text.replace("&#x27;", "'")
    step = summary()["serve"]["decode_step"] | {"busiest_over_mean": None}
    assert "busiest rank" not in page(decode_step=step)


def test_costs_are_told_where_there_are_some():
    rows = dict(serving.rows(summary()))
    assert rows["energy"] == "2.5 MJ a million tokens, prompts and answers" and "a million tokens" not in rows
    failed = dict(serving.rows(summary(failures=3, down_s=30.0, energy={"joules_per_million": None})))
    assert failed["instances failed"] == "3 times, 30.00 s in all" and "energy" not in failed


def test_the_cache_in_use_is_a_mean_of_instances():
    assert serving._used(LOAD) == [(0.0, 0.5), (1.0, 0.3), (1.0, 0.3)]


def test_a_load_without_decode_steps_has_no_such_part():
    assert 'id="step"' not in page(decode_step=None)


def test_a_line_goes_through_its_points():
    """From the lower left corner to the upper right one, the middle in the middle."""
    points = re.search(r'points="([^"]*)"', serving.drawing({"a": LINE}, "time", percent=True))[1].split()
    x, y = zip(*(map(float, each.split(",")) for each in points), strict=True)
    assert (x[0], y[0]) == (serving.LEFT, serving.HEIGHT - serving.BOTTOM)
    assert (x[2], y[2]) == (serving.WIDTH - serving.RIGHT, serving.TOP)
    assert x[1] == pytest.approx((x[0] + x[2]) / 2) and y[1] == pytest.approx((y[0] + y[2]) / 2)


def test_nothing_is_drawn_of_nothing():
    assert serving.drawing({"a": []}, "time") == ""


def test_what_instances_do_is_added_up():
    assert serving._load(LOAD) == {
        "decoding": [(0.0, 1.0), (1.0, 4.0), (1.0, 4.0)], "prompts and waiting": [(0.0, 2.0), (1.0, 2.0), (1.0, 2.0)],
    }  # fmt: skip


def test_axes_end_at_round_numbers():
    assert serving._rounded(1837.0) == 2000.0 and serving._rounded(2.0) == 2.0
    assert serving._rounded(0.0324) == pytest.approx(0.04)
    assert serving._at(2e-6, "time") == "2 µs" and serving._at(0.0, "time") == "0"
