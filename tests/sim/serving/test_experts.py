"""How unalike experts are liked: histograms that texts left, and figures of others that follow from them."""

import json
from pathlib import Path

import numpy as np
import pytest

from hwmodels.document import Document
from hwmodels.op import GroupedGemm
from sim.communication.exchange.ports import of_op
from sim.models.mixture import Mixture
from sim.routing.gate import gate_of
from sim.routing.hosts import in_order
from sim.routing.loads import reach
from sim.scenario.histogram import histogram
from sim.scenario.values import Routing
from sim.serving import experts
from sim.serving.experts import Gating, loads
from sim.serving.networks import exchange, routed
from sim.serving.rank import Batch, Load
from sim.serving.rows import POPULARITY, instance, rows
from tests.sim.serving.instances import stepper

V3 = Mixture(256, 8, 8, 4, "sigmoid")


def gating(text: str, ranks: int, copies: int) -> Gating:
    """Of V3 by a histogram that is read off SGLang's page."""
    rows = histogram(Document(f"{text}.csv", {}), ("histogram",), POPULARITY, V3)
    return Gating(V3, ranks, 8, Routing("recorded", histogram=rows, redundant_experts=copies), 0, len(rows))


@pytest.mark.parametrize("text", ["sglang_prefill", "sglang_decode"])
def test_rows_read_off_a_picture_add_up_alike(text: str) -> None:
    """58 layers, of each of which as many tokens were chosen: what is left is how well colours can be told."""
    sums = [sum(row) for row in gating(text, 1, 0).routing.histogram or ()]
    assert len(sums) == 58 and max(sums) < 1.01 * min(sums)


def test_answers_without_copies_load_ranks_as_others_measured() -> None:
    """TensorRT-LLM on R1, EP32: the busiest rank has 1.564 times more rows than the mean, on average over layers (row
    TRT-IMB). The histogram is SGLang's, of another text."""
    told = np.mean([load.above for load in loads(gating("sglang_decode", 32, 0), 65_536)]) - 1
    assert told == pytest.approx(1.564, rel=0.06)


def test_copies_that_stay_in_their_node_leave_nodes_unlike() -> None:
    """SGLang's page (eplb-balancedness.png): with copies the mean rank of 32 has 0.80 of the busiest one's rows. Groups
    lie whole on a node, two of eight each; placed freely, copies would leave 0.96."""
    groups = loads(gating("sglang_prefill", 32, 32), 524_288)
    told = np.mean([1 / load.above for load in groups])
    assert told == pytest.approx(0.80, abs=0.02)
    free = gating("sglang_prefill", 32, 32)._replace(gpus_per_node=32)
    assert np.mean([1 / load.above for load in loads(free, 524_288)]) > 0.95


def test_a_steps_answers_choose_unlike_what_copies_were_placed_for() -> None:
    """SGLang's page (eplb-throughput-vs-imbalance.png, read off at every step from 13 to 89): the mean rank of 72 has
    0.875 of the busiest one's rows, on average over layers, in the run whose throughput is published. Tokens that chose
    as copies were placed for would have 0.93, by chance alone. Prompts of experts that are liked alike drift too."""
    own = gating("sglang_decode", 72, 32)
    told = [np.mean([1 / load.above for load in loads(own._replace(drift=drift), 72 * 256)]) for drift in (0.0, 0.085)]
    assert told == pytest.approx([0.93, 0.875], abs=0.006)
    even = stepper("h100x8", 1, 32).gating
    assert even and all(load.reached > 1 < load.received for load in loads(even._replace(drift=0.1), 65_536, once=True))


def test_another_drift_is_another_price() -> None:
    """An instance's prices are kept for scenarios that change none of them."""
    own = next(row for row in rows() if row["id"] == "SG-DC-2K")
    steps = [instance({**own, "drift": drift}).grid.decoding.ns(Batch(256, 1, 2050.0)) for drift in (0.0, 0.3)]
    assert steps[1] > 1.1 * steps[0]


def test_tokens_reach_a_node_once() -> None:
    """No node gets more than every token: 4 / 3.13 times what each of four gets where experts are liked alike."""
    for load in loads(gating("sglang_prefill", 32, 0), 65_536, once=True):
        assert 1 <= load.reached <= 4 / 3.13 + 0.02 and load.reached <= load.received <= load.above + 0.02
    even = stepper("h100x8", 1, 32).gating
    assert even and {(load.received, load.reached) for load in loads(even, 65_536, once=True)} == {(1.0, 1.0)}


def test_alike_experts_are_reached_alike() -> None:
    where = in_order(256, 32, 8)
    assert reach(gate_of(V3), np.ones((1, 256)), [where]) == pytest.approx(np.ones((1, 32)))


def test_an_uneven_exchange_of_prompts_waits_for_the_busiest_node() -> None:
    """Over nodes the NIC binds: 1.2 times the tokens on a node take it as much longer, 1.2 times those of one rank a
    few per cent. The price is that of the model of exchanges with rows raised."""
    own, batch = stepper("h100x8", 1, 32, prompts=True), Batch(2, 4096, 4096.0, prefill=True)
    made = next(each for each in own.blocks if each.routed)
    assert made.gate

    def ns(received: float, reached: float) -> int:
        return own.prices.ns(exchange(own.rank, made.gate, batch, Load(1, 1, 1.0, received, reached), False)[-1].op)

    assert 1.15 < ns(1.0, 1.2) / ns(1.0, 1.0) < 1.25 and 1 <= ns(1.2, 1.0) / ns(1.0, 1.0) < 1.05
    ports = of_op(exchange(own.rank, made.gate, batch, Load(1, 1), False)[-1].op.even).raised(1.5, 1.25)
    assert ports.received[0] / ports.forwarded[0] == pytest.approx(1.2)
    assert ports.nic_in[0] / ports.nic_out[0] == pytest.approx(1.25) and ports.sent[0] > ports.nic_out[0]


def test_experts_of_prompts_fill_tiles() -> None:
    """DeepGEMM's contiguous layout: 9 experts of 1,000 rows each multiply 64 rows more each, of 10 rows a tile each;
    answers and products in BF16 as many as there are."""

    def multiplied(rows: int, prefill: bool, precision: str = "fp8") -> int:
        own = stepper("h100x8", 1, 32, prompts=prefill, precision=precision)
        made, batch = next(each for each in own.blocks if each.routed), Batch(1, 64, 64.0, prefill=prefill)
        kernels = routed(own.rank, made, batch, 64, Load(rows, 9))
        counts = {kernel.op.rows for kernel in kernels if isinstance(kernel.op, GroupedGemm)}
        return counts.pop() if len(counts) == 1 else 0

    assert multiplied(9_000, True) == 9_576 and multiplied(90, True) == 9 * 128
    assert multiplied(9_000, False) == multiplied(9_000, True, "bf16") == 9_000


def test_a_histogram_of_other_experts_is_refused(tmp_path: Path) -> None:
    from sim.serving import files

    serve = {
        "model": "deepseek_v3", "node": "h100x8", "fabric": "ndr", "pools": [{"expert": 32}],
        "routing": {"kind": "recorded", "histogram": [[1] * 64]},
        "requests": {"arrivals": "closed", "clients": 1, "count": 1, "prompt": {"most": 9}, "output": {"most": 9}},
    }  # fmt: skip
    with pytest.raises(Exception, match=r"serve.routing.histogram: found 64 experts a layer; .* has 256"):
        files.resolve(Document({"name": "odd", "serve": serve}, {}))
    serve["routing"]["histogram"] = [[1] * 256] * 57
    with pytest.raises(Exception, match=r"serve.routing.histogram: found 57 layers; legal: 1, 58, 59 \(1 for all"):
        files.resolve(Document({"name": "odd", "serve": serve}, {}))
    serve["routing"] = {"kind": "recorded"}
    with pytest.raises(Exception, match=r"serve.routing.histogram: missing; recorded routing needs it"):
        files.resolve(Document({"name": "odd", "serve": serve}, {}))
    (tmp_path / "some.csv").write_text("\n".join(",".join(["2"] * 255 + [str(i)]) for i in range(58)))
    serve["routing"] = {"kind": "recorded", "histogram": "some.csv"}
    read = files.resolve(Document({"name": "right", "serve": serve}, {}), path=tmp_path / "x.yaml")
    assert read.routing.histogram and read.routing.histogram[57][255] == 57
    (tmp_path / "some.csv").write_text("\n".join(",".join(["2"] * 256) for _ in range(58)))
    other = files.resolve(Document({"name": "right", "serve": serve}, {}), path=tmp_path / "x.yaml")
    assert other.scenario_hash != read.scenario_hash
    (tmp_path / "x.yaml").write_text(json.dumps({"serve": serve}))
    kept = files.portable(tmp_path / "x.yaml")["serve"]["routing"]["histogram"]
    assert Path(kept) == tmp_path / "some.csv"


def test_the_busiest_rank_has_most_rows_and_reads_most_experts() -> None:
    """Two ranks of two slots: one has three rows of one expert, the other a row of each of two."""
    assert experts._busiest(np.array([3.0, 0.0, 1.0, 1.0]), 2) == Load(3, 2, 1.2)
