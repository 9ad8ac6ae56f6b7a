"""Requests as events: an independent loop, laws of queues, what is conserved, and who waits for what."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.serving import system
from sim.serving.answers import answers
from sim.serving.deployment import deployed
from sim.serving.instance import Instance
from sim.serving.log import NEVER
from sim.serving.rank import Batch
from sim.serving.values import Serve
from tests.oracles import serving_loop
from tests.sim.serving.loads import closed, document, loaded, poisson, quantile

VARIED = {"most": 3000, "least_part": 0.01}
ANSWERS = {"most": 400, "least_part": 0.01}
WORKLOADS = {
    "light": poisson(400, 3.0, VARIED, ANSWERS),
    "bursty": {**poisson(400, 8.0, VARIED, ANSWERS), "arrivals": "gamma", "variation": 3.0},
    "crowded": poisson(400, 40.0, VARIED, ANSWERS),
}


def by_loop(serve: Serve) -> list[serving_loop.Sequence_]:
    """The same load by the loop of tests/oracles."""
    pool, requests = serve.pools[0], system.asked(serve.requests, serve.seed)
    own = deployed(serve, pool)
    rows = list(zip(requests.arrival.tolist(), requests.prompt.tolist(), requests.output.tolist(), strict=True))
    return serving_loop.serve(
        rows, own.grid.prefill_ns, lambda n, keys: float(own.grid.decode_ns(n, np.array([keys]))[0]),
        pool.chunk, pool.batch, own.tokens // serve.cache.block, serve.cache.block,
    )  # fmt: skip


@pytest.mark.parametrize("name", WORKLOADS)
def test_waits_equal_an_independent_loops(name: str) -> None:
    """p99 of the time to the first token, and every single moment but for roundings of a step."""
    serve = loaded(document(WORKLOADS[name], {"chunk": 2048, "batch": 64}))
    _, log = system.run(serve)
    told = by_loop(serve)
    first, last = (np.array([getattr(one, key) for one in told]) for key in ("first", "last"))
    assert quantile(log.first - log.arrival, 0.99) == pytest.approx(quantile(first - log.arrival, 0.99), rel=1e-6)
    assert np.abs(log.first - first).max() < 1000 and np.abs(log.last - last).max() < 1000


@pytest.mark.parametrize("requests", [poisson(600, 6.0, VARIED, ANSWERS), closed(600, 24, VARIED, ANSWERS)])
def test_littles_law(requests: dict[str, object]) -> None:
    """Requests in the system, counted as they come and go, are their rate times how long they stay."""
    serve = loaded(document(requests))
    asked, log = system.run(serve)
    told = answers(serve, asked, log)
    rate, stay = told["requests"] / told["span_s"], told["end_to_end_s"]["mean"]
    assert told["in_system"] == pytest.approx(rate * stay, rel=0.005)


def test_a_server_of_one_slot_is_md1() -> None:
    """Equal prompts one at a time, no answers: the mean wait is load / (2 (1 - load)) services."""
    serve = loaded(document(poisson(15_000, 1.0, 2048, 1), {"batch": 1}))
    service = deployed(serve, serve.pools[0]).grid.prefill_ns(2048, 1024.0) / 1e9
    for load in (0.3, 0.6):
        at = replace(serve, requests=serve.requests._replace(rate=load / service))
        _, log = system.run(at)
        wait = float((log.begun - log.arrival).mean()) / 1e9
        assert wait == pytest.approx(load / (2 * (1 - load)) * service, rel=0.08)


def test_alone_the_first_token_takes_the_prefill_and_later_ones_a_step() -> None:
    serve = loaded(document(poisson(5, 0.01, 1000, 50)))
    _, log = system.run(serve)
    grid = deployed(serve, serve.pools[0]).grid
    assert log.first - log.arrival == pytest.approx(np.full(5, grid.prefill_ns(1000, 500.0)), abs=1)
    steps = sum(round(float(grid.decode_ns(1, np.array([1001.0 + i]))[0])) for i in range(49))
    assert log.last - log.first == pytest.approx(np.full(5, steps), abs=50)


def test_every_token_is_made_once() -> None:
    """Steps times their sequences are the tokens after the first; those of a lost cache are not made twice."""
    for memory, loses in ((0.9, False), (0.32, True)):
        serve = loaded(document(WORKLOADS["crowded"], {"batch": 64}, cache={"memory": memory}))
        asked, log = system.run(serve)
        made = sum(len(steps) * count for steps, count in log.steps)
        assert made == int((asked.output - 1).sum()) and bool(log.again.sum()) == loses


def test_blocks_are_conserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than there are, none negative, and all free at the end."""
    seen: list[tuple[int, int]] = []
    begin = Instance._begin

    def watched(self: Instance) -> None:
        begin(self)
        seen.append((self.used(), self.room))

    monkeypatch.setattr(Instance, "_begin", watched)
    for pools in ([{}], [{"does": "prefill"}, {"does": "decode", "instances": 2}]):
        seen.clear()
        system.run(loaded(document(WORKLOADS["crowded"], *pools, cache={"memory": 0.32})))
        assert all(0 <= used <= room for used, room in seen) and seen[-1][0] == 0 and max(seen)[0] > 0.9 * seen[0][1]


@pytest.mark.parametrize(
    "pools", [({},), ({"does": "prefill"}, {"does": "decode", "instances": 2}, {"does": "decode"})]
)
def test_the_part_of_the_cache_in_use_is_that_of_a_watch(pools: tuple[dict[str, object], ...]) -> None:
    """Every two milliseconds somebody counts all blocks; they grow within steps that are taken together, too."""
    serve = loaded(document(poisson(40, 3.0, VARIED, ANSWERS), *pools, cache={"memory": 0.4}))
    requests, seen = system.asked(serve.requests, serve.seed), list[list[float]]()
    own = system.System(serve, requests)

    def look() -> None:
        every = (*own.first, *own.second)
        steps = [int(np.searchsorted(each.ends, own.clock.now, side="right")) for each in every]
        blocks = [each.held + each.running.blocks(done) for each, done in zip(every, steps, strict=True)]
        seen.append([used / each.room for used, each in zip(blocks, every, strict=True)])
        if (own.log.last == NEVER).any():
            own.clock.at(own.clock.now + 2_000_000, look)

    own.clock.at(int(requests.arrival[0]), look)
    used = answers(serve, requests, own.run())["cache_used"]
    assert used["mean"] == pytest.approx(np.mean(seen), rel=5e-3) and used["most"] == pytest.approx(
        np.max(seen), rel=0.02
    )


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    serve = loaded(document(WORKLOADS["bursty"]))
    one, again, other = (system.run(each)[1] for each in (serve, serve, replace(serve, seed=1)))
    assert (one.last == again.last).all() and not (one.last == other.last).all()


def test_faster_memory_keeps_more_objectives() -> None:
    """At equal load, with prefill and decode apart."""
    pools = {"does": "prefill"}, {"does": "decode"}
    content = document(poisson(300, 12.0, VARIED, ANSWERS), *pools, objectives={"ttft": "400 ms", "tpot": "9 ms"})
    goodput = []
    for rate in ("1 TB/s", "2 TB/s", "3.35 TB/s", "6 TB/s"):
        serve = loaded(content | {"serve": {**content["serve"], "node": {
            "base": "h100x8", "device": {"base": "h100", "hbm": {"bandwidth": rate}}}}})  # fmt: skip
        asked, log = system.run(serve)
        goodput.append(answers(serve, asked, log)["goodput"]["part"])
    assert goodput == sorted(goodput) and goodput[0] < goodput[-1]


def test_a_prompts_cache_travels_while_it_is_computed() -> None:
    """Apart, what is left to wait for is the last layer, and the NIC where it is slower than the prefill."""
    pools = {"does": "prefill"}, {"does": "decode"}
    serve = loaded(document(poisson(20, 0.1, 2000, 10), *pools))
    _, log = system.run(serve)
    own = deployed(serve, serve.pools[1])
    whole = own.token_bytes * 2000 / own.rate
    waited = (log.sent - log.first) / 1e9
    assert waited == pytest.approx(
        np.full(20, max(whole / 32, whole - float((log.first - log.begun)[0]) / 1e9)), rel=1e-3
    )


def test_both_groups_nics_carry_a_cache() -> None:
    """From one rank to two, each of which gets half: the sender's NIC carries both halves. From two to one, the
    receiver's carries all."""
    taken = []
    for fills, decodes in ((1, 2), (2, 1), (1, 1), (2, 2)):
        pools = {"does": "prefill", "tensor": fills}, {"does": "decode", "tensor": decodes}
        content = document(closed(1, 1, 2000, 2), *pools, fabric={"base": "ndr", "link": {"bandwidth": "1 GB/s"}})
        _, log = system.run(loaded(content))
        taken.append(int(log.sent[0] - log.begun[0]) / 1e9)
    whole = 131072 * 2000 / 0.8e9
    assert taken == pytest.approx([whole, whole, whole, whole / 2], rel=1e-3)


def test_joules_are_those_of_steps_and_of_rest() -> None:
    serve = loaded(document(poisson(50, 2.0, VARIED, ANSWERS), gpu_power="500 W"))
    asked, log = system.run(serve)
    told = answers(serve, asked, log)
    busy, span = sum(log.busy.values()) / 1e9, told["span_s"]
    assert 0 < busy < span
    assert told["energy"]["joules"] == pytest.approx(busy * 500 + (span - busy) * 118)
    made = int(asked.output.sum())
    assert told["energy"]["joules_per_million_output"] == pytest.approx(told["energy"]["joules"] / made * 1e6)


def test_prompts_that_begin_alike_are_computed_once(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Two prompts of four blocks share three; a third shares none."""
    trace = tmp_path / "trace.jsonl"
    rows = [(0, [1, 2, 3, 4]), (60_000, [1, 2, 3, 5]), (120_000, [6, 7, 8, 9])]
    trace.write_text("".join(
        f'{{"timestamp": {t}, "input_length": 2048, "output_length": 5, "hash_ids": {ids}}}\n' for t, ids in rows
    ))  # fmt: skip
    requests = {"arrivals": "trace", "file": str(trace), "format": "mooncake"}
    serve = loaded(document(requests, cache={"prefix": 0.2}))
    _, log = system.run(serve)
    assert log.cached.tolist() == [0, 3 * 512, 0]
    grid = deployed(serve, serve.pools[0]).grid
    assert log.first[1] - log.arrival[1] == pytest.approx(grid.prefill_ns(512, 3 * 512 + 256.0), abs=1)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 60), st.floats(0.1, 50.0), st.integers(1, 4000), st.integers(1, 300), st.integers(1, 3),
    st.sampled_from(["round_robin", "least_loaded", "prefix"]), st.booleans(), st.integers(0, 2**32),
)  # fmt: skip
def test_everything_ends_in_order(
    count: int, rate: float, prompt: int, output: int, instances: int, router: str, apart: bool, seed: int
) -> None:
    both = [{"instances": instances}]
    pools = [{"does": "prefill"}, {"does": "decode", "instances": instances}] if apart else both
    content = document(poisson(count, rate, {"most": prompt, "least_part": 0.3}, output), *pools, router=router)
    asked, log = system.run(loaded(content, seed=seed))
    assert (log.arrival <= log.begun).all() and (log.begun < log.first).all() and (log.first <= log.last).all()
    assert sum(len(steps) * n for steps, n in log.steps) == int((asked.output - 1).sum())


def test_drafts_that_stand_save_steps() -> None:
    """By acceptance 0.85, a step of one draft makes 1.85 tokens on average; all tokens are made."""
    requests = closed(8, 2, 500, 400)
    for depth, tokens in ((1, 1.85), (2, 1.85 + 0.85**2)):
        content = document(requests, {"expert": 8}, model="deepseek_v3", node="h200x8", precision="fp8")
        content["serve"]["speculation"] = {"depth": depth, "acceptance": 0.85}
        asked, log = system.run(loaded(content))
        steps = sum(len(each) * count for each, count in log.steps)
        assert math.isclose(int((asked.output - 1).sum()) / steps, tokens, rel_tol=0.04)


def test_figures_are_those_of_what_happened_to_each_request() -> None:
    """Dollars, quantiles, goodput, tokens a node and gaps between tokens, once more from requests and steps."""
    pools = {"does": "prefill"}, {"does": "decode", "tensor": 2}
    content = document(poisson(200, 12.0, VARIED, ANSWERS), *pools, gpu_hour="2 USD/h", objectives={
        "ttft": "60 ms", "tpot": "5 ms"})  # fmt: skip
    serve = loaded(content)
    asked, log = system.run(serve)
    log.cached[:] = np.minimum(asked.prompt - 1, 100)
    told = answers(serve, asked, log)
    seconds = (log.last.max() - log.arrival[0]) / 1e9
    tokens, made = int(asked.prompt.sum() + asked.output.sum()), int(asked.output.sum())
    dollars = 2 * 3 * seconds / 3600
    assert told["tokens"]["usd_per_million"] == pytest.approx(dollars / tokens * 1e6)
    assert told["tokens"]["usd_per_million_output"] == pytest.approx(dollars / made * 1e6)
    computed = int((asked.prompt - log.cached).sum())
    assert told["tokens"]["prompt_per_s_prefill_node"] == pytest.approx(computed / seconds * 8)
    assert told["tokens"]["output_per_s_decode_node"] == pytest.approx(made / seconds / 2 * 8)
    waits, gaps = (log.first - log.arrival) / 1e9, (log.last - log.first) / 1e9 / np.maximum(1, asked.output - 1)
    assert [told["ttft_s"][f"p{part}"] for part in (50, 90, 99)] == pytest.approx(np.percentile(waits, (50, 90, 99)))
    quick, steady = waits <= 0.06, gaps <= 5e-3
    assert told["goodput"]["part"] == (quick & steady).mean() and 0.1 < quick.mean() < 0.9 and 0.1 < steady.mean() < 0.9
    between = np.sort(np.concatenate([np.repeat(steps, count) for steps, count in log.steps])) / 1e9
    assert told["inter_token_s"]["mean"] == pytest.approx(between.mean())
    assert told["inter_token_s"]["p99"] == pytest.approx(between[math.ceil(0.99 * len(between)) - 1], rel=1e-6)


@pytest.mark.parametrize("less", [0, 1])
def test_a_prompt_begins_when_its_first_token_has_a_place_too(less: int, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Two prompts that fill all blocks to the last place do not run beside each other; with a token less they do."""
    room = deployed(serve := loaded(document(closed(1, 1, 1, 1))), serve.pools[0]).tokens
    first = room // 128 * 64
    (tmp_path / "two.csv").write_text(f"arrival_s,prompt,output\n0,{first - 1},2\n0,{room - first - less},2\n")
    own = {"arrivals": "trace", "file": str(tmp_path / "two.csv"), "format": "csv"}
    log = system.run(loaded(document(own, {"chunk": 1_000_000})))[1]
    assert (log.begun[1] < log.last[0]) == bool(less)


def test_a_step_is_that_of_the_fullest_group_with_its_drafts() -> None:
    """Nine sequences over eight groups: one has two. The last draft sees two keys more; each costs a module's pass."""
    content = document(closed(9, 9, 500, 40), {"expert": 8}, model="deepseek_v3", node="h200x8", precision="fp8")
    content["serve"]["speculation"] = {"depth": 2, "acceptance": 0.5}
    serve = loaded(content)
    grid = deployed(serve, serve.pools[0]).grid
    steps, count = system.run(serve)[1].steps[0]
    assert count == 9 and steps[0] == np.rint(grid.decode_ns(2, np.array([503.0]))[0]) and grid.queries == 3
    alone, batch = replace(grid.decoding, drafts=0, known={}), Batch(2, 3, 503.0)
    assert grid.decoding.ns(batch) - alone.ns(batch) == 2 * alone.draft_ns(batch) > 0
