"""The page of the sweep of comm.sms: valid SVG, every row told."""

from typing import Any
from xml.etree import ElementTree

from reports.studies import comm_sms, svg


def split(sms: int, step: float) -> dict[str, Any]:
    exchanges = [{"name": name, "seconds": 3e-3, "limited_by": "forward"} for name in ("dispatch(F)", "combine(F)")]
    return {"sms": sms, "step_s": step, "pair_s": 0.125, "pair_exposed_s": 2e-4, "exchanges": exchanges}


STUDY: dict[str, Any] = {
    "warps": "follow",
    "splits": {"follow": [split(8, 19.0), split(12, 17.0), split(20, 18.0)],
               "fixed": [split(8, 25.0), split(12, 18.5), split(20, 18.1)]},
    "paces": {"follow": {"2.0": [split(8, 30.0), split(12, 19.0), split(20, 18.5)]},
              "fixed": {"2.0": [split(8, 40.0), split(12, 29.0), split(20, 19.5)]}},
    "published": [
        {"name": "64 ranks", "direction": "dispatch", "unit": "GB/s", "found": 44.1, "published": 46.0,
         "wire": 38.6, "error": -0.041, "source": "a table"},
    ],
    "profile": [
        {"name": "dispatch(F)", "closed": 2651.0, "alone": 2747.0, "measured": 4312.0, "low": 4154.0, "high": 4604.0,
         "stretch": 1.57},
    ],
}  # fmt: skip


def test_the_chart_is_xml_with_a_line_for_each_pace_and_kind_of_roles() -> None:
    """A split far above the others is cut off, not drawn over the title."""
    root = ElementTree.fromstring(comm_sms.chart(STUDY))
    words = {e.text for e in root.iter() if e.tag.endswith("text")}
    assert {"warps as fitted", "warps need 2 x the time", "fixed roles"} <= words
    marks = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(marks) == 9 and min(float(mark.attrib["cy"]) for mark in marks) >= svg.TOP


def test_tables_say_the_best_and_how_far_the_others_are() -> None:
    text = comm_sms.tables(STUDY)
    assert "| 12 | 3,000 | forward | 3,000 | forward | 125.0 | 0.20 | 17.00 | +0.0 % |" in text
    assert "| 8 |" in text and "+11.8 %" in text
    assert "| roles that follow their load | 2 x | 20 | 18.50 | 18.50 |" in text
    assert "| fixed roles | 1 x | 20 | 18.10 | 18.10 |" in text
    assert "| fixed roles | 2 x | 20 | 19.50 | 19.50 |" in text
    assert text.index("over best") < text.index("fixed roles") < text.rindex("over best")
    assert "| 64 ranks | dispatch | 44.1 GB/s | 46 GB/s | -4.1 % | 38.6 | a table |" in text
    assert "4,312 (4,154 to 4,604) | 1.57 |" in text
