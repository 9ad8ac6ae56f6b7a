"""The tornado: largest first, both directions, and what the interval holds."""

import dataclasses
import re

from reports import certainty
from reports.certainty import section
from tests.reports import sample

CAUSES = [
    {"cause": "BF16 <products>", "spread": 0.25, "step_s": 1.02, "cheaper_s": -0.44},
    {"cause": "messages", "spread": 0.1, "step_s": 0.004, "cheaper_s": -0.004},
]


def told(causes=CAUSES, **more):
    full = sample.result()
    summary = full.summary | {"tornado": causes, "intervals_90": {"step_time_s": [17.0, 20.0]}} | more
    return section(dataclasses.replace(full, summary=summary))


def test_both_directions_of_a_cause():
    """Another path may take over: dearer prices move the step by more than cheaper ones."""
    cells = re.findall(r"<td[^>]*>(.*?)</td>", told().body)
    assert cells[:4] == ["BF16 &lt;products&gt;", "± 25.0 %", "− 440.0 ms", "+ 1.020 s"]
    assert "17.00 s to 20.00 s" in told().lead


def test_small_causes_are_folded_away():
    many = [CAUSES[0]] * (certainty.SHOWN + 3)
    body = told(many).body
    assert "3 smaller ones" in body and body.count("<tr>") == certainty.SHOWN + 3 + 2
    assert "<details>" not in told().body


def test_it_says_what_is_left_out_and_what_is_not():
    parts = {"prices": [17.2, 18.3], "left_out": [16.8, 19.8], "groups": 85, "class": {"kind": "mixture"}, "mfu": 0.38}
    parts["unsaid"] = ["recompute"]
    lead = told(interval_parts=parts).lead
    assert "it would be 17.20 s to 18.30 s; what the model leaves out makes it 16.80 s to 19.80 s" in lead
    assert "85 measured layouts were off (mixture, MFU 38.0 %), and wider because the scenario does not say" in lead
    assert "does not say recompute. Those errors hold some of what prices are uncertain by" in lead
    assert "uneven loads and slow nodes" in told().lead
    uneven = told(critical_ranks=[{"rank": 1000, "seconds": 12.4}]).lead
    assert "Runs are even" not in uneven and "rank 1000: 12.40 s" in uneven


def test_a_run_without_prices_has_none():
    assert section(sample.chunk_times()) is None
