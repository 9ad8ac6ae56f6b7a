"""Keys of a served load that its run does not feel: each has a line, and the answer is the same without it."""

from typing import Any

import pytest

from sim.serving import system
from sim.serving.answers import answers
from tests.sim.serving.loads import document, loaded, poisson

LOAD = poisson(40, 20.0, {"most": 400, "least_part": 0.3}, 20)
TWO, ONE, APART = ({"instances": 2},), ({},), ({"does": "prefill"}, {"does": "decode", "instances": 2})


def _answer(content: dict[str, Any]) -> dict[str, Any]:
    serve = loaded(content)
    return answers(serve, *system.run(serve))


@pytest.mark.parametrize(
    "pools, key, value, line",
    [
        (ONE, "router", "round_robin", "serve.router changes nothing: there is one instance to go to"),
        (TWO, "router", "prefix", "serve.router changes nothing: cache.prefix is 0, so no prompt is kept"),
        (TWO, "speculation", {"acceptance": 0.3}, "serve.speculation.acceptance changes nothing: nothing is drafted"),
        (TWO, "engine", "tensorrt_llm", "serve.engine changes nothing: nobody's own kernels were measured on H100"),
        (
            TWO,
            "engine",
            "sglang_0_4_6",
            "serve.engine changes nothing: sglang_0_4_6 has other kernels for latent attention",
        ),
        (TWO, "fabric", "ndr", "serve.fabric changes nothing: no instance is larger than a node"),
        (APART, "pools", (APART[0], {**APART[1], "chunk": 64}), "serve.pools.1.chunk changes nothing: prompts are"),
    ],
)
def test_what_has_a_line_changes_nothing(pools: Any, key: str, value: Any, line: str) -> None:
    without = document(LOAD, *pools)
    without["serve"].pop("fabric" if pools is not APART else "name", None)
    given = {**without, "serve": {**without["serve"], key: value}}
    assert any(each.startswith(line) for each in loaded(given).unfelt) and not loaded(without).unfelt
    assert _answer(given) == _answer(without)


def test_a_prefix_router_has_something_to_go_by_in_a_trace_that_names_blocks() -> None:
    """Others only lose the room."""
    named = {"arrivals": "trace", "file": "x.jsonl", "format": "mooncake"}
    for requests, count in ((named, 0), (LOAD, 2)):
        serve = loaded(document(requests, *TWO, router="prefix", cache={"prefix": 0.5}, fabric=None))
        assert len(serve.unfelt) == count
