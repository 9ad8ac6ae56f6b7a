"""What a step hangs on: the page, the same in a terminal, and that nothing of it is cut at any width."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from reports import sensitivity
from sim.result.sensitivity import MACHINE, PRICE, SCENARIO, Crossing, Move, Point, Sensitivity
from tests.reports import sample
from tests.reports.test_fits import BROWSER, looked_at

NIC = "cluster.node.nic.bandwidth"
MOVES = (
    Move("batch.sequences", SCENARIO, "15360", 17.0, Point("13824", 0.9, 15.4), Point("16896", 1.1, 18.6)),
    Move("cluster.node.device.sms", MACHINE, "132", 17.0, Point("119", 0.9, 17.68), Point("145", 1.1, 16.5)),
    Move(NIC, MACHINE, "50 GB/s", 17.0, Point("45 GB/s", 0.9, 17.17), Point("55 GB/s", 1.1, None, "no <link>")),
    Move("FP8 products (interpolated)", PRICE, "1", 17.0, Point("0.9", 0.9, 16.5), Point("1.1", 1.1, 17.5)),
)
NEXT = Crossing(NIC, 34.4e9, "34.4 GB/s", "50 GB/s", 0.688, True, False)


def found(**more: object) -> Sensitivity:
    plain = Sensitivity(
        sample.result(), (0.9, 1.1), MOVES, (NEXT,), ("cluster.node.pcie.bandwidth",), 16.0, 500.0,
        ("cluster.node.device.registers.latency",), ("comm.sms: <odd>",), 97,
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


def test_the_answer_is_a_line() -> None:
    """A batch is work, so that more of it takes longer says nothing."""
    assert sensitivity.verdict(found()) == (
        "The step of 17.00 s hangs most, its batch aside, on cluster.node.device.sms: at 119 it is 4.0 % longer. "
        "cluster.node.nic.bandwidth takes over below 34.4 GB/s (31.2 % less; now 50 GB/s)."
    )
    assert sensitivity.verdict(found(moves=(), crossings=())) == "No key moves the step."


def test_crossings_are_sentences() -> None:
    assert sensitivity.takes_over(replace(NEXT, binds=True)) == f"{NIC} binds now (50 GB/s), below 34.4 GB/s."
    above = replace(NEXT, below=False, factor=3.2)
    assert sensitivity.takes_over(above) == f"{NIC} takes over above 34.4 GB/s (3.2 times as much; now 50 GB/s)."


def test_the_page_says_it_all() -> None:
    html = sensitivity.render(found())
    for text in ("97 runs", "+0.941", "+4.00 %", "refused", "below 34.4 GB/s", "(latencies 500 times)",
                 "registers.<wbr>latency", "comm.sms: &lt;odd&gt;"):  # fmt: skip
        assert text in html, text


def test_a_terminal_has_the_same_words() -> None:
    stream = StringIO()
    sensitivity.show(found(), stream)
    text = " ".join(stream.getvalue().split())
    for words in (NIC, "elasticity", "Does nothing to the step at these values: cluster.node.device.registers.latency.",
                  "or as far as is legal: cluster.node.pcie.bandwidth.",
                  "Could not be moved: comm.sms: <odd>"):  # fmt: skip
        assert words in text
    assert max(map(len, stream.getvalue().splitlines())) <= 100


def test_many_are_folded_away() -> None:
    many = tuple(replace(MOVES[1], key=f"key{i}") for i in range(sensitivity.SHOWN + 3))
    assert "3 that move it less" in sensitivity.render(found(moves=many))
    stream = StringIO()
    sensitivity.show(found(moves=many), stream)
    assert "and 3 keys that move it less" in stream.getvalue()


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_nothing_is_cut(tmp_path: Path) -> None:
    for width, seen in looked_at(sensitivity.render(found()), tmp_path).items():
        assert seen["found"] == [], width
        assert int(str(seen["texts"])) >= 8
