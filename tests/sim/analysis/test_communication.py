"""What a step communicates: no time below its bandwidth bound, and bytes that mean what they are called."""

from typing import Any

import pytest

from hwmodels import node
from hwmodels.collectives import wires
from hwmodels.nccl.figures import FAR_SPREAD
from hwmodels.refused import Refused
from sim import simulation
from sim.analysis.uncertainty import WIRE_SPREAD
from sim.scenario import SCENARIOS, from_mapping, load

V3 = str(SCENARIOS / "v3_2048gpu.yaml")
QUICK = ("outputs=[result]", "detail=chunk")
LINKS = wires(node.load("h800x8"), None)
EXCHANGES = ["dispatch(F)", "combine(F)", "combine(B)", "dispatch(B)"]
RINGS = [f"{name}, {part}" for name in ("gradient reduce-scatter", "parameter all-gather")
         for part in ("dense", "experts")]  # fmt: skip
ONE_NODE: dict[str, Any] = {
    "cluster": {"node": "h800x8", "nodes": 1}, "model": {"base": "deepseek_v2_lite", "layers": 8},
    "parallel": {"pipeline": 1, "expert": 8}, "schedule": "1f1b", "batch": {"micro_batches": 8}, "outputs": ["result"],
}  # fmt: skip


def told(*changes: str) -> dict[str, dict[str, Any]]:
    return named(simulation.run(load(V3, [*QUICK, *changes]), False).summary["communication"])


def named(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


RUNS = {
    "v3": (), "1f1b": ("schedule=1f1b",), "one node": ("parallel.expert=8",), "ecmp": ("cluster.routing=ecmp",),
    "static": ("cluster.routing=static", "cluster.placement=scattered"), "few SMs": ("comm.sms=4",),
    "copy engines": ("comm.sms=0",), "closed": ("comm.exchange=closed",), "messages": ("comm.exchange=messages",),
}  # fmt: skip


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_no_time_is_below_its_bound(changes: tuple[str, ...]) -> None:
    rows = told(*changes)
    assert list(rows) == [*EXCHANGES, "pipeline message", *RINGS]
    for name, row in rows.items():
        assert row["alone_s"] >= row["bound_s"] > 0, name
        assert ("beside_s" in row) == (name not in RINGS) and ("shared_s" in row) == (name in EXCHANGES)
        assert row.get("beside_s", row["alone_s"]) >= row.get("shared_s", row["alone_s"]) >= row["alone_s"], name
        assert max(row["wire_bytes"], row["nvlink_bytes"]) > 0 and row["logical_bytes"] >= row["wire_bytes"]


def test_bounds_follow_the_fabric_that_each_kind_of_traffic_finds() -> None:
    """Flows that collide lower the bound's bandwidth with the price's: whichever kind collides, both rise alike."""
    clear, crowded = told(), told("cluster.routing=ecmp")
    slower = {name: crowded[name]["bound_s"] / clear[name]["bound_s"] for name in clear}
    assert max(slower.values()) > 1.2 and min(slower.values()) >= 1 - 1e-9
    for name, row in crowded.items():
        limit = 1.12 if name in EXCHANGES else 1.05  # messages and gradients pass the NICs of exchanges
        assert row["wire_bytes"] == clear[name]["wire_bytes"] and row["alone_s"] < limit * row["bound_s"], name


def test_alone_is_with_links_to_itself_and_shared_beside_messages() -> None:
    """V3's messages take 2.4 % of the NICs; ranks that wait for their messages have none beside exchanges."""
    dispatch, waited = told()["dispatch(F)"], told("comm.messages=waited")["dispatch(F)"]
    assert dispatch["shared_s"] / dispatch["alone_s"] == pytest.approx(1 / 0.976, rel=2e-3)
    assert waited["shared_s"] == waited["alone_s"] == dispatch["alone_s"]


def test_v3_exchanges_are_those_of_its_recipe() -> None:
    """4,096 tokens to 3.96 nodes and 7.49 ranks, in FP8 with scales forward and BF16 back."""
    rows = told()
    back = rows["combine(F)"]
    assert back["logical_bytes"] == pytest.approx(4096 * 3.96 * 14336, rel=0.01)
    assert back["wire_bytes"] == pytest.approx(back["logical_bytes"] * 7 / 8)
    assert back["nvlink_bytes"] == pytest.approx(4096 * 7.49 * 14336 * 7 / 8, rel=0.01)
    assert back["bound_s"] == pytest.approx(back["wire_bytes"] / LINKS.network)
    assert 0.5 < rows["dispatch(F)"]["wire_bytes"] / back["wire_bytes"] < 0.53


def test_what_limits_a_kernel_is_said() -> None:
    assert {row["limited_by"] for row in told().values()} == {"network", "NVLink"}
    few = told("comm.sms=4")
    binds = {name: few[name]["limited_by"] for name in EXCHANGES}
    assert binds.pop("dispatch(F)") == "post" and {*binds.values()} == {"post", "receive"}
    assert told("comm.sms=4", "comm.warps=fixed")["combine(F)"]["limited_by"] == "send"
    assert few["dispatch(F)"]["alone_s"] > 2 * few["dispatch(F)"]["bound_s"]


def test_on_one_node_nothing_is_on_the_wire() -> None:
    """Rows to the own GPU count as logical bytes and cross nothing; one stage has no messages."""
    rows = named(simulation.run(from_mapping(ONE_NODE), False).summary["communication"])
    assert set(rows) == {*EXCHANGES, "gradient reduce-scatter, dense", "parameter all-gather, dense"}
    for row in rows.values():
        assert row["wire_bytes"] == 0 and row["alone_s"] >= row["bound_s"] > 0
    exchange = rows["combine(F)"]
    assert exchange["nvlink_bytes"] == pytest.approx(exchange["logical_bytes"] * 7 / 8)


def test_the_dearest_message_and_rings_are_told() -> None:
    """Dense gradients of the first stage hold the embedding; a message that leaves the node fills a NIC."""
    rows = told()
    assert rows["gradient reduce-scatter, dense"]["where"] == "stage 0"
    assert rows["pipeline message"]["wire_bytes"] == rows["pipeline message"]["logical_bytes"] == 4096 * 7168 * 2
    dense = rows["parameter all-gather, dense"]
    assert dense["wire_bytes"] == pytest.approx(dense["nvlink_bytes"] / 8)


def test_chunk_times_communicate_nothing_known() -> None:
    assert (
        "communication"
        not in simulation.run(load(str(SCENARIOS / "zb_chunk_times.yaml"), ["outputs=[result]"]), False).summary
    )


def test_nccl_takes_messages_and_rings_where_it_is_asked() -> None:
    """With its way and SMs in the table, at most as fast as all of the links' bandwidth; exchanges stay as they are."""
    ring, nccl = told(), told("comm.collectives=nccl")
    assert [nccl[name] for name in EXCHANGES] == [ring[name] for name in EXCHANGES]
    assert not any("way" in row or "sms" in row for row in ring.values())
    for name in ("pipeline message", *RINGS):
        assert nccl[name]["alone_s"] >= nccl[name]["bound_s"] > 0 and nccl[name]["alone_s"] != ring[name]["alone_s"]
    dense, experts = (nccl[f"gradient reduce-scatter, {part}"] for part in ("dense", "experts"))
    assert (dense["way"], dense["sms"]) == ("NCCL: ring, Simple", 16) and experts["sms"] == 4
    assert nccl["pipeline message"]["way"] == "NCCL: direct, Simple"


def test_a_racks_rings_stay_on_nvlink() -> None:
    """What nodes of eight GPUs send over NICs, a rack of 64 passes over NVLink."""
    rack = {**ONE_NODE, "cluster": {"node": {"base": "gb200x72", "gpus": 64}, "nodes": 1}}
    nodes = {**ONE_NODE, "cluster": {"node": "b200x8", "nodes": 8}}
    inside, outside = (
        named(simulation.run(from_mapping(asked, ["comm.collectives=nccl"]), False).summary["communication"])[RINGS[0]]
        for asked in (rack, nodes)
    )
    assert inside["wire_bytes"] == 0 < outside["wire_bytes"] and inside["alone_s"] < outside["alone_s"]


def test_the_interval_carries_the_spread_of_nccl() -> None:
    """Nobody published reduce-scatters across domains: they are less sure than the closed forms say."""
    runs = [
        simulation.run(load(V3, [*QUICK, f"comm.collectives={name}"])).summary["tornado"] for name in ("ring", "nccl")
    ]
    ring, nccl = ({cause["cause"]: cause["spread"] for cause in causes} for causes in runs)
    for name in ("pipeline messages", "optimizer and its traffic"):
        assert (ring[name], nccl[name]) == (WIRE_SPREAD, FAR_SPREAD)


def test_nccl_is_refused_where_nobody_measured_it() -> None:
    with pytest.raises(Refused, match=r"comm.collectives=nccl: nobody measured NCCL on cdna3 .MI300X.; legal: ring"):
        load(V3, ["cluster.node=mi300xx8", "comm.collectives=nccl"])


def test_a_scenario_without_the_key_keeps_its_hash() -> None:
    ring, said = load(V3, QUICK), load(V3, [*QUICK, "comm.collectives=ring"])
    assert ring.scenario_hash == said.scenario_hash != load(V3, [*QUICK, "comm.collectives=nccl"]).scenario_hash
    assert "collectives" not in ring.resolved["comm"]
