"""Counters of the backward that adds in one order, stressed without a card: where programs begin, which way they go and
how many add before them is the kernel's own code, run as Python; who runs when is drawn, with few or many programs at
once.

A program's two warpgroups and the two warps that carry what they make are written down here as the kernel's `multiply`
and `_carry` go: warpgroups wait for each other's dS and for a free place, carriers for their turn, and they tell the
next program when what they brought has landed, which may be any time before that. The first to come stores, so what
came before it is lost.
"""

import itertools
import random
from types import SimpleNamespace

import pytest

flash_backward = pytest.importorskip("numerics.kernels.flash_backward")
flash_products = pytest.importorskip("numerics.kernels.flash_products")

KEYS = 128


class Card:
    """Memory that all programs see. landed: (sequence, head, row, columns) -> blocks of keys in the order they came."""

    def __init__(self, sizes, causal, width, off=0):
        self.sizes, self.causal, self.width, self.off = sizes, causal, width, off
        self.turns, self.landed, self.waiting = {}, {}, {}

    def land(self, who):
        for place, block, first in self.waiting.pop(who, ()):
            self.landed[place] = [*([] if first else self.landed.get(place, [])), block]


class Program:
    """What its four roles share. made: blocks whose dS a warpgroup has stored, and blocks whose dQ it has given away;
    places: its part of dQ that waits to be carried; empty: how often the place has been left."""

    def __init__(self, card, number):
        gl_of(number, card)
        self.card = card
        self.group, self.key, self.pairs, self.start, self.step, self.back = flash_backward._place.fn(
            card.sizes, card.causal, True
        )
        self.made, self.places, self.empty = [[0, -1], [0, -1]], [None] * 4, [0] * 4

    def blocks(self):
        """Sequence, head and first row of each block of queries, in order, and how many add to it before."""
        _, _, heads, shared_by, *_ = self.card.sizes
        groups = heads // shared_by
        outers, inners = flash_backward._loops.fn(self.pairs, self.card.sizes)
        for outer, inner in itertools.product(range(outers), range(inners)):
            pair, one = flash_backward._visited.fn(outer, inner, self.start, self.step, self.card.sizes)
            before = flash_backward._before.fn(pair, self.key, self.back, self.card.sizes, self.card.causal)
            for slot in range(2):
                where = self.group // groups, self.group % groups * shared_by + one, pair + 64 * slot
                yield where, slot, before + self.card.off

    def place(self, slot, index):
        """Where a warpgroup's part lies that it makes when at a slot: heads of 128 have two places each."""
        return 2 * index + slot if self.card.width == 128 else index

    def parts(self, slot, index):
        """Columns that a warpgroup makes of a block: 64 of the first 128, and of every other block those past them."""
        width = self.card.width
        return [index] * (width > 64) + [2] * (width != 128 and slot == index)


def _warpgroup(program, index):
    """Yields what it waits for, as a question that says whether it may go on."""
    made, places, empty, width = program.made, program.places, program.empty, program.card.width
    last, number = None, 0

    def left(second):
        """Whether the part of dQ before this one has left: what the barrier of empty places answers."""
        parity = flash_products._parity.fn(number // 2 % 2, number % 2, second, index, width)
        place = program.place(number % 2, index)
        return lambda: empty[place] % 2 != parity

    for where, slot, _ in [*program.blocks(), (None, 0, 0)]:
        if width >= 128:
            yield left(0)
            assert places[program.place(number % 2, index)] is None  # P comes to lie there
        if where is not None:
            yield lambda n=number: made[1 - index][1] >= n - 1  # dS two blocks ago is done with
            made[index][0] = number + 1
            yield lambda n=number: made[1 - index][0] >= n  # dS of the block before is whole
        for columns in program.parts(1 - number % 2, index):
            yield left(int(columns == 2))
            place = program.place(number % 2, index)
            if last is None:
                empty[place] += 1
            else:
                assert places[place] is None
                places[place] = (*last[0], columns)
        made[index][1] = number
        last, number = (where, slot), number + 1


def _carrier(program, index):
    """Its warpgroup's parts, each in its turn."""
    card, who = program.card, (id(program), index)
    for where, slot, before in program.blocks():
        turn = (*where, index)
        parts = program.parts(slot, index)
        if parts:
            yield lambda t=turn, b=before: card.turns.get(t, 0) >= b
        for columns in parts:
            place = program.place(1 - slot, index)
            yield lambda n=place: program.places[n] is not None
            assert program.places[place] == (*where, columns)
            card.waiting.setdefault(who, []).append((program.places[place], program.key // KEYS, before == 0))
            program.places[place] = None
            program.empty[place] += 1
        if parts:
            yield lambda: True
            card.land(who)
            card.turns[turn] = card.turns.get(turn, 0) + 1


def gl_of(program, card):
    """Gluon's numbers as Python's, for one program."""
    flash_backward.gl = SimpleNamespace(
        minimum=min, maximum=max, program_id=lambda _: program, cdiv=lambda a, b: -(-a // b),
        where=lambda question, one, other: one if question else other,
    )  # fmt: skip


def run(seed, room=None, off=0, width=None):
    """Sums of one launch in an order that is drawn. Raises AssertionError where nobody can go on."""
    shape, order = random.Random(seed // 4), random.Random(seed)
    causal, width = shape.random() < 0.7, width or shape.choice((64, 128, 192))
    queries = shape.choice((128, 256, 384, 512))
    keys = queries + (shape.choice((0, 128)) if causal else shape.choice((-128, 0, 128)) * (queries > 128))
    shared_by, batch, abreast = shape.choice((1, 2)), shape.choice((1, 2)), shape.choice((0, 1))
    heads, blocks = shared_by * shape.choice((1, 2, 3)), -(-keys // KEYS)
    groups = heads // shared_by * batch
    together = min(shape.choice((1, 2, 4)), groups)
    card = Card((queries, keys, heads, shared_by, blocks, together, groups, abreast), causal, width, off)
    room = room or order.choice((1, 2, 3, 8))
    begun, running = iter(range(blocks * groups)), []
    while True:
        while len({number for number, *_ in running}) < room and (number := next(begun, None)) is not None:
            program = Program(card, number)
            running += [[number, role(program, i), lambda: True] for i in (0, 1) for role in (_warpgroup, _carrier)]
        if not running:
            return card
        ready = [each for each in running if each[2]()]
        assert ready, "nobody can go on"
        each = order.choice(ready)
        try:
            gl_of(each[0], card)
            each[2] = next(each[1])
        except StopIteration:
            running.remove(each)
        if order.random() < 0.3 and card.waiting:
            card.land(order.choice(list(card.waiting)))


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setattr(flash_backward, "gl", flash_backward.gl)


def test_any_order_of_programs_ends_and_adds_in_one_order():
    """A block of queries is added to by falling keys in even waves and by rising ones in odd, each once, with as little
    as one program at a time."""
    for seed in range(120):
        card = run(seed)
        queries, _, _, shared_by, _, _, groups, _ = card.sizes
        assert len(card.landed) == groups * shared_by * queries // 64 * {64: 1, 128: 2, 192: 3}[card.width]
        for place, came in card.landed.items():
            assert came == expected(card, *place[:3]), (seed, place, came)


def expected(card, sequence, head, row):
    """Blocks of keys in the order in which they add to a block of queries."""
    queries, keys, heads, shared_by, blocks, together, _, _ = card.sizes
    last = min((row // 128 * 128 + 127 + keys - queries) // KEYS, blocks - 1) if card.causal else blocks - 1
    rising = (sequence * heads + head) // shared_by // together % 2
    return list(range(last + 1))[:: 1 if rising else -1]


def test_a_counter_that_lets_go_too_early_is_seen():
    """One turn less, and sums come in another order now and then; one more, and nobody can go on."""
    cards = [run(seed, off=-1) for seed in range(40)]
    early = [any(came != expected(card, *place[:3]) for place, came in card.landed.items()) for card in cards]
    assert any(early)
    with pytest.raises(AssertionError, match="nobody can go on"):
        for seed in range(40):
            run(seed, off=1)


def hits(heads, shared, abreast, room=160):
    """The part of visits to a pair of blocks of queries, of one causal sequence of 4,096 on 132 SMs, that find it among
    the last `room` that were visited (least recently used goes), if every visit takes as long."""
    card = Card((4096, 4096, heads, heads // shared, 32, 4, shared, abreast), True, 128)
    walks = iter([[where for where, slot, _ in Program(card, i).blocks() if slot] for i in range(32 * shared)])
    running, kept, found = [iter(next(walks)) for _ in range(132)], dict[object, None](), []
    while running:
        for place, walk in [*enumerate(running)]:
            where = next(walk, None)
            if where is None and (more := next(walks, None)) is not None:
                running[place] = iter(more)
                where = next(running[place])
            if where is None:
                running.remove(walk)
                continue
            found.append(where in kept)
            kept[where] = kept.pop(where, None)
            if len(kept) > room:
                del kept[next(iter(kept))]
    assert len(found) == heads * 32 * 33 // 2
    return sum(found) / len(found)


def test_programs_of_heads_that_share_keys_meet_in_l2():
    """128 KiB a visit (Q, dO and FP32 dQ of 128 queries of 128 columns); L2 keeps at least 20 MB (160 of them)."""
    assert hits(64, 8, abreast=1) > 0.9
    assert hits(64, 8, abreast=0) < 0.2
    assert hits(16, 16, abreast=0) > 0.9  # heads of their own go one after another
