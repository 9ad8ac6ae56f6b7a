"""Expert loads of a scenario: shapes, seeds, pairing, what redundant experts do to them."""

from functools import cache

import pytest

from sim import assembly
from sim.layout import plan
from sim.routing.imbalance import loads_of
from sim.scenario import from_mapping

TINY = {
    "cluster": {"node": "h800x8", "nodes": 2},
    "model": {"base": "deepseek_v2_lite", "layers": 6, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 2, "expert": 4},
    "schedule": "1f1b",
    "batch": {"micro_batches": 6, "sequence_length": 1024},
    "placement": "even",
}


@cache
def drawn(*overrides):
    laid = plan.lay_out(from_mapping(TINY, overrides))
    machine = assembly.machine(laid)
    return laid, machine, loads_of(laid, machine)


def same(one, two):
    return all((a == b).all() for a, b in zip(one, two, strict=True))


def test_balanced_routing_draws_nothing():
    assert drawn()[2] is None


def test_a_row_for_every_layer_micro_batch_and_replica():
    """5 layers with experts and the prediction module's; 16 GPUs in 2 positions."""
    laid, _, found = drawn("routing=sampled")
    assert found.rows.shape == found.received.shape == (5 + 1, 6, laid.data) == (6, 6, 8)
    assert (found.rows % 128 == 0).all() and (found.rows > 0).all()


@pytest.mark.parametrize("routing", ["sampled", "{kind: sampled, spread: 0}", "{kind: skewed, max_vio: 1}"])
def test_choices_are_conserved(routing):
    """A group's ranks work on all choices of its tokens: 4 x 1,024 x 6, and half a tile of padding an expert."""
    _, machine, found = drawn(f"routing={routing}")
    shape = machine.site.shape
    per_group = found.rows.reshape(6, 6, 2, 4).sum(3)
    choices = 4 * 1024 * shape.experts_per_token
    assert (per_group >= choices - shape.experts).all()
    assert (per_group <= choices + 128 * shape.experts).all()
    assert per_group.mean() == pytest.approx(choices + 64 * shape.experts, rel=0.01)


def test_routing_without_spread_is_as_expected_on_average():
    _, machine, found = drawn("routing={kind: sampled, spread: 0}")
    assert found.rows.mean() == pytest.approx(machine.site.rows, rel=0.01)
    assert found.received.mean() == pytest.approx(machine.site.received, rel=0.01)


def test_a_token_comes_to_a_rank_once():
    """Received tokens are at most those of the group, and at most one a row."""
    _, _, found = drawn("routing=sampled")
    assert (found.received <= found.rows).all() and (found.received <= 4 * 1024).all()


def test_more_spread_is_more_uneven():
    widths = [drawn(f"routing={{kind: sampled, spread: {s}}}")[2].rows.std() for s in (0.0, 0.1, 0.2, 0.4)]
    assert widths == sorted(widths) and widths[-1] > 2 * widths[0]


# --- keyed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["schedule=zb1p", "schedule=dualpipe", "comm.sms=12", "pricing=roofline",
                                    "cluster.node.nic.bandwidth=100GB/s", "precision=bf16"])  # fmt: skip
def test_a_what_if_has_the_same_loads(change):
    """Paired: nothing that does not route tokens changes where they go."""
    assert same(drawn("routing=sampled")[2], drawn("routing=sampled", change)[2])


def test_another_seed_has_others():
    one, two = (drawn("routing=sampled", f"seed={s}")[2] for s in (0, 1))
    assert (one.rows != two.rows).mean() > 0.5


def test_more_micro_batches_change_none_before():
    few, many = (drawn("routing=sampled", f"batch.micro_batches={n}")[2] for n in (6, 9))
    assert (many.rows[:, :6] == few.rows).all() and (many.received[:, :6] == few.received).all()


def test_more_groups_change_none_before():
    """Twice the cluster: the first expert groups are as they were."""
    small, large = (drawn("routing=sampled", f"cluster.nodes={n}")[2] for n in (2, 4))
    assert (large.rows[..., :8] == small.rows).all()


def test_groups_and_layers_differ():
    rows = drawn("routing=sampled")[2].rows
    assert (rows[..., :4] != rows[..., 4:]).mean() > 0.5
    assert (rows[0] != rows[1]).mean() > 0.5


# --- redundant experts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_redundant_experts_even_the_loads_out(seed):
    """Copies of the popular ones, placed by EPLB: the worst rank of a layer has less above the mean."""

    def worst(redundant):
        chosen = f"routing={{kind: sampled, spread: 0.4, redundant_experts: {redundant}}}"
        received = drawn(chosen, f"seed={seed}")[2].rows.mean(1).reshape(6, 2, 4)
        return float((received.max(2) / received.mean(2)).mean())

    without, some, many = worst(0), worst(8), worst(32)
    assert without > 1.05 and some < 1 + (without - 1) / 2 and many < 1 + (without - 1) / 2


def test_copies_under_balanced_routing_are_drawn_too():
    """All experts alike: some have copies and half the tokens, so ranks differ a little."""
    _, machine, found = drawn("routing={kind: balanced, redundant_experts: 8}")
    assert found is not None
    assert found.rows.mean() == pytest.approx(machine.site.rows, rel=0.02)
