"""Ledgers of ranks that differ, and gaps laid to bytes and barriers."""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import assembly
from sim.analysis import metrics
from sim.engine import arrays
from sim.engine.actor import Job, Sync
from sim.layout import plan
from sim.models.layer import COMMUNICATION, COMPUTE
from sim.scenario import Fault, from_mapping
from sim.step.template import STREAMS, Segment, Template
from tests.oracles.timelines import apart, own_wire, run

TINY = {
    "cluster": {"node": "h800x8", "nodes": 2},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 2, "expert": 4},
    "schedule": "dualpipe",
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
}
SCHEDULES = ("dualpipe", "zb1p", "1f1b", "gpipe", "interleaved")


@cache
def laid_out(*overrides):
    laid = plan.lay_out(from_mapping(TINY, overrides))
    return laid, assembly.machine(laid)


def books(*faults, overrides=()):
    laid, machine = laid_out(*overrides)
    found = run(laid, machine, *faults)
    return found.timeline, metrics.ledgers(found.lowered, found.timeline, machine.pricer)


# --- gaps, by hand ----------------------------------------------------------------------------------------------------


def exchange_between():
    """Compute, an exchange, compute."""
    segments = (
        Segment(COMPUTE, 0, 1, 0, (1,), "", 0), Segment(COMMUNICATION, 0, 1, 1, (2,), "expert", 0),
        Segment(COMPUTE, 1, 2, 1, (), "", 0),
    )  # fmt: skip
    ones = ((1, 1), (1,), (), ())
    return Template("F", 0, -1, segments, ((0, 2), (1,), (), ()), ones, ones, ones, ((), (), (), ()))


def inside(first, exchange, second):
    """Mean figures of one step of two ranks in one group."""
    template = exchange_between()
    table = [np.array(first), np.array(exchange), np.array(second)]
    return {name: ns / 2 for name, ns in of_both(template, table).items()}


def of_both(template, table):
    """Figures of one step of two ranks in one group, both together."""
    found = arrays.run([(Job(template),)], [Sync()], apart(2, 2), lambda p, k: lambda i, at: table[i], own_wire)
    return metrics._inside(template, found.positions[0].insides, found.columns.weight[None])


def test_alike_ranks_wait_for_bytes_only():
    assert inside([10, 10], [4, 4], [3, 3]) == {"compute": 13, "communication": 4, "exposed": 4, "peers": 0}


def test_the_early_rank_waits_for_its_peer_and_the_late_one_does_not():
    """Rank 0 idles 10 ns for rank 1 and 4 for bytes, rank 1 only for bytes: means 5 and 4."""
    assert inside([10, 20], [4, 4], [3, 3]) == {"compute": 18, "communication": 4, "exposed": 4, "peers": 5}


def test_more_bytes_are_not_laid_to_the_peer():
    assert inside([10, 10], [4, 8], [3, 3]) == {"compute": 13, "communication": 6, "exposed": 6, "peers": 0}


@given(*(st.tuples(st.integers(1, 50), st.integers(1, 50)) for _ in range(3)))
def test_a_chain_is_compute_bytes_and_peers(first, exchange, second):
    """Nothing of a step is left over or counted twice."""
    found = inside(first, exchange, second)
    length = np.mean([max(first) + exchange[r] + second[r] for r in (0, 1)])
    assert found["compute"] + found["exposed"] + found["peers"] == pytest.approx(length)
    assert found["peers"] == abs(first[0] - first[1]) / 2


def two_exchanges():
    """Compute, two exchanges back to back, compute that waits for the second."""
    segments = (
        Segment(COMPUTE, 0, 1, 0, (1,), "", 0), Segment(COMMUNICATION, 0, 1, 1, (), "expert", 0),
        Segment(COMMUNICATION, 1, 2, 0, (3,), "expert", 0), Segment(COMPUTE, 1, 2, 1, (), "", 0),
    )  # fmt: skip
    ones = ((1, 1), (1, 1), (), ())
    return Template("F+B", 0, 1, segments, ((0, 3), (1, 2), (), ()), ones, ones, ones, ((), (), (), ()))


def test_all_exchanges_in_a_gap_are_exposed():
    """10 ns compute, 4 and 6 ns of exchanges with nothing beside them: 10 exposed, as `sim.analysis.metrics` has it."""
    template = two_exchanges()
    table = [np.full(2, ns) for ns in (10, 4, 6, 3)]
    got = of_both(template, table)
    assert (got["exposed"], got["peers"]) == (20, 0), "of both ranks"


def in_every_gap(template, inside):
    """ns that exchanges run, and wait for peers, in gaps of compute: every gap beside every exchange."""
    starts, ends, ready = inside.starts, inside.ends, inside.starts.copy()
    ready[list(template.meetings)] = inside.ready
    compute, talk = list(template.order[0]), list(template.order[1])
    begins = np.vstack([np.zeros_like(starts[:1]), ends[compute]])[:, None]
    through = np.vstack([starts[compute], ends.max(axis=0)])[:, None]
    ran = np.minimum(ends[talk], through) - np.maximum(starts[talk], begins)
    waited = np.minimum(starts[talk], through) - np.maximum(ready[talk], begins)
    return [int(np.maximum(ns, 0).sum()) for ns in (ran, waited)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exchanges_are_looked_for_only_in_gaps_that_they_can_be_in(schedule):
    found = run(*laid_out(f"schedule={schedule}", "routing={kind: sampled, spread: 0.6}"), *some_faults())
    once = np.ones((1, found.timeline.columns.columns), dtype=np.int64)
    some = Counter()
    for kits, steps in zip(found.lowered.kits, found.timeline.positions, strict=True):
        for kit, inside in zip(kits, steps.insides, strict=True):
            got = metrics._inside(kit.parts, [inside], once)
            assert [got["exposed"], got["peers"]] == in_every_gap(kit.parts, inside)
            some.update(got)
            assert len(kit.parts.idle) < max(1, len(kit.parts.order[0]) * len(kit.parts.order[1]))
    assert some["exposed"] > 0 < some["peers"]


# --- ledgers ----------------------------------------------------------------------------------------------------------


def some_faults():
    return (
        Fault("gpu", 5, 1.3), Fault("node", 1, 1.1), Fault("link", 9, 1.5),
        Fault("link", 3, 20.0, 10**6, every_ns=10**6, lasts_ns=10**5), Fault("thermal", 8, 1.4, time_constant_ns=10**7),
    )  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("routing", ["balanced", "sampled"])
def test_time_is_conserved(schedule, routing):
    """Phases and bubble are the step, causes of idling the bubble, and what happens inside a step at most the step."""
    everyone, found = books(*some_faults(), overrides=(f"schedule={schedule}", f"routing={routing}"))
    for ledger in found:
        assert sum(ledger.phases.values()) == pytest.approx(everyone.end / 1e9, rel=1e-12)
        assert ledger.idle.total == pytest.approx(ledger.phases["bubble"])
        within = ledger.inside
        spent = within["compute"] + within["exposed"] + within["peers"]
        assert spent <= within["total"] * (1 + 1e-12)
        steps = sum(ledger.phases[name] for name in ("forward", "backward", "weight", "overlapped"))
        assert within["total"] == pytest.approx(steps)
        assert min(ledger.idle.fill, ledger.idle.activations, ledger.idle.gradients, ledger.idle.drain) >= 0
    assert sum(b.seconds for b in metrics.waterfall(found)) == pytest.approx(everyone.end / 1e9, rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_time_is_conserved_on_every_rank(schedule):
    """Not only in the mean: steps, gaps between them, the wait for the norm and the optimizer are the step."""
    everyone, found = books(*some_faults(), overrides=(f"schedule={schedule}", "routing=sampled"))
    for position, (starts, ends, *_) in enumerate(everyone.positions):
        gaps = starts - np.vstack([np.zeros_like(ends[:1]), ends[:-1]])
        update = everyone.update[position]
        wait = update[0] - ends[-1]
        assert (gaps >= 0).all() and (wait >= 0).all()
        total = (ends - starts).sum(0) + gaps.sum(0) + wait + (update[1] - update[0])
        assert (total == update[1]).all()
        bubble = (gaps.sum(0) + wait + everyone.end - update[1]).mean() / 1e9
        assert found[position].phases["bubble"] == pytest.approx(bubble)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_peers_wait_only_where_ranks_differ(schedule):
    chosen = (f"schedule={schedule}",)
    alike = books(Fault("gpu", 5, 1.0), overrides=chosen)[1]
    slow = books(Fault("gpu", 5, 1.3), overrides=chosen)[1]
    slower = books(Fault("gpu", 5, 1.6), overrides=chosen)[1]
    waits = [sum(b.inside["peers"] for b in found) for found in (alike, slow, slower)]
    assert waits[0] == 0 < waits[1] < waits[2]


def test_a_slow_rank_in_every_group_of_one_makes_no_peer_wait():
    """Expert groups of one: nobody to wait for inside a step."""
    found = books(Fault("gpu", 5, 1.5), overrides=("parallel.expert=1", "schedule=1f1b"))[1]
    assert [b.inside["peers"] for b in found] == [0, 0]


def test_streams_are_as_attribution_takes_them():
    """At layer detail nothing is left on the second weight-gradient stream, which ledgers here do not look at."""
    for schedule in SCHEDULES:
        for kit in run(*laid_out(f"schedule={schedule}")).lowered.known:
            assert not kit.parts.order[STREAMS[2]]
