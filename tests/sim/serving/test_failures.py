"""Nodes that fail: what is lost, who does it then, and that all of it is done."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.serving import system
from sim.serving.answers import answers
from sim.serving.deployment import deployed
from tests.sim.serving.loads import document, loaded, poisson

LOAD = poisson(400, 8.0, {"most": 3000, "least_part": 0.01}, {"most": 400, "least_part": 0.01})
OFTEN = {"mtbf": "20 s", "repair": "3 s"}
BOTH, APART = ({"instances": 3},), ({"does": "prefill", "instances": 2}, {"does": "decode", "instances": 2})


@pytest.mark.parametrize("pools", [BOTH, APART, ({},)], ids=["together", "apart", "alone"])
@pytest.mark.parametrize("router", ["round_robin", "least_loaded"])
def test_all_requests_end_whatever_fails(pools: tuple[dict[str, object], ...], router: str) -> None:
    """Tokens after the first are made once each, for what a request has made it keeps; its cache is computed again."""
    serve = loaded(document(LOAD, *pools, failures=OFTEN, router=router))
    asked, log = system.run(serve)
    assert log.failures > 2 and log.again.sum() > 0
    assert (log.arrival <= log.begun).all() and (log.begun < log.first).all() and (log.first <= log.last).all()
    assert sum(len(steps) * count for steps, count in log.steps) == int((asked.output - 1).sum())
    told = answers(serve, asked, log)
    assert told["failures"] == log.failures and told["down_s"] == pytest.approx(3.0 * log.failures)


def test_failures_cost_time_and_are_the_same_again() -> None:
    calm, rough, again = (
        system.run(loaded(document(LOAD, *BOTH, **more)))[1]
        for more in ({}, {"failures": OFTEN}, {"failures": OFTEN})
    )  # fmt: skip
    assert (rough.last == again.last).all() and calm.failures == 0
    assert (rough.last - rough.arrival).mean() > (calm.last - calm.arrival).mean()


def test_one_instance_that_fails_is_waited_for() -> None:
    """A request that comes while nobody is there begins when the instance is back."""
    serve = loaded(document(poisson(40, 1.0, 500, 20), {}, failures={"mtbf": "10 s", "repair": "8 s"}))
    _, log = system.run(serve)
    waited = (log.begun - log.arrival) / 1e9
    assert log.failures and 4 < waited.max() < 8 * log.failures + 1


def test_instances_of_more_nodes_fail_more_often() -> None:
    """By 16 GPUs on two nodes twice as often as by 8 on one, on average over seeds."""
    counts = []
    for gpus in (8, 16):
        pool = {"expert": gpus}
        content = document(
            poisson(40, 0.2, 100, 5), pool, model="deepseek_v3", node="h200x8", precision="fp8",
            failures={"mtbf": "40 s", "repair": "1 s"},
        )  # fmt: skip
        counts.append(sum(system.run(loaded(content, seed=seed))[1].failures for seed in range(6)))
    assert 1.3 < counts[1] / counts[0] < 3


def test_more_that_fails_than_is_served_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "MOST_FAILURES", 50)
    with pytest.raises(Refused, match="50 failures and 0 of 40 requests served"):
        system.run(loaded(document(poisson(40, 1.0, 500, 2000), {}, failures={"mtbf": "1 s", "repair": "8 s"})))


def test_a_cache_on_its_way_to_an_instance_that_fails_is_sent_to_another() -> None:
    """Many transfers, slow links: all requests end, and prefill blocks are free at the end."""
    fabric = {"base": "ndr", "link": {"bandwidth": "5 GB/s"}}
    content = document(LOAD, *APART, failures={"mtbf": "15 s", "repair": "2 s"}, fabric=fabric)
    serve = loaded(content)
    of = system.System(serve, system.asked(serve.requests, serve.seed))
    log = of.run()
    assert (log.last > 0).all() and all(each.used() == 0 for each in (*of.first, *of.second))
    assert deployed(serve, serve.pools[1]).rate <= 5e9
    assert np.count_nonzero(log.again) > 5


@settings(max_examples=12, deadline=None)
@given(
    st.integers(5, 60), st.floats(1.0, 40.0), st.integers(20, 3000), st.integers(1, 300), st.booleans(), st.booleans(),
    st.sampled_from(["round_robin", "least_loaded", "prefix"]), st.integers(0, 2**32),
)  # fmt: skip
def test_all_at_once(
    count: int, rate: float, prompt: int, output: int, apart: bool, swap: bool, router: str, seed: int
) -> None:
    """Failures, caches that are given up, swaps: all requests end, tokens are made once, and no block stays in use."""
    pools = APART if apart else BOTH
    cache = {"memory": 0.315, "preempt": "swap" if swap else "recompute", "host": "2 GB" if swap else 0}
    content = document(
        poisson(count, rate, {"most": prompt, "least_part": 0.3}, output), *pools, router=router, cache=cache,
        failures={"mtbf": "15 s", "repair": "1 s"},
    )  # fmt: skip
    serve = loaded(content, seed=seed)
    of = system.System(serve, system.asked(serve.requests, serve.seed))
    log = of.run()
    assert (log.first <= log.last).all() and (log.last > 0).all()
    assert sum(len(steps) * n for steps, n in log.steps) == int((of.requests.output - 1).sum())
    for each in (*of.first, *of.second):
        assert each.used() == 0 and each.host.held == 0 and each.tokens == 0 and not each.waiting


def test_a_cache_whose_receiver_failed_on_its_way_is_sent_whole_again() -> None:
    """262 MB at 0.8 GB/s take 0.33 s; the only instance that decodes fails in between, for 3 s."""
    pools = {"does": "prefill"}, {"does": "decode"}
    requests = {"arrivals": "closed", "clients": 1, "count": 1, "prompt": 2000, "output": 5}
    content = document(requests, *pools, fabric={"base": "ndr", "link": {"bandwidth": "1 GB/s"}})
    calm = system.run(loaded(content))[1]
    serve = loaded(content | {"serve": content["serve"] | {"failures": {"mtbf": "100 days", "repair": "3 s"}}})
    of = system.System(serve, system.asked(serve.requests, serve.seed))
    of.clock.at(int(calm.sent[0]) - 1_000_000, of._fail, of.second[0], np.random.default_rng(0))
    log = of.run()
    whole = deployed(serve, serve.pools[1]).token_bytes * 2000 / of.second[0].own.rate
    assert log.failures == 1 and log.again[0] == 0 and whole > 0.3
    assert int(log.sent[0]) == pytest.approx(int(calm.sent[0]) - 1_000_000 + 3e9 + whole * 1e9, rel=1e-6)


def test_a_cache_whose_sender_failed_on_its_way_is_lost() -> None:
    """The prompt is computed again, which counts."""
    pools = {"does": "prefill"}, {"does": "decode"}
    requests = {"arrivals": "closed", "clients": 1, "count": 1, "prompt": 2000, "output": 5}
    content = document(requests, *pools, fabric={"base": "ndr", "link": {"bandwidth": "1 GB/s"}})
    serve = loaded(content | {"serve": content["serve"] | {"failures": {"mtbf": "100 days", "repair": "3 s"}}})
    of = system.System(serve, system.asked(serve.requests, serve.seed))
    of.clock.at(
        int(system.run(loaded(content))[1].sent[0]) - 1_000_000, of._fail, of.first[0], np.random.default_rng(0)
    )
    assert of.run().again.tolist() == [1]


def test_an_instance_that_fails_holds_nothing_until_it_is_back() -> None:
    requests = {"arrivals": "closed", "clients": 1, "count": 1, "prompt": 20_000, "output": 500}
    content = document(requests, failures={"mtbf": "100 days", "repair": "1 h"})
    serve = loaded(content)
    of = system.System(serve, system.asked(serve.requests, serve.seed))
    of.clock.at(3_000_000_000, of._fail, of.first[0], np.random.default_rng(0))
    used = answers(serve, of.requests, of.run())["cache_used"]
    assert used["most"] > 0.04 and used["mean"] < used["most"] / 100
