"""The tables of the terminal hold the figures, fit 80 columns, and stay plain in a pipe."""

import io
from dataclasses import replace

import pytest

from reports import headline, terminal
from reports.headline import seconds
from sim.result import StageLoad
from tests.reports import sample


def shown(result: object) -> str:
    stream = io.StringIO()
    terminal.show(result, stream)  # type: ignore[arg-type]
    return stream.getvalue()


def test_every_headline_figure_is_printed() -> None:
    result = sample.result()
    text = shown(result)
    for figure in headline.figures(result):
        line = next(line for line in text.splitlines() if line.startswith(figure.name))
        assert figure.value in line
        assert figure.note in " ".join(text.split())  # a long one goes on in the next line


def test_phases_prices_and_no_stages_when_even() -> None:
    result = sample.result()
    text = shown(result)
    overlapped = result.summary["phases_per_rank"]["overlapped"]
    line = next(line for line in text.splitlines() if line.lstrip().startswith("overlapped"))
    assert seconds(sum(overlapped) / len(overlapped)) in line
    assert f"{seconds(min(overlapped))} to {seconds(max(overlapped))}" in line
    assert "interpolated" in text and "22.0 %" in text
    assert "contents" not in text


def test_uneven_stages_are_listed() -> None:
    stages = (StageLoad(0, 0, "embedding, dense 0-2", 3, 1, 0.1, 0.1, 0.1), StageLoad(1, 1, "MoE", 4, 1, 0.1, 0.2, 0.1))
    text = shown(replace(sample.result(), stages=stages))
    assert "embedding, dense 0-2" in text and "400.0 ms" in text
    alike = (*stages, StageLoad(2, 2, "MoE 9", 4, 1, 0.1, 0.2, 0.1))
    assert "1 to 2   MoE to MoE 9" in shown(replace(sample.result(), stages=alike))


def test_the_overrides_are_told_beside_the_name_and_the_machine_below() -> None:
    """But for what decides no figure."""
    result = sample.result()
    words = ["cluster.nodes=256", "outputs=[result]", "faults=[red]"]
    changed = replace(result, summary=result.summary | {"overrides": words})
    name, *below = shown(changed).splitlines()
    assert below[0].startswith("256 nodes of None") and "schedule dualpipe" in below[0]
    assert name == f"{result.summary['scenario']}, with cluster.nodes=256 faults=[red]"
    assert "with " not in shown(result)


def test_a_range_over_positions_says_that_ranks_may_lie_outside() -> None:
    note = "A position is the mean of its 128 ranks; a rank's own can lie outside."
    assert "lowest to highest position" in shown(sample.differing()) and note in shown(sample.differing())
    assert note not in shown(sample.result())


def test_a_reader_that_has_gone_is_the_callers_to_tell() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):  # rich alone would end the process with 1, "does not fit"
        terminal.show(sample.result(), Gone())


def test_a_pipe_gets_plain_text_of_80_columns() -> None:
    for result in (sample.result(), sample.differing(), sample.chunk_times()):
        text = shown(result)
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= terminal.PLAIN_WIDTH


def test_brackets_are_text() -> None:
    result = sample.chunk_times()
    result.summary["scenario"] = "a [red] name"
    assert "a [red] name" in shown(result)


def test_mean_phases_are_enough() -> None:
    text = shown(sample.chunk_times())
    assert "optimizer" in text and "bubble" in text
