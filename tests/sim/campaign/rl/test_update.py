"""Updates: packing, log-probabilities, weights."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.collectives import wires
from hwmodels.nccl.library import Library
from hwmodels.op import Collective
from sim.campaign.rl import hosts, lengths, rows, update, weights
from sim.campaign.rl.answer import run
from sim.campaign.rl.values import RESHARD
from sim.serving.deployment import deployed
from tests.sim.campaign.rl.learnings import learning


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=60))
def test_packing_keeps_all_and_is_near_its_bound(pieces: list[int]) -> None:
    filled = lengths.packed(pieces, 100)
    assert sum(filled) == sum(pieces) and max(filled) <= 100
    bound = -(-sum(pieces) // 100)
    assert bound <= len(filled) <= 2 * bound  # no two are half empty
    assert len(filled) < 2 or sum(sorted(filled)[:2]) > 100


def test_pieces_that_fit_exactly_are_packed_exactly() -> None:
    assert lengths.packed([60, 40, 30, 70, 50, 50], 100) == [100, 100, 100]


def test_attention_stays_inside_pieces_like_these() -> None:
    assert lengths.alike(np.array([256, 256]), 1024) == 256
    assert lengths.alike(np.array([1000]), 1024) == 1024
    assert lengths.alike(np.array([100, 500]), 1024) == 512  # the mean by tokens is 433


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=6), st.integers(1, 9), st.floats(0, 1))
def test_passes_go_through_positions_one_after_another(
    forward: list[float], micro_batches: int, message: float
) -> None:
    """A flow shop, micro-batch by micro-batch."""
    free = [0.0] * len(forward)
    for _ in range(micro_batches):
        at = 0.0
        for position, takes in enumerate(forward):
            at = max(at, free[position]) + takes
            free[position] = at
            at += message
    assert update.passed_s(forward, micro_batches, message) == pytest.approx(free[-1])


def test_packed_updates_have_less_to_do_than_padded_ones() -> None:
    tokens = np.array([100, 400, 150, 50] * 8)
    (packed,), (padded,) = (update.batches(learning(packed=each), tokens) for each in (True, False))
    assert packed.sequences < padded.sequences and packed.padding < padded.padding
    assert padded.length == 512 and padded.sequences == 32 and packed.tokens == padded.tokens == tokens.sum() + 32 * 50
    assert update.step(learning(), packed).seconds < update.step(learning(), padded).seconds


def test_updates_share_the_answers_evenly() -> None:
    tokens = np.arange(1, 33)
    parts = update.batches(learning(updates=4), tokens)
    assert len(parts) == 4 and sum(each.tokens for each in parts) == tokens.sum() + 32 * 50


def test_log_probabilities_are_a_forward_pass_of_the_update() -> None:
    own = learning()
    batch = update.batches(own, np.full(32, 200))[0]
    made = update.step(own, batch)
    takes = update.log_probs_s(own, batch)
    assert max(made.forward_s) * made.micro_batches < takes < made.seconds
    more = replace(batch, sequences=2 * batch.sequences)
    assert takes < update.log_probs_s(own, more) < 2 * takes  # the pipeline fills once


def test_weights_by_their_own_way_and_as_measured() -> None:
    own = learning(rollout__nodes=1, rollout__tensor=4)
    links = wires(own.cluster.node, own.cluster.fabric)
    gathered, resharded, measured = (
        weights.sync_s(replace(own, sync=sync), links)
        for sync in (own.sync, replace(own.sync, method=RESHARD), replace(own.sync, takes_s=7.0))
    )
    size = weights.size(own)
    assert measured == 7.0 and 0 < resharded < gathered and size.experts < size.total
    assert resharded >= size.total / 4 / links.network * 0.9  # a quarter of it over one GPU's NICs
    assert gathered >= size.total / (links.network * 8)  # all of it over all NICs of a node


def test_states_go_to_the_host_only_where_rollouts_need_the_room() -> None:
    together, apart, kept = (
        weights.moved(each) for each in (learning(), learning(rollout__nodes=1), learning(offload=False))
    )
    assert together.away_s == together.back_s > 0 and together.places_s > 2.5 * hosts.TIDIED
    assert apart.away_s == kept.away_s == apart.back_s == kept.places_s == apart.places_s == 0


def test_memory_that_is_not_page_locked_takes_what_was_measured() -> None:
    pinned, not_pinned = (weights.moved(learning(pinned=each)) for each in (True, False))
    rate = wires(learning().cluster.node, learning().cluster.fabric).pcie.effective
    assert not_pinned.away_s / pinned.away_s == pytest.approx(rate / (hosts.PAGEABLE_AWAY * 0.76))
    assert not_pinned.back_s / pinned.back_s == pytest.approx(rate / (hosts.PAGEABLE_BACK * 0.61) + rate / 10.2e9)
    assert hosts.pageable(1) == pytest.approx((1.41e9, 1 / (1 / 16.1e9 + 1 / 21.7e9)))
    assert hosts.pageable(72) == hosts.pageable(8)
    assert all(more <= less for more, less in zip(hosts.pageable(4), hosts.pageable(2), strict=True))


def test_rollouts_weights_that_sleep_go_to_the_host_once_and_come_back() -> None:
    dropped, kept = (learning(rollout__sleep=each) for each in ("drop", "keep"))
    own = deployed(kept.serve, kept.serve.pools[0]).weight_bytes
    rate = wires(kept.cluster.node, kept.cluster.fabric).pcie.effective
    assert weights.moved(kept).places_s - weights.moved(dropped).places_s == pytest.approx(own / rate)


def test_tensors_are_gathered_one_by_one_and_put_in_place_by_hosts() -> None:
    own = learning()
    whole, links = weights.size(own), wires(own.cluster.node, own.cluster.fabric)
    assert whole.each == 64 and whole.routed == 26 and whole.tensors > 3 * 64 * 26  # DeepSeek-V2-Lite
    assert weights.sync_s(own, links) >= hosts.received_s(whole.tensors, 64) > whole.tensors * hosts.TENSOR
    assert hosts.received_s(10, 0) == pytest.approx(10 * hosts.TENSOR)


def test_logits_take_passes_of_their_own_at_the_last_position() -> None:
    """40 bytes more forward than the loss of TransformerEngine and 18 backward, of an H100's 3.35 TB/s; ten
    micro-batches wait for a last position that is the slowest, and for none that is not."""
    scenario = rows.learning(rows.content()["rows"][0]).scenario
    elements = 1536 * 129280
    assert update.logits_s(scenario) == pytest.approx((40 * elements / 3.35e12, 18 * elements / 3.35e12))
    made = update.Step(1.0, (0.02, 0.03), 10, 0.1, 0, 1, ())
    slow, quick = (update.with_logits(replace(made, forward_s=(first, 0.03)), 0.004, 0.002) for first in (0.02, 0.05))
    assert slow.seconds == pytest.approx(1.06) and slow.forward_s == (0.02, 0.034)
    assert quick.seconds == 1.0 and quick.forward_s == (0.05, 0.034)


def test_a_broadcast_adds_to_what_gathers() -> None:
    """DeepSeek-V3 from 256 GPUs to 256 others: both pass the NICs of those that train."""
    row = next(row for row in rows.content()["rows"] if row["id"] == "RL-NR-V3-512A")
    own = rows.learning(row)
    links, whole = wires(own.cluster.node, own.cluster.fabric), weights.size(own)
    gathered = weights.sync_s(replace(own, apart=False), links) - whole.tensors * 17e-6  # of turns on the same GPUs
    broadcast = Library("hopper").take(Collective("all_gather", whole.total, 512, 64), links).seconds
    assert gathered > hosts.received_s(whole.tensors, whole.each)
    assert weights.sync_s(own, links) == pytest.approx(gathered + broadcast)


def test_larger_micro_batches_of_log_probabilities_are_fewer_and_longer() -> None:
    """Of two positions: the last position waits for one whole micro-batch, which has four times as many tokens."""
    one, four = learning(), learning(log_prob_batch=4)
    batch = replace(update.batches(one, np.full(32, 200))[0], sequences=256)
    small, large = (update.log_probs_s(each, batch) for each in (one, four))
    assert update.step(one, batch).micro_batches == 64 and large < small  # less is launched
    assert large > small / 4


def test_a_reference_changes_places_on_the_host_alone() -> None:
    times = [
        weights.moved(learning(**each)).reference_s for each in ({"kl": 0.1}, {}, {"kl": 0.1, "reference": "device"})
    ]
    assert times[0] > 0 == times[1] == times[2]


def test_batches_are_packed_for_every_worker_or_once_for_all_that_get_the_same() -> None:
    """32 answers in four parts to eight GPUs; 16 bytes of a token, and before an update 4 more for each figure."""
    tokens = np.full(32, 200)
    assert update.sent_s(learning(), tokens) == (0.0, 0.0)
    forward, whole = update.sent_s(learning(send="each", kl=0.1), tokens)
    part = 8 * 250
    assert forward == pytest.approx(8 * (0.1e-3 + 0.3e-3 + part * 16 / 0.55e9))
    assert whole == pytest.approx(8 * (0.1e-3 + 0.3e-3 + part * 32 / 0.55e9))
    assert update.sent_s(learning(send="each"), tokens)[1] == pytest.approx(8 * (0.4e-3 + part * 28 / 0.55e9))
    shared, _ = update.sent_s(learning(send="shared", kl=0.1), tokens)
    assert shared == pytest.approx(8 * 0.1e-3 + 4 * (0.3e-3 + part * 16 / 0.55e9))
    longer, _ = update.sent_s(learning(send="each"), np.array([*[200] * 31, 400]))  # all are padded to the longest
    assert longer == pytest.approx(8 * (0.4e-3 + 8 * 450 * 16 / 0.55e9))


def test_what_is_sent_grows_with_copies_of_a_part_not_with_parts() -> None:
    """Twice the GPUs in twice the parts get as many bytes; NeMo-RL's rows of 128 and 256 GPUs."""
    few, many = (
        rows.learning(row) for row in rows.content()["rows"] if row["id"] in ("RL-NR-Q235-128", "RL-NR-Q235-256")
    )
    one, two = (update.sent_s(each, np.full(512, 8_000))[1] for each in (few, many))
    assert 0.1e-3 * 128 < two - one < 0.05 * one


def test_before_each_pass_its_batch_is_sent() -> None:
    def sent(**changes: object) -> tuple[float, float]:
        parts = run(learning(**{"send": "each", **changes})).summary["rl"]["parts_s"]
        return parts["sent_log_probs"], parts["sent_update"]

    old, both, neither = sent(), sent(kl=0.1), sent(old_log_probs=False)
    assert both[0] == pytest.approx(2 * old[0]) and neither[0] == 0.0 < neither[1] < old[1] < both[1]
    assert sent(send=None) == (0.0, 0.0)
