"""Colour refinement on graphs whose classes are known by hand."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from sim.fold import classes


def ring(count: int) -> list[list[int]]:
    return [[(i - 1) % count, (i + 1) % count] for i in range(count)]


def line(count: int) -> list[list[int]]:
    """Neighbours, nearest the end first, so that mirrored ranks list theirs alike."""
    near = [[j for j in (i - 1, i + 1) if 0 <= j < count] for i in range(count)]
    return [sorted(p, key=lambda j: min(j, count - 1 - j)) for p in near]


def test_a_ring_of_equals_is_one_class() -> None:
    assert classes([0] * 12, ring(12), []) == [0] * 12


def test_a_line_folds_at_its_mirror() -> None:
    assert classes([0] * 8, line(8), []) == [0, 1, 2, 3, 3, 2, 1, 0]
    assert classes([0] * 7, line(7), []) == [0, 1, 2, 3, 2, 1, 0]


def test_one_odd_rank_breaks_the_mirror() -> None:
    own = [0] * 8
    own[6] = 1
    assert len(set(classes(own, line(8), []))) == 8


def test_one_odd_rank_in_a_one_way_ring_tells_all_apart() -> None:
    own: list[int] = [1, *[0] * 5]
    assert len(set(classes(own, [[(i + 1) % 6] for i in range(6)], []))) == 6


def test_strangers_with_equal_programs_are_alike() -> None:
    assert classes(["a", "b", "a", "b"], [[]] * 4, []) == [0, 1, 0, 1]


def test_classes_are_numbered_by_their_first_member() -> None:
    assert classes(["z", "y", "z", "x"], [[]] * 4, []) == [0, 1, 0, 2]


def test_peers_count_in_the_order_the_program_names_them() -> None:
    own = ["a", "b", "p", "p", "p"]
    assert classes(own, [[], [], [0, 1], [1, 0], [0, 1]], []) == [0, 1, 2, 3, 2]


def test_groups_are_multisets() -> None:
    """Order inside a group does not matter, how many of a kind are in it does."""
    own = ["a", "b", "b", "a", "a", "a"]
    assert classes(own, [[]] * 6, [[0, 1], [2, 3], [4, 5]]) == [0, 1, 1, 0, 2, 2]
    own = ["a", "a", "b", "a", "b", "b"]
    assert classes(own, [[]] * 6, [[0, 1, 2], [3, 4, 5]]) == [0, 0, 1, 2, 3, 3]


def test_a_slow_member_marks_its_whole_group() -> None:
    own = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    found = classes(own, [[]] * 12, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    assert found == [0, 0, 0, 1, *[2] * 8]


def test_a_difference_travels_from_group_to_group() -> None:
    """Pipeline peers carry it on: positions of the other replica are all told apart from this one's."""
    own = [0, 0, 1, 0, 0, 0]  # two replicas (even, odd) of three positions; one rank is odd
    peers = [[2], [3], [0, 4], [1, 5], [2], [3]]
    found = classes(own, peers, [])
    assert {found[i] for i in (0, 2, 4)}.isdisjoint({found[i] for i in (1, 3, 5)})


def test_nobody() -> None:
    assert classes([], [], []) == []


Graph = tuple[list[int], list[list[int]], list[list[int]]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 10))
    rank = st.integers(0, count - 1)
    own = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    peers = draw(st.lists(st.lists(rank, max_size=2), min_size=count, max_size=count))
    return own, peers, draw(st.lists(st.lists(rank, unique=True, min_size=1), max_size=3))


def view(rank: int, graph: Graph, colours: Sequence[int]) -> object:
    own, peers, groups = graph
    crowds = Counter(tuple(sorted(colours[r] for r in group)) for group in groups if rank in group)
    return own[rank], [colours[p] for p in peers[rank]], crowds


@given(graphs())
def test_alike_ranks_see_alike(graph: Graph) -> None:
    colours = classes(*graph)
    for one in range(len(colours)):
        for two in range(one):
            same = view(one, graph, colours) == view(two, graph, colours)
            assert same or colours[one] != colours[two]


@given(graphs())
def test_a_copy_of_the_cluster_folds_onto_the_first(graph: Graph) -> None:
    own, peers, groups = graph
    size = len(own)

    def shift(rows: list[list[int]]) -> list[list[int]]:
        return [[r + size for r in row] for row in rows]

    once, twice = classes(*graph), classes(own * 2, peers + shift(peers), groups + shift(groups))
    assert twice == once * 2


@given(graphs(), st.randoms(use_true_random=False))
def test_classes_do_not_depend_on_numbering(graph: Graph, random: object) -> None:
    own, peers, groups = graph
    place = list(range(len(own)))
    random.shuffle(place)  # type: ignore[attr-defined]
    back = sorted(range(len(own)), key=place.__getitem__)
    moved = classes(
        [own[r] for r in back], [[place[p] for p in peers[r]] for r in back], [[place[r] for r in g] for g in groups]
    )
    here = classes(*graph)
    pairs = {(here[r], moved[place[r]]) for r in range(len(own))}
    assert len(pairs) == len(set(here)) == len(set(moved))
