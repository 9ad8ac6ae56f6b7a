"""Host memory: sequences that are swapped there, and prompts of the past below HBM."""

from dataclasses import replace

import numpy as np
import pytest

from sim.serving import system
from sim.serving.answers import answers
from sim.serving.deployment import deployed
from sim.serving.prefix import Prefixes
from sim.serving.values import Failures
from tests.sim.serving.loads import document, loaded, poisson

CROWDED = poisson(300, 40.0, {"most": 3000, "least_part": 0.01}, {"most": 400, "least_part": 0.01})


def test_swapped_sequences_lose_nothing_and_all_tokens_are_made_once() -> None:
    """Where host memory takes caches, none is computed again, and prompts take less of the instance's time."""
    busy = {}
    for preempt in ("recompute", "swap"):
        cache = {"memory": 0.32, "preempt": preempt, "host": "100 GB" if preempt == "swap" else 0}
        asked, log = system.run(loaded(document(CROWDED, {"batch": 64}, cache=cache)))
        assert sum(len(steps) * count for steps, count in log.steps) == int((asked.output - 1).sum())
        assert bool(log.swapped) == (preempt == "swap") and bool(log.again.sum()) == (preempt != "swap")
        busy[preempt] = log.busy["prefill"]
    assert busy["swap"] < busy["recompute"]


def test_host_memory_that_is_full_takes_no_more() -> None:
    serve = loaded(document(CROWDED, {"batch": 64}, cache={"memory": 0.32, "preempt": "swap", "host": "250 MB"}))
    _, log = system.run(serve)
    assert log.swapped and log.again.sum()


def test_the_next_step_waits_while_a_cache_goes_to_the_host() -> None:
    """Over a link of 0.9 GB/s some steps are as long as a cache of hundreds of tokens takes."""
    node = {"base": "h100x8", "pcie": {"bandwidth": "1 GB/s"}}
    cache = {"memory": 0.32, "preempt": "swap", "host": "9 GB"}
    serve = loaded(document(CROWDED, {"batch": 64}, node=node, cache=cache))
    _, log = system.run(serve)
    longest = max(int(steps.max()) for steps, _ in log.steps)
    assert log.swapped and longest > deployed(serve, serve.pools[0]).host_ns(400) > 5e7


def test_a_cache_comes_back_as_fast_as_the_link_to_the_host_lets_it() -> None:
    own = deployed(serve := loaded(document(CROWDED)), serve.pools[0])
    latency, rate = own.host.latency_s, own.host.effective
    assert own.host_ns(1000) == pytest.approx((latency + 1000 * own.token_bytes / rate) * 1e9, abs=1)
    assert own.token_bytes == 131072 and 40e9 < rate < 64e9


def test_the_least_recently_used_block_goes_to_the_host_and_then_for_good() -> None:
    kept = Prefixes(3, 2)
    kept.keep([1, 2, 3, 4])
    assert list(kept.kept) == [2, 3, 4] and list(kept.hosted) == [1]
    assert kept.use([1, 2, 9]) == (2, 1) and list(kept.kept) == [4, 1, 2] and list(kept.hosted) == [3]
    kept.keep([5, 6])
    assert list(kept.hosted) == [4, 1] and kept.known([3]) == 0 and kept.known([1, 2]) == 2
    alone = Prefixes(2)
    alone.keep([1, 2, 3])
    assert alone.known([1]) == 0 and not alone.hosted


def test_what_the_host_keeps_is_not_computed_again(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """HBM keeps one prompt of the four; with host memory below it the first two come again for one block each, and the
    step that reads them takes no less than the link."""
    trace = tmp_path / "trace.jsonl"
    names = [list(range(i * 100, i * 100 + 40)) for i in range(4)] + [[*range(40), 1000], [*range(100, 140), 1001]]
    trace.write_text("".join(
        f'{{"timestamp": {i * 60_000}, "input_length": {512 * len(ids)}, "output_length": 2, "hash_ids": {ids}}}\n'
        for i, ids in enumerate(names)
    ))  # fmt: skip
    requests = {"arrivals": "trace", "file": str(trace), "format": "mooncake"}
    cached, logs = [], []
    for host in (0, "40 GB"):
        asked, log = system.run(serve := loaded(document(requests, cache={"prefix": 0.05, "host": host})))
        cached.append(log.cached.tolist())
        logs.append(log)
        told = answers(serve, asked, log)["tokens"]["cached_by_host"]
        assert told == (2 * 40 * 512 if host else 0)
    own = deployed(serve, serve.pools[0])
    assert cached == [[0] * 6, [0] * 4 + [40 * 512] * 2]
    taken = int(logs[1].first[4] - logs[1].begun[4])
    assert taken == max(own.host_ns(40 * 512), round(own.grid.prefill_ns(512, 40 * 512 + 256.0)))
    of = system.System(
        replace(serve, failures=Failures(10**17, 10**9)), asked
    )  # it fails in that step, and has nothing
    of.clock.at(int(logs[1].begun[4]) + 1, of._fail, of.first[0], np.random.default_rng(0))
    again = answers(serve, asked, of.run())["tokens"]
    assert again["cached_by_host"] == 0 and again["cached"] == 0
