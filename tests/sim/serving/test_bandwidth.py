"""More bandwidth at equal load: no step is longer; no token later where no step is shared; what sharing can cost."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sim.serving import system
from sim.serving.answers import figures
from sim.serving.asked import Asked
from sim.serving.deployment import Deployed, deployed
from sim.serving.grid import Grid
from sim.serving.log import Log
from sim.serving.rank import Batch
from sim.serving.values import Objectives, Pool, Serve
from tests.sim.serving.loads import closed, document, loaded, poisson

MS = 1_000_000
CLOCK = 1e-5
"""How near a card's clock comes to its power limit (`sim.serving.paced.CLOSE`): steps may be longer by as much."""
Faster = Callable[..., None]


class Steps(Grid):
    """Prompts take 1 ms, a step 10 ms and 2 more for every sequence beyond the first."""

    def prefill_ns(self, tokens: int, pairs: float, mean: float = 1.0) -> float:
        return 1.0 * MS

    def decode_ns(self, sequences: int, keys: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.full(len(keys), (8.0 + 2 * sequences) * MS)


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> Faster:
    """Sets how many times as fast caches travel, and what makes steps."""

    def at(times: float, grid: type[Grid] = Grid) -> None:
        def own(serve: Serve, pool: Pool) -> Deployed:
            made = deployed(serve, pool)
            return replace(made, rate=made.rate * times, grid=grid(*vars(made.grid).values()))

        monkeypatch.setattr(system, "deployed", own)

    return at


def drawn(seed: int, shared: bool) -> Serve:
    """A random deployment, prefill and decode apart, of a NIC that slows it. shared: whether sequences share decode
    steps, and routers and scarce blocks look at what goes on."""
    random = np.random.default_rng(seed)
    fills, decodes, fill, decode = (int(random.choice(of)) for of in ((1, 2, 3), (1, 2, 3), (1, 2, 4), (1, 2, 4)))
    prompt, output = (
        int(random.choice((1000, 3000, 8000))),
        int(random.choice((50, 200, 600) if shared else (2, 8, 32))),
    )
    rate, batch = fills * fill**0.7 * 33_000 / prompt, int(random.choice((16, 64))) if shared else 1
    if not shared:
        rate = min(rate, decodes / (output * 0.003))
    requests = poisson(
        100, rate * random.uniform(0.3, 1.5), {"most": prompt, "least_part": float(random.choice((0.01, 0.5, 1.0)))},
        {"most": output, "least_part": float(random.choice((0.01, 0.5)))},
    )  # fmt: skip
    content = document(
        requests | {"arrivals": "gamma", "variation": float(random.choice((0.5, 1.0, 3.0)))},
        {"does": "prefill", "instances": fills, "tensor": fill, "chunk": int(random.choice((2048, 8192)))},
        {"does": "decode", "instances": decodes, "tensor": decode, "batch": batch},
        router=str(random.choice(("round_robin", "least_loaded"))) if shared else "round_robin",
        cache={"memory": float(random.choice((0.3, 0.5, 0.9))) if shared else 0.9},
        fabric={"base": "ndr", "link": {"bandwidth": "2.5 GB/s"}},
    )  # fmt: skip
    return loaded(content, seed=seed)


def kept(serve: Serve) -> tuple[float, Log]:
    """Requests a second within objectives, and what happened."""
    asked, log = system.run(serve)
    return float(figures(serve, asked, log)["goodput"]["requests_per_s"]), log


def test_no_token_is_later_where_none_shares_a_step(faster: Faster) -> None:
    """Prompts in the order they come to instances in turn, and one sequence at a time: then every last token of 12
    random deployments is there as early or earlier, so no objectives lose by it."""
    sooner = 0
    for seed in range(12):
        serve, last = drawn(seed, shared=False), None
        for times in (1, 2, 8):
            faster(times)
            _, log = system.run(serve)
            assert last is None or (log.last <= last).all(), seed
            sooner += last is not None and bool((log.last < last).any())
            last = log.last
    assert sooner > 8


def test_goodput_of_many_deployments_never_falls(faster: Faster) -> None:
    """Steps shared, blocks scarce, objectives in the midst of what requests take: over all together goodput rises with
    every doubling, and no deployment loses more than two requests of a hundred by whom they share steps with."""
    rates = []
    for seed in range(20):
        serve, own = drawn(seed, shared=True), list[float]()
        for times in (1, 2, 4, 8):
            faster(times)
            if not own:
                asked, log = system.run(serve)
                first, later = log.first - log.arrival, (log.last - log.first) / np.maximum(1, asked.output - 1)
                most = np.random.default_rng(seed).uniform(0.3, 0.95, 2)
                limits = (int(np.quantile(each, part)) for each, part in zip((first, later), most, strict=True))
                serve = replace(serve, objectives=Objectives(*limits))
            own.append(kept(serve)[0] / serve.requests.rate)
        rates.append(own)
    each = np.diff(rates, axis=1)
    assert (each.sum(axis=0) > 0).all() and each.min() >= -0.03


def test_a_cache_that_comes_sooner_can_cost_another_its_objective(faster: Faster) -> None:
    """The smallest case: an answer of ten steps, which keeps 10.1 ms a token alone, and one that keeps nothing, whose
    cache comes 131 ms after, or 13 and shares a step. Goodput falls as bandwidth rises, in engines as here."""
    pools, limits = ({"does": "prefill"}, {"does": "decode"}), {"ttft": "1 s", "tpot": "10.1 ms"}
    serve = loaded(document(poisson(2, 1.0, 4000, 11), *pools, objectives=limits))
    two = Asked(*np.array([[0, 0], [1, 4000], [11, 2]]))
    taken = []
    for times in (0.1, 1.0):
        faster(times, Steps)
        log = system.System(serve, two).run()
        part = figures(serve, two, log)["goodput"]["part"]
        taken.append((part, *((log.last - log.first) / MS / (two.output - 1)).round(1).tolist()))
    assert taken == [(0.5, 10.0, 140.1), (0.0, 10.2, 31.0)]


def test_goodput_is_the_loads_rate_times_the_part() -> None:
    """However long the last answers take; a closed loop has no rate of its own."""
    serve = loaded(document(poisson(50, 20.0, 1000, 2000), objectives={"ttft": "1 s", "tpot": "1 s"}))
    asked, log = system.run(serve)
    own = figures(serve, asked, log)
    assert own["goodput"]["requests_per_s"] == pytest.approx(49e9 / (asked.arrival[-1] - asked.arrival[0]))
    assert own["goodput"]["requests_per_s"] > 2 * own["requests"] / own["span_s"]
    for requests in (closed(50, 10, 1000, 20), poisson(1, 1.0, 1000, 20)):
        asked, log = system.run(serve := loaded(document(requests, objectives={"ttft": "1 s", "tpot": "1 s"})))
        own = figures(serve, asked, log)
        assert own["goodput"]["requests_per_s"] == own["requests"] / own["span_s"]


@pytest.mark.parametrize("what", ["nic", "nvlink", "hbm"])
def test_no_step_takes_longer(what: str) -> None:
    """Random steps of V3 over exchanges and of a tensor group over two nodes, of prompts and of answers."""
    sooner = 1.0
    for pool in ({"expert": 32, "redundant_experts": 32, "overlap": True}, {"expert": 16, "tensor": 4}, {"tensor": 16}):
        faster = [deployed(each, each.pools[0]).grid for each in (_with(what, times, pool) for times in (0.5, 1, 2))]
        random = np.random.default_rng(pool.get("tensor", 1))
        for _ in range(3):
            long, some = int(2 ** random.uniform(6, 13)), int(2 ** random.uniform(0, 8.5))
            for batch in (Batch(max(1, 8192 // long), long, float(long), prefill=True), Batch(some, 1, 16.0 * long)):
                ns = [(grid.prefilling if batch.prefill else grid.decoding).ns(batch) for grid in faster]
                assert max(np.diff(ns)) <= CLOCK * ns[0], batch
                sooner = max(sooner, ns[0] / ns[-1])
    assert sooner > 1.15


def _with(what: str, times: float, pool: dict[str, Any]) -> Serve:
    """V3 on H100s that have so many times the bandwidth of something."""
    nic, nvlink, hbm = (times if each == what else 1.0 for each in ("nic", "nvlink", "hbm"))
    device = {"base": "h100", "hbm": {"bandwidth": f"{3.35 * hbm} TB/s"}}
    node = {"base": "h100x8", "device": device, "nvlink": {"bandwidth": f"{450 * nvlink} GB/s"}}
    fabric = {"base": "ndr", "link": {"bandwidth": f"{50 * nic} GB/s"}}
    more = {"node": node, "fabric": fabric, "routing": {"kind": "skewed", "max_vio": 2}}
    return loaded(document(poisson(1, 1.0, 1, 1), pool, model="deepseek_v3", precision="fp8", **more))
