"""The table of ranks on the critical path, and which of them the timeline draws."""

import re
from dataclasses import replace

from reports import critical, page, ranks, timeline
from tests.reports import sample


def waited(replica: int):
    """Two late ranks, the first at position 8."""
    result = sample.differing()
    first = result.summary["critical_ranks"][0] | {"rank": 8 * 128 + replica, "replica": replica}
    second = first | {"rank": 1500, "pipeline_position": 11, "replica": 92, "node": 187, "beyond_s": 0.05, "part": 0.04}
    return replace(result, summary=result.summary | {"critical_ranks": [first, second]})


def test_every_named_rank_has_a_row() -> None:
    made = critical.section(waited(0))
    assert made is not None and made.body.count("<tr>") == 3
    assert re.search(r">1,500</td><td[^>]*>11</td><td[^>]*>92</td><td[^>]*>187</td>", made.body)
    assert "1.100 s" in made.body and "90.0 %" in made.body and "4.0 %" in made.body
    assert "Other ranks have 6.0 %." in made.lead
    assert "<h2>Whom the step waits for</h2>" in page.render(waited(0))


def test_all_of_it_leaves_nothing_for_others() -> None:
    result = sample.differing()
    whole = result.summary["critical_ranks"][0] | {"part": 1.0}
    made = critical.section(replace(result, summary=result.summary | {"critical_ranks": [whole]}))
    assert made is not None and "Other ranks" not in made.lead


def test_the_rank_drawn_is_marked() -> None:
    """Replica 3 is drawn."""
    for replica, word, said in ((3, "drawn", "is drawn"), (0, "\u2013", "is not drawn")):
        result = waited(replica)
        made, line = critical.section(result), timeline.section(result)
        assert made is not None and made.body.count(f">{word}</td>") == (1 if replica == 3 else 2)
        assert line is not None and "drawn is the one of replica 3, the last to finish" in line.lead
        where = f"rank {1024 + replica:,} (position 8, replica {replica})"
        assert f"The step waits most for {where}, which {said}. " in line.lead


def test_alike_ranks_have_none() -> None:
    assert critical.section(sample.result()) is None and ranks.waited(sample.result()) == ""
    none = replace(sample.differing(), summary=sample.differing().summary | {"critical_ranks": []})
    assert critical.section(none) is None and ranks.waited(none) == ""
