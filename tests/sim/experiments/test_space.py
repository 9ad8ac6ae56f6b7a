"""Spaces: products that are never written out, and legal points without building the others."""

import itertools
import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.experiments.space import Census, Product, Space, axis, legal, neighbours
from sim.scenario import SCENARIOS, load
from sim.schedules.program import names
from tests.examples import examples

LITE = str(SCENARIOS / "v2_lite.yaml")


def test_a_million_points_take_no_room() -> None:
    """Neither the product nor going through its first points makes the others."""
    product = Product(tuple(axis(f"a{i}", list(range(100))) for i in range(4)))
    tracemalloc.start()
    assert len(product) == 10**8
    assert [p.title for p in itertools.islice(product, 2)] == ["a0=0, a1=0, a2=0, a3=0", "a0=0, a1=0, a2=0, a3=1"]
    assert product[10**8 - 1].overrides == ("a0=99", "a1=99", "a2=99", "a3=99") == product[-1].overrides
    for _ in itertools.islice(product, 10_000):
        pass
    assert tracemalloc.get_traced_memory()[1] < 500_000, "10,000 points that were kept are several MB"
    tracemalloc.stop()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_choices_are_those_of_a_product_in_its_order(sizes: list[int]) -> None:
    product = Product(tuple(axis(f"a{i}", list(range(size))) for i, size in enumerate(sizes)))
    assert [product.choice(i) for i in range(len(product))] == list(itertools.product(*map(range, sizes)))
    with pytest.raises(IndexError):
        product[len(product)]


AXES = {
    "cluster.nodes": [1, 2, 3, 4], "parallel.pipeline": [1, 2, 3, 4, 8, 16], "parallel.expert": [1, 2, 3, 4, 8, 16, 32],
    "parallel.tensor": [1, 2, 3, 4, 32], "batch.micro_batch": [1, 2, 3], "schedule": list(names()),
    "kernels": {"own": [], "library": ["stack=megatron"], "torch": ["stack=torch"]},
    "model": {"lite": [], "qwen": "model=qwen3_30b_a3b", "few": "model.layers=5"},
    "cluster.node": ["h800x8", "gb200x72"],
    "context": {"1": [], "2": "parallel.context=2"}, "sequence": {"as it is": [], "short": "batch.sequence_length=6"},
    "comm.sms": [20, 21],
}  # fmt: skip


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    chosen = draw(st.lists(st.sampled_from(sorted(AXES)), min_size=2, max_size=4, unique=True))
    axes = []
    for name in chosen:
        values = AXES[name]
        if isinstance(values, dict):
            axes.append(axis(name, values))
        else:
            axes.append(axis(name, draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))))
    return Space(LITE, Product(tuple(axes), ("batch.sequences=192", "cluster.nodes=2")))


def loads(space: Space, choice: tuple[int, ...]) -> bool:
    try:
        load(LITE, space.product.point(choice).overrides)
    except Refused:
        return False
    return True


@examples(60)
@given(spaces())
def test_rules_forbid_only_what_a_scenario_refuses(space: Space) -> None:
    """Every combination is counted once, as legal or at one rule; what a rule forbids does not load."""
    census = Census(len(space.product))
    kept = set(legal(space, census))
    everything = [space.product.choice(i) for i in range(len(space.product))]
    assert kept <= set(everything) and census.legal == len(kept)
    assert census.legal + sum(each.combinations for each in census.illegal.values()) == len(everything)
    for choice in everything:
        assert choice in kept or not loads(space, choice)


def test_rules_forbid_all_that_is_illegal_of_layouts() -> None:
    """With the axes of layouts alone, what is left loads."""
    chosen = ("cluster.nodes", "parallel.pipeline", "parallel.expert", "batch.micro_batch", "schedule")
    space = Space(LITE, Product(tuple(axis(name, AXES[name][:4]) for name in chosen), ("batch.sequences=192",)))  # type: ignore[index]
    census = Census(len(space.product))
    kept = list(legal(space, census))
    assert all(loads(space, choice) for choice in kept)
    assert 0 < census.legal < census.product == 4 * 4 * 4 * 3 * 4
    assert set(census.illegal) >= {"the schedule runs so many micro-batches", "GPUs divide over the ranks of a model"}


def test_a_branch_ends_where_its_rule_can_be_asked() -> None:
    """Experts that do not divide forbid all pipelines and schedules at once, in one question."""
    space = Space(LITE, Product((axis("schedule", list(names())), axis("parallel.pipeline", [1, 2, 4]),
                                 axis("parallel.expert", [7]))))  # fmt: skip
    census = Census(len(space.product))
    assert list(legal(space, census)) == []
    (forbidden,) = census.illegal.values()
    assert forbidden.combinations == math.prod((len(names()), 3, 1)) and forbidden.first == "parallel.expert=7"
    assert forbidden.why.startswith("model.experts 64 cannot be divided by parallel.expert 7; legal: 1, 2, 4")


def test_neighbours_share_programs_then_prices() -> None:
    product = Product((axis("schedule", ["1f1b", "zb1p"]), axis("comm.sms", [4, 8]), axis("parallel.pipeline", [1, 2])))
    order = sorted((product.choice(i) for i in range(8)), key=neighbours(product))
    assert [choice[::-1] for choice in order] == list(itertools.product(range(2), range(2), range(2)))
