"""The table of communication: bounds beside times, and each kind of bytes in its column."""

import re

from reports import communication
from reports.ranks import HEALTHY
from tests.reports import sample


def cells(body: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", body)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows if "<td" in row]


def test_times_stand_beside_bounds_and_bytes_apart() -> None:
    made = communication.section(sample.result())
    assert made is not None
    exchange, message = cells(made.body)
    assert exchange == ["dispatch(F)", "a MoE layer", "2.800 ms", "12.0 %", "2.900 ms", "4.300 ms", "2.500 ms",
                        "120 MB", "105 MB", "200 MB", "&lt;receive&gt;"]  # fmt: skip
    assert message[3:6] == ["0.0 %", "–", "–"] and message[-2:] == [
        "–",
        "network",
    ]  # no NVLink; beside compute not known
    assert len(exchange) == len(communication.HEAD)


def test_loads_that_stand_for_no_rank_say_so() -> None:
    made, alike = (communication.section(result) for result in (sample.differing(), sample.result()))
    assert made is not None and HEALTHY in made.lead
    assert alike is not None and HEALTHY not in alike.lead


def test_no_communication_no_section() -> None:
    assert communication.section(sample.chunk_times()) is None
