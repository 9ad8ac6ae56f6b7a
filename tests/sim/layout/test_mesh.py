"""The mesh: ranks, positions, nodes and groups number each other; columns stand for what nothing tells apart."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.layout.mesh import Mesh, alike, one

SIZES = st.integers(1, 4)
MESHES = st.builds(
    lambda pipeline, data, expert, context, tensor, gpus, part, order: Mesh(
        pipeline, data * expert * context * tensor * part, expert, context, tensor, gpus, part, "-".join(order)
    ),
    SIZES, SIZES, SIZES, st.integers(1, 2), st.integers(1, 2), SIZES, st.integers(1, 2),
    st.permutations(["tp", "cp", "ep", "dp"]).map(lambda order: [*order, "pp"]),
)  # fmt: skip
KINDS = st.integers(1, 4).flatmap(
    lambda group: st.tuples(
        st.integers(1, 5).flatmap(lambda n: st.lists(st.integers(0, 2), min_size=n * group, max_size=n * group)),
        st.just(group),
    )
)
"""(kind of each replica, expert group)."""
GROUPS = ("expert", "context", "tensor", "data", "expert_data", "expert_tensor")


# --- numbers ----------------------------------------------------------------------------------------------------------


@given(MESHES)
def test_ranks_and_places_are_each_other(mesh: Mesh) -> None:
    places = [mesh.place(rank) for rank in range(mesh.ranks)]
    assert places == [(p, d) for p in range(mesh.pipeline) for d in range(mesh.replicas)]
    assert [mesh.rank(*place) for place in places] == list(range(mesh.ranks))
    assert [rank for p in range(mesh.pipeline) for rank in mesh.of_position(p).tolist()] == list(range(mesh.ranks))
    assert all(np.prod(list(axes.values())) == mesh.replicas for axes in mesh.axes)


@given(MESHES)
def test_nodes_hold_neighbours(mesh: Mesh) -> None:
    for rank in range(mesh.ranks):
        assert rank in mesh.on_node(mesh.node(rank))
    assert len(mesh.on_node(3)) == mesh.gpus_per_node
    assert mesh.on_node(0).stop == mesh.on_node(1).start


@pytest.mark.parametrize("kind", GROUPS)
@given(mesh=MESHES)
def test_every_replica_is_in_one_group_of_each_kind(kind: str, mesh: Mesh) -> None:
    groups = mesh.groups(kind)
    assert sorted(groups.ravel().tolist()) == list(range(mesh.replicas))
    if kind not in ("data", "expert_data"):
        assert groups.shape[1] == getattr(mesh, kind)
        member = mesh.member(kind).tolist()
        for group in groups.tolist():
            assert all(list(mesh.group(kind, replica)) == group for replica in group)
            assert [member[replica] for replica in group] == list(range(len(group)))


@given(MESHES)
def test_those_that_hold_the_same_experts_are_one_of_each_expert_group(mesh: Mesh) -> None:
    experts, parts = mesh.member("expert"), mesh.member("expert_tensor")
    for group in mesh.groups("expert_data").tolist():
        assert len({(int(experts[replica]), int(parts[replica])) for replica in group}) == 1
        assert len({mesh.group("expert", replica) for replica in group}) == len(group)
    assert mesh.groups("expert_data").shape == (mesh.expert * mesh.expert_tensor, mesh.axes[1]["expert_shard"])


@given(MESHES)
def test_those_that_hold_the_same_part_of_all_else_are_one_of_each_tensor_group(mesh: Mesh) -> None:
    parts = mesh.member("tensor")
    assert mesh.groups("data").shape == (mesh.tensor, mesh.data * mesh.context)
    for group in mesh.groups("data").tolist():
        assert len({int(parts[replica]) for replica in group}) == 1


@pytest.mark.parametrize("order", ["tp-cp-ep-pp-dp", "tp-pp-cp-dp-ep", "pp-tp-cp-ep-dp"])
def test_a_pipeline_may_stand_between_other_axes(order: str) -> None:
    """By hand: 2 positions, 2 x 2 ranks of a copy, 2 copies, on nodes of 4."""
    mesh = Mesh(2, 8, 1, 2, 2, 4, order=order)
    inner = {"tp-cp-ep-pp-dp": 4, "tp-pp-cp-dp-ep": 2, "pp-tp-cp-ep-dp": 1}[order]
    assert mesh.inner == inner
    assert [mesh.rank(1, replica) - mesh.rank(0, replica) for replica in range(8)] == [inner] * 8
    assert [mesh.rank(*mesh.place(rank)) for rank in range(16)] == list(range(16))
    assert mesh.of_position(1).tolist() == [mesh.rank(1, replica) for replica in range(8)]
    assert mesh.nodes_of("tensor") == 1 and mesh.nodes_of("data") == (4 if inner < 4 else 2)


def test_groups_of_megatrons_usual_order_by_hand() -> None:
    """TP2 CP2 EP2 ETP1 over 16 GPUs: tensor groups are neighbours, data groups two context groups apart."""
    mesh = Mesh(1, 16, expert=4, context=2, tensor=2, gpus_per_node=8)
    assert mesh.groups("tensor")[1].tolist() == [2, 3] and mesh.groups("context")[1].tolist() == [1, 3]
    assert mesh.groups("data")[0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert mesh.groups("expert")[1].tolist() == [4, 5, 6, 7] and mesh.groups("expert_data")[1].tolist() == [1, 5, 9, 13]
    assert (mesh.data, mesh.nodes_of("data"), mesh.nodes_of("expert_data")) == (4, 2, 2)


def test_shards_are_neighbours_and_replicas_lie_behind_them() -> None:
    """16 data-parallel ranks, 8 of which share a copy; the experts of groups of 4 are shared by two of them."""
    mesh = Mesh(1, 16, 4, gpus_per_node=8, shard=8)
    assert mesh.groups("shard").tolist() == [list(range(8)), list(range(8, 16))]
    assert mesh.groups("replica").tolist() == [[rank, rank + 8] for rank in range(8)]
    assert mesh.groups("expert_shard").tolist() == [[r, r + 4] for first in (0, 8) for r in range(first, first + 4)]
    assert mesh.groups("expert_replica").tolist() == [[rank, rank + 8] for rank in range(8)]
    assert mesh.nodes_of("shard") == 1 and mesh.nodes_of("replica") == 2


@given(MESHES, st.integers(1, 4))
def test_shards_and_replicas_make_up_data_parallelism(mesh: Mesh, replicas: int) -> None:
    if mesh.data % replicas or mesh.groups("expert_data").shape[1] % replicas:
        return
    sharded = replace(mesh, shard=mesh.data // replicas)
    for everyone, shard, replica in (("data", "shard", "replica"), ("expert_data", "expert_shard", "expert_replica")):
        assert (sharded.groups(everyone) == mesh.groups(everyone)).all()
        whole = [set(group) for group in mesh.groups(everyone).tolist()]
        assert sharded.groups(replica).shape[1] == replicas
        assert sharded.groups(shard).shape[1] * replicas == len(whole[0])
        for kind in (shard, replica):
            assert all(any(set(group) <= of for of in whole) for group in sharded.groups(kind).tolist())


def test_v3_by_hand() -> None:
    """16 positions of 128 replicas in groups of 64 on nodes of 8."""
    mesh = Mesh(16, 128, 64, gpus_per_node=8)
    assert mesh.ranks == 2048 and mesh.axes[1] == {
        "expert_replica": 1,
        "expert_shard": 2,
        "expert": 64,
        "expert_tensor": 1,
    }
    assert mesh.place(1000) == (7, 104) and mesh.rank(7, 104) == 1000 and mesh.node(1000) == 125
    assert mesh.group("expert", 104) == tuple(range(64, 128)) and mesh.nodes_of("expert") == 8
    assert mesh.groups("expert_data")[40].tolist() == [40, 104]


def test_a_group_is_no_larger_than_the_replicas() -> None:
    mesh = Mesh(4, 2, 8, gpus_per_node=4)
    assert mesh.groups("expert").tolist() == [[0, 1]] and mesh.group("expert", 1) == (0, 1)
    assert mesh.columns().together.sizes.tolist() == [2]


def neighbours(kinds: list[int], group: int) -> tuple[list[int], bool]:
    """Number of the expert group of each replica where groups are neighbours; whether they meet."""
    return [replica // group for replica in range(len(kinds))], group > 1


# --- columns ----------------------------------------------------------------------------------------------------------


@given(KINDS)
def test_columns_are_replicas_alike_in_one_group(given_: tuple[list[int], int]) -> None:
    """Two share a column exactly where kind and group are the same; weights count all replicas."""
    kinds, group = given_
    columns = alike(kinds, *neighbours(kinds, group))
    of = columns.of.tolist()
    for one_, kind in enumerate(kinds):
        for two in range(one_):
            same = kind == kinds[two] and one_ // group == two // group
            assert (of[one_] == of[two]) == same
    assert columns.weight.sum() == len(kinds) and columns.weight.tolist() == [of.count(c) for c in sorted(set(of))]
    assert [of[d] for d in columns.first.tolist()] == list(range(columns.columns))
    assert columns.first.tolist() == [of.index(c) for c in range(columns.columns)]


@given(KINDS)
def test_columns_of_a_group_meet(given_: tuple[list[int], int]) -> None:
    """A column stands for members that meet the same kinds as often as they do; groups of columns are neighbours."""
    kinds, group = given_
    columns = alike(kinds, *neighbours(kinds, group))
    for number in range(len(kinds) // group):
        part = columns.group(number)
        mates = Counter()
        for column in range(part.start, part.stop):
            mates_of = columns.mates(column, "expert").tolist()
            assert mates_of == list(range(part.start, part.stop)) if group > 1 else mates_of == [column]
            assert columns.first[column] // group == number
            mates[kinds[columns.first[column]]] += int(columns.weight[column])
        assert mates == Counter(kinds[number * group : (number + 1) * group])
    assert columns.together.sizes.sum() == columns.columns


@given(KINDS, st.randoms(use_true_random=False))
def test_the_last_of_a_group_is_the_last_of_its_replicas(given_: tuple[list[int], int], random: object) -> None:
    kinds, group = given_
    columns = alike(kinds, *neighbours(kinds, group))
    times = np.array([random.randrange(100) for _ in range(columns.columns)])  # type: ignore[attr-defined]
    everybody = times[columns.of].reshape(-1, group)
    expected = everybody.max(axis=1).repeat(group)[columns.first] if group > 1 else times
    assert columns.latest(times, "expert").tolist() == expected.tolist()
    rows = np.stack([times, times[::-1]])
    assert columns.latest(rows, "expert")[0].tolist() == expected.tolist()


@given(KINDS)
def test_a_copy_of_the_cluster_has_the_same_columns_again(given_: tuple[list[int], int]) -> None:
    kinds, group = given_
    once, twice = alike(kinds, *neighbours(kinds, group)), alike(kinds * 2, *neighbours(kinds * 2, group))
    assert twice.columns == 2 * once.columns and twice.of[: len(kinds)].tolist() == once.of.tolist()
    assert twice.weight.tolist() == once.weight.tolist() * 2


@given(MESHES)
def test_a_mesh_without_kinds_has_a_column_for_each_replica(mesh: Mesh) -> None:
    columns = mesh.columns()
    assert columns.of[columns.first].tolist() == list(range(mesh.replicas)) == sorted(columns.first.tolist())
    assert columns.weight.tolist() == [1] * mesh.replicas
    blocks = [set(columns.first[columns.group(n)].tolist()) for n in range(len(columns.together.first))]
    for kind in ("expert", "tensor", "context", "expert_tensor"):
        assert (kind in columns.groups) == (mesh.groups(kind).shape[1] > 1)
        for group in mesh.groups(kind).tolist():
            assert sum(set(group) <= block for block in blocks) == 1  # who meets is together
            mates = columns.mates(int(columns.of[group[0]]), kind)
            assert sorted(columns.first[mates].tolist()) == sorted(group)
            times = np.arange(mesh.replicas)[columns.first]
            assert set(columns.latest(times, kind)[columns.of[group]].tolist()) == {max(group)}


def test_a_slow_member_splits_its_group_only() -> None:
    columns = Mesh(1, 12, 4).columns([0, 0, 0, 1, *[0] * 8])
    assert columns.of.tolist() == [0, 0, 0, 1, *[2] * 4, *[3] * 4]
    assert columns.weight.tolist() == [3, 1, 4, 4] and columns.together.sizes.tolist() == [2, 1, 1]


def test_one_column_stands_for_all_and_meets_nobody() -> None:
    columns = one()
    times = np.array([7])
    assert columns.columns == 1 and columns.latest(times, "expert") is times and not columns.groups
