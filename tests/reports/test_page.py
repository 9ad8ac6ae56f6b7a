"""The page needs nothing from outside, shows what the run has, and no more."""

import json
import re
from dataclasses import replace
from functools import cache
from html import escape
from html.parser import HTMLParser

import pytest

from reports import page
from reports.headline import Figure
from reports.section import Section
from tests.reports import sample

FULL = ["timeline", "pair", "memory", "links", "loads", "waterfall", "phases", "stages", "communication", "prices",
        "scenario"]  # fmt: skip


@cache
def html(kind: str) -> str:
    return page.render({"full": sample.result, "chunks": sample.chunk_times}[kind]())


class Reader(HTMLParser):
    """Collects elements, what they refer to, and the text of scripts; complains about unclosed ones."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.events: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        for name, value in attrs:
            self.ids += [value or ""] if name == "id" else []
            self.refers += [value or ""] if name in ("src", "href", "action", "data", "srcset") else []
            self.events += [name] if name.startswith("on") else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def payload(text: str) -> dict[str, dict[str, object]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize("kind", ["full", "chunks"])
def test_nothing_comes_from_outside(kind: str) -> None:
    reader = Reader(html(kind))
    assert reader.open == []
    assert all(ref.startswith("#") or ref == "data:," for ref in reader.refers), reader.refers
    assert reader.events == []
    assert "default-src 'none'" in html(kind)
    own = "".join(page._asset(name) for name in (*page.SCRIPTS, "page.css"))
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", own)


def test_links_lead_somewhere_and_ids_are_unique() -> None:
    reader = Reader(html("full"))
    anchors = [ref[1:] for ref in reader.refers if ref.startswith("#")]
    assert anchors == FULL
    assert set(anchors) <= set(reader.ids)
    assert len(set(reader.ids)) == len(reader.ids)


def test_plotly_is_there_once() -> None:
    assert html("full").count("* plotly.js v") == 1


def test_parts_without_data_are_left_out() -> None:
    text = html("chunks")
    assert re.findall(r'<section id="(\w+)"', text) == ["timeline", "scenario"]
    assert set(payload(text)) == {"timeline", "page"}
    assert re.findall(r'<section id="(\w+)"', html("full")) == FULL


def test_every_drawn_part_has_its_box_and_its_script() -> None:
    scripts = "".join(page._asset(name) for name in page.SCRIPTS)
    for key in set(payload(html("full"))) - {"page"}:
        assert f"DRAW.{key} =" in scripts
        assert f'id="{key}-plot"' in html("full")


def test_names_cannot_break_out() -> None:
    assert "<title>sample &lt;step&gt; &amp; friends" in html("full")
    assert "<step>" not in html("full").split('<script type="application/json"')[0]


def test_an_infeasible_run_says_so_first() -> None:
    run = sample.chunk_times()
    verdict = {"feasible": False, "infeasible": ["rank 3 needs 91 GB of 80 GB"]}
    text = page.render(replace(run, summary=run.summary | verdict))
    assert '<p class="alarm" role="alert">rank 3 needs 91 GB of 80 GB</p>' in text.split("<main>")[0]
    assert 'class="alarm"' not in html("full")


def test_overrides_are_told_beside_the_name() -> None:
    """Which may still tell of the file as it was; in what a browser calls the page, too."""
    run = sample.chunk_times()
    text = page.render(replace(run, summary=run.summary | {"overrides": ["seed=<b>", "name=x"]}))
    name = escape(run.summary["scenario"])
    assert f'<h1>{name}<span class="with">, with seed=&lt;b&gt;</span></h1>' in text
    assert f"<title>{name}, with seed=&lt;b&gt; · Trainyard</title>" in text
    assert 'class="with"' not in html("chunks") and f"<title>{name} · Trainyard</title>" in html("chunks")


def test_what_changes_nothing_is_told() -> None:
    run = sample.chunk_times()
    text = page.render(replace(run, summary=run.summary | {"unfelt": ["comm.sms changes nothing: <why>"]}))
    assert '<p class="sub">comm.sms changes nothing: &lt;why&gt;</p>' in text and "changes nothing" not in html(
        "chunks"
    )


def test_the_same_result_gives_the_same_page() -> None:
    assert page.render(sample.result()) == html("full")


def test_more_figures_than_a_row_holds_stand_in_two() -> None:
    """Ranks that differ add the pair and the rank that the step waits for to the nine of a page."""

    def columns(result) -> tuple[str, ...]:
        found = re.search(r'class="figures" style="--all:(\d+);--half:(\d+)"', page.render(result))
        assert found
        return found.groups()

    assert columns(sample.result()) == ("5", "5")
    assert columns(sample.differing()) == ("6", "6")


def test_a_heading_has_every_figure_and_every_part() -> None:
    """Figures in one row on a wide page and in two, the longer one first, on a narrow one."""
    figures = [Figure("Days", "52", "median"), Figure("Cost", "5 M", "a & b"), *[Figure("Energy", "3 GWh")] * 3]
    parts = [Section("one", "Part <1>", "", ""), Section("two", "Part 2", "", "")]
    text = page.whole("Run", page.heading("<b>Run</b>", "a < b", figures, "<p>late</p>"), parts)
    tiles = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd><dd class='note'>(.*?)</dd>", text)
    assert tiles == [("Days", "52", "median"), ("Cost", "5 M", "a &amp; b"), *[("Energy", "3 GWh", "")] * 3]
    assert re.findall(r'<a href="#(\w+)">(.*?)</a>', text) == [("one", "Part &lt;1&gt;"), ("two", "Part 2")]
    assert "<b>Run</b>" in text and "a &lt; b" in text and "<p>late</p>" in text and "--all:5;--half:3" in text


def test_a_number_stays_beside_its_unit() -> None:
    header = page.heading("x", "", [Figure("Time", "1 s", "median; p90 30.08 s, 2.3 % of 4 steps")])
    assert "30.08\N{NO-BREAK SPACE}s, 2.3\N{NO-BREAK SPACE}% of 4 steps" in header
