"""The largest load within objectives."""

import pytest

from hwmodels.refused import Refused
from sim.__main__ import main
from sim.serving import limit
from tests.sim.serving.loads import closed, document, loaded, poisson

CONTENT = document(poisson(300, 5.0, 1000, 50), objectives={"ttft": "400 ms", "tpot": "15 ms"})


def test_a_little_more_is_too_much() -> None:
    """The last point keeps the objectives, its neighbours above do not, and nothing above a failing load does."""
    serve = loaded(CONTENT)
    *tried, best = limit.search(serve)
    assert best.part >= limit.KEPT and best in tried
    above = [each for each in tried if each.rate > best.rate]
    assert above and min(each.rate for each in above) < best.rate * 1.02
    assert all(each.part < limit.KEPT for each in above)


def test_the_requests_of_another_rate_come_for_as_long() -> None:
    serve = loaded(CONTENT)
    assert limit.at_rate(serve, 10.0).requests.number == 600 and limit.at_rate(serve, 1e9).requests.number == limit.MOST


def test_objectives_that_no_load_keeps_or_every_load_are_a_line() -> None:
    """Requests that are each alone need longer; and all at once do not."""
    short = loaded(CONTENT, "serve.objectives.ttft=1 ms", "serve.requests.count=40")
    alone = r"serve.objectives: 0.0% of requests keep both where each is alone \(TTFT p99 .* ms, .*\); 99% must"
    with pytest.raises(Refused, match=alone):
        list(limit.search(short))
    with pytest.raises(Refused, match=r"100.0% of requests keep both even at a load of .*; look for more requests"):
        list(limit.search(loaded(CONTENT, "serve.objectives={ttft: 1 h, tpot: 1 h}", "serve.requests.count=1")))


def test_what_has_no_rate_is_refused() -> None:
    with pytest.raises(Refused, match="a closed loop has no rate"):
        limit.at_rate(loaded(document(closed(4, 2, 10, 10))), 1.0)


def test_the_command(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    import json

    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(CONTENT))
    assert main(["load", str(path), "serve.requests.count=60"]) == 0
    out = capsys.readouterr().out
    rates = [line.split()[0] for line in out.splitlines()[1:-1]]
    assert "most within objectives" in out and " requests/s (" in out and len(set(rates)) == len(rates)
    (tmp_path / "trace.csv").write_text("arrival_s,prompt,output\n0,1000,9\n1,1000,9\n2,1000,9\n")
    trace = "serve.requests={arrivals: trace, file: trace.csv, rate: null, prompt: null, output: null, count: 0}"
    assert main(["load", str(path), trace, "serve.objectives.ttft=60 ms"]) == 0
    assert "times as fast as the trace" in capsys.readouterr().out
    assert main(["load"]) == 2 and "is missing" in capsys.readouterr().err


def test_a_sweep_of_served_loads(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    """A point is what a run of it answers; the table has its own columns."""
    import json

    from sim.experiments.record import record
    from sim.serving import files

    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(CONTENT))
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("scenario: small.yaml\naxes: {serve.requests.rate: [1, 200], serve.pools.0.chunk: [0]}\n")
    assert main(["sweep", str(sweep), "--out", str(tmp_path / "runs.jsonl")]) == 2  # a chunk of 0 tokens is refused
    sweep.write_text("scenario: small.yaml\naxes: {serve.requests.rate: [1, 200]}\n")
    assert main(["sweep", str(sweep), "--out", str(tmp_path / "runs.jsonl")]) == 0
    assert "TTFT p99 (s)" in capsys.readouterr().out
    one = record(files.load(path, ["serve.requests.rate=200"]))
    rows = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert one["summary"]["serve"]["ttft_s"] in [row["summary"]["serve"]["ttft_s"] for row in rows if "summary" in row]
