"""What two programs of a pair wait for, as a model: their loaders and consumers in any order, barriers as counters.

The kernel's own code cannot run here (DECISIONS 226 says the same of the ordered backward): a change of the order of
waits in `wgmma._load`, `wgmma_sums` or `cluster.rewritten` must be made here too.
"""

import random
from collections.abc import Callable, Iterator

import pytest

STAGES, CONSUMERS, BLOCKS = 3, 2, 17


class Barrier:
    """Phases of a barrier that counts arrivals, and bytes that may come before they are expected."""

    def __init__(self, count: int) -> None:
        self.count, self.left, self.owed, self.phase = count, count, 0, 0

    def arrive(self, owed: int = 0) -> None:
        self.left, self.owed = self.left - 1, self.owed + owed
        self._turn()

    def complete(self) -> None:
        self.owed -= 1
        self._turn()

    def _turn(self) -> None:
        assert self.left >= 0
        if not self.left and not self.owed:
            self.left, self.phase = self.count, self.phase + 1

    def passed(self, parity: int) -> bool:
        return self.phase % 2 != parity


class Pair:
    """Two blocks: slots hold (block of K, halves of a that have come), and who still reads them."""

    def __init__(self, others: bool = True, drain: bool = True) -> None:
        self.others, self.drain, self.alive = others, drain, [True, True]
        self.full = [[Barrier(1) for _ in range(STAGES)] for _ in range(2)]
        count = CONSUMERS * (2 if others else 1)
        self.empty = [[Barrier(count) for _ in range(STAGES)] for _ in range(2)]
        self.held: list[list[dict[int, int]]] = [[{} for _ in range(STAGES)] for _ in range(2)]
        self.seen: list[list[int]] = [[], []]

    def load(self, me: int) -> Iterator[Callable[[], bool]]:
        for block in range(BLOCKS):
            slot, parity = block % STAGES, block // STAGES % 2 ^ 1
            yield lambda s=slot, p=parity: self.empty[me][s].passed(p)
            self.full[me][slot].arrive(owed=2)
            for to in (0, 1):
                yield lambda: True  # copies land at any time
                assert self.alive[to], "a copy to a block that has ended"
                assert self.held[to][slot].get(me, block - STAGES) == block - STAGES, "overwritten"
                self.held[to][slot][me] = block
                self.full[to][slot].complete()
        for block in range(BLOCKS, BLOCKS + STAGES):
            if self.drain:
                yield lambda b=block: self.empty[me][b % STAGES].passed(b // STAGES % 2 ^ 1)

    def consume(self, me: int) -> Iterator[Callable[[], bool]]:
        for block in range(BLOCKS):
            slot = block % STAGES
            yield lambda s=slot, b=block: self.full[me][s].passed(b // STAGES % 2)
            for _ in range(2):  # still there at the end of the products
                assert self.held[me][slot] == {0: block, 1: block}, "read before or after its time"
                yield lambda: True
            self.seen[me].append(block)
            for to in (0, 1) if self.others else (me,):
                assert self.alive[to], "an arrival at a block that has ended"
                self.empty[to][slot].arrive()


def walk(pair: Pair, seed: int) -> None:
    draw = random.Random(seed)
    tasks = [(me, pair.load(me)) for me in (0, 1)] + [(me, pair.consume(me)) for me in (0, 1) for _ in range(CONSUMERS)]
    waits = [(me, task, next(task)) for me, task in tasks]
    while waits:
        ready = [each for each in waits if each[2]()]
        assert ready, "nobody can go on"
        one = draw.choice(ready)
        waits.remove(one)
        if (condition := next(one[1], None)) is not None:
            waits.append((one[0], one[1], condition))
        for me in (0, 1):
            pair.alive[me] = any(who == me for who, _, _ in waits)
    assert all(sorted(seen) == sorted(list(range(BLOCKS)) * CONSUMERS) for seen in pair.seen)


def test_any_order() -> None:
    for seed in range(60):
        walk(Pair(), seed)


@pytest.mark.parametrize("defect", [{"others": False}, {"drain": False}])
def test_what_each_wait_is_for(defect: dict[str, bool]) -> None:
    """Without the other block's arrivals slots are overwritten; without the last waits a block ends too early."""
    with pytest.raises(AssertionError, match=r"overwritten|ended|time"):
        for seed in range(60):
            walk(Pair(**defect), seed)


class Named:
    """A hardware barrier of two warpgroups: passed by who waits at it when the other has arrived once since."""

    def __init__(self) -> None:
        self.here = 0

    def arrive(self) -> None:
        self.here += 1
        assert self.here == 1, "an arrival completes the barrier without who waits"

    def passed(self) -> bool:
        if self.here:
            self.here = 0
            return True
        return False


def multiply(me: int, turns: list[Named], begun: list[int], first: bool) -> Iterator[Callable[[], bool]]:
    """A consumer of weight gradients: `consume`'s first turn, `_begin`'s waiting and giving, and what follows."""
    if first and me == 1:
        turns[0].arrive()
    for _ in range(BLOCKS):
        yield turns[me].passed
        begun.append(me)
        turns[1 - me].arrive()
        for _ in range(2):  # products and promotion
            yield lambda: True


@pytest.mark.parametrize("first", [True, False])
def test_warpgroups_take_turns(first: bool) -> None:
    """They begin products one after the other, in any order of what is between; without the first turn nobody does."""
    for seed in range(40):
        draw, turns, begun = random.Random(seed), [Named(), Named()], list[int]()
        tasks = [multiply(me, turns, begun, first) for me in (0, 1)]
        waits: list[tuple[Iterator[Callable[[], bool]], Callable[[], bool]]] = []
        for me in draw.sample((0, 1), 2):
            waits.append((tasks[me], next(tasks[me])))
        while one := next((each for each in draw.sample(waits, len(waits)) if each[1]()), None):
            waits.remove(one)
            if (condition := next(one[0], None)) is not None:
                waits.append((one[0], condition))
        assert begun == ([0, 1] * BLOCKS if first else []) and bool(waits) != first
