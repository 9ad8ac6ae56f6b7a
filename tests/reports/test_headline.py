"""The headline says what the run found, in units people use."""

from dataclasses import replace
from io import StringIO

import pytest

from reports import headline, page, terminal
from tests.reports import sample


def test_every_figure_of_a_full_run() -> None:
    result = sample.result()
    found = {figure.name: figure for figure in headline.figures(result)}
    assert found["Step time"].value == headline.seconds(result.summary["step_time_s"])
    assert (found["GPU-hours"].value, found["GPU-hours"].note) == ("181,234", "per trillion tokens")
    assert found["MFU, causal"][1:] == ("39.5 %", "44.7 % non-causal, of 989 TFLOP/s (dense BF16)")
    assert found["Prices"][1:] == ("61.0 %", "measured, 22.0 % interpolated, 12.0 % roofline, 5.0 % assumed")
    assert (found["TFLOP/s, causal"].value, found["TFLOP/s, causal"].note) == ("391", "442 non-causal")
    assert (found["Exposed comm."].value, found["Exposed comm."].note) == ("321.0 ms", "95.7 % is hidden")
    assert (found["Peak memory"].value, found["Peak memory"].note) == ("67 GB", "of 80 GB, position 0")


def test_ranks_of_the_cluster_and_positions_of_the_pipeline_are_told_apart() -> None:
    result = sample.differing()
    found = {figure.name: figure for figure in headline.figures(result)}
    first = result.summary["critical_ranks"][0]
    assert (found["Waits for rank"].value, found["Waits for rank"].note[:20]) == ("1024", "position 8, node 128")
    assert first["rank"] == 1024
    assert found["Pair"][1:] == ("131.0 ms", "129.0 ms to 133.0 ms by rank, balanced 128.5 ms")
    assert "Pair" not in {figure.name for figure in headline.figures(sample.result())}
    assert found["Peak memory"].note == "of 80 GB, position 0"
    drawn = replace(result, memory=tuple(replace(c, rank=128 * c.position + 5) for c in result.memory))
    assert headline.figures(drawn)[-1].note == "of 80 GB, rank 5, position 0"


def test_the_setting_is_one_line() -> None:
    result = replace(sample.chunk_times(), scenario={
        "schedule": "zb1p", "parallel": {"pipeline": 16, "expert": 64, "tensor": 1}, "precision": "fp8",
        "model": "deepseek_v3"})  # fmt: skip
    assert headline.setting(replace(result, scenario={"precision": "fp8"})) == f"scenario {'ab' * 6}"
    assert headline.setting(result) == f"schedule zb1p · pipeline 16 · expert 64 · precision fp8 · scenario {'ab' * 6}"
    for faults, said in (([{}], "1 fault · "), ([{}, {}], "2 faults · ")):
        assert headline.setting(replace(result, scenario={"faults": faults})).startswith(said)


@pytest.mark.parametrize(("part", "beyond", "named"), [
    (0.9, 0.3, True), (0.3, 0.3, True), (0.2, 0.3, False), (1.0, 1e-9, False),
])  # fmt: skip
def test_the_rank_that_the_step_waits_for(part: float, beyond: float, named: bool) -> None:
    """Named when much of what the path is longer by is its, and that is something."""
    result = replace(sample.result(), summary=dict(sample.result().summary))
    rank = {"rank": 1030, "pipeline_position": 8, "replica": 6, "node": 128, "seconds": 1.5}
    result.summary["critical_ranks"] = [rank | {"beyond_s": beyond, "part": part}]
    found = {figure.name: figure for figure in headline.figures(result)}
    assert ("Waits for rank" in found) == named
    if named:
        assert found["Waits for rank"][:3] == ("Waits for rank", "1030", "position 8, node 128, 1.500 s of the chain")
    result.summary["critical_ranks"] = []
    assert "Waits for rank" not in {figure.name for figure in headline.figures(result)}


def test_chunk_times_have_few() -> None:
    assert [f.name for f in headline.figures(sample.chunk_times())] == ["Step time", "Bubble", "Exposed comm."]


def test_large_and_small_token_counts() -> None:
    result = sample.chunk_times()
    for tokens, value, word in ((1.4e12, "1.4", "trillion"), (350e9, "350", "billion")):
        result.summary["tokens_per_day"] = tokens
        found = {f.name: f for f in headline.figures(result)}["Tokens a day"]
        assert (found.value, found.note) == (value, word)


def test_rounding_is_nothing() -> None:
    assert headline.seconds(2.4e-15) == "0 s"
    assert headline.seconds(1e-9) == "1.000 ns"
    assert headline.seconds(2.5e-6) == "2.500 µs"


def test_when_communication_has_its_sms_is_in_the_setting() -> None:
    result = sample.result()
    for hold, words in (
        ("always", "20 SMs for communication always"),
        ("while_running", "communication while it runs"),
    ):
        held = replace(result, summary=result.summary | {"comm": {"sms": 20, "hold": hold}})
        assert words in headline.setting(held)
    none = replace(result, summary=result.summary | {"comm": {"sms": 0, "hold": None}})
    assert "SMs" not in headline.setting(none) and "SMs" not in headline.setting(result)


def test_a_run_that_is_mostly_bounds_says_so_first() -> None:
    """On the terminal below the setting and above all figures, on the page in its header."""
    result = sample.result()
    bound = replace(result, summary=result.summary | {"price_warning": "mostly roofline <100 %>"})
    stream = StringIO()
    terminal.show(bound, stream)
    text = stream.getvalue()
    assert text.index("mostly roofline") < text.index("Step time")
    html = page.render(bound)
    assert html.index('<p class="alarm">mostly roofline &lt;100 %&gt;</p>') < html.index("<dl")
    assert headline.warning(result) == "" and 'class="alarm"' not in page.render(result)


def test_what_would_fit_is_a_list_below_what_does_not() -> None:
    result = sample.result()
    change = {"change": ["recompute=full"], "step_time_s": 20.0, "longer_s": 2.0, "peak_bytes": 40_000_000_000}
    advised = replace(result, summary=result.summary | {"advice": [change]})
    assert headline.advice(advised) == ["recompute=full fits: 40 GB, a step of 20.00 s, 2.000 s longer"]
    assert "<li>recompute=full fits" in page.render(advised) and 'class="advice"' not in page.render(result)
    assert headline.advice(replace(result, summary={**result.summary, "advice": []})) == ["nothing that was tried fits"]
