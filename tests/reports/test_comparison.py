"""Two runs beside each other: what the page says, and that nothing of it is cut at any width."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from reports import comparison
from reports.amounts import amount
from sim.result.comparison import Cause, Change, Comparison, Key
from tests.reports import sample
from tests.reports.test_fits import BROWSER, looked_at
from tests.reports.test_page import Reader

STEP = Change("step_time_s", "Step time", "seconds", 17.5, 18.5, (0.25, 1.5), (1.01, 1.09))
MEMORY = Change("worst_memory.peak_bytes", "Peak memory", "bytes", 64e9, 70e9)
SHARE = Change("bubble_fraction", "Bubble", "share", 0.072, 0.06)


def both(step: Change = STEP, **more: object) -> Comparison:
    causes = (
        Cause("compute", "product efficiency", "tiles <and> all", 6_000_000_000, 5_500_000_000),
        Cause("exchange", "exposed communication", "it waits", 1_000_000_000, 2_500_000_000),
        Cause("host", "launch gaps", "between", 10, 10),
    )
    plain = Comparison(
        sample.result(), replace(sample.result()), (step, MEMORY, SHARE), causes,
        {"weights": (3_000_000_000, 3_000_000_000), "activations": (40_000_000_000, 90_000_000_000)},
        (Key("comm.sms", 20, None), Key("model", "<a>", "b" * 100)),
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("step", "words"), [
    (STEP, "B takes 1.000 s (5.7 %) more than A; in nine cases of ten the difference is +250.0 ms to +1.500 s, which is"
           " clear."),
    (replace(STEP, b=17.0, interval=(-1.0, 0.5)), "B takes 500.0 ms (2.9 %) less than A; in nine cases of ten the "
     "difference is −1.000 s to +500.0 ms, so the sign is not sure."),
    (replace(STEP, interval=None), "B takes 1.000 s (5.7 %) more than A."),
    (replace(STEP, b=17.5), "A and B take the same time; other figures differ."),
])  # fmt: skip
def test_the_answer_is_a_line(step: Change, words: str) -> None:
    assert comparison.verdict(both(step)) == words


def test_the_same_is_said_to_be_the_same() -> None:
    assert comparison.verdict(both(changes=(replace(STEP, b=17.5),))).startswith("A and B are the same in every")


def test_what_rounds_to_nothing_has_no_sign_and_large_figures_no_exponent() -> None:
    hours = comparison.Unit(3600.0, "h")
    assert comparison._points(-0.0001) == "0.0" and comparison._points(-0.01) == "−1.0"
    assert hours.signed(1e9) == "0" and hours.signed(-3.6e12) == "−1.00 h" and comparison.Unit(1, "").signed(1e9) != "0"
    assert amount(203_200.0, "dollars") == "203,200 USD" and amount(12.5, "dollars") == "12.5 USD"


def test_the_page_says_it_all_and_needs_nothing() -> None:
    html = comparison.render(both(notes=("B is infeasible: <it> does not fit",)))
    for text in ("+5.7 %", "+1.0 to +9.0 %", "−1.2 points", "+6 GB",
                 "tiles &lt;and&gt; all", "<code>comm.sms</code>",
                 "&lt;a&gt;", "B is infeasible: &lt;it&gt;",
                 "exchange +1.500 s", "A, position 15", "B, position 0"):  # fmt: skip
        assert text in html or text.replace("&lt;", "\\u003c").replace("&gt;", ">") in html, text
    reader = Reader(html)
    assert not [each for each in reader.refers if not each.startswith(("#", "data:"))]


def test_a_terminal_has_the_same_words() -> None:
    stream = StringIO()
    comparison.show(both(), stream)
    text = stream.getvalue()
    for words in ("A: ", "Step time", "+1.0 to +9.0 %", "exposed communication", "activations", "comm.sms"):
        assert words in text
    assert "launch gaps" not in text and max(map(len, text.splitlines())) <= 100


def test_the_parts_add_up_in_the_picture() -> None:
    bars = comparison._causes(both()).data["bars"]  # type: ignore[union-attr, index]
    assert [bar["length"] for bar in bars] == [-0.5, 1.5, 1.0] and bars[1]["base"] == -0.5 and bars[2]["base"] == 0


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_nothing_is_cut(tmp_path: Path) -> None:
    for width, seen in looked_at(comparison.render(both()), tmp_path).items():
        assert seen["found"] == [], width
        assert int(str(seen["texts"])) > 40
