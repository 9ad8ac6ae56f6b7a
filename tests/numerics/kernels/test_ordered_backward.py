"""Counters of the backward that adds in one order, stressed without a card: where programs begin and how many add
before them is the kernel's own code, run as Python; who runs when is drawn, with few or many programs at once.

A program's two warpgroups are written down here as the kernel's `_multiply` goes: they wait for each other's dS, for
their turn, and tell the next program when what they added has landed, which may be any time before that.
"""

import random
from types import SimpleNamespace

import pytest

flash_backward = pytest.importorskip("numerics.kernels.flash_backward")

KEYS = 128


class Card:
    """Memory that all programs see. landed: (sequence, head, row, columns) -> blocks of keys in the order they came."""

    def __init__(self, sizes, causal, width, off=0):
        self.sizes, self.causal, self.width, self.off = sizes, causal, width, off
        self.turns, self.landed, self.waiting = {}, {}, {}

    def land(self, who):
        for place, block in self.waiting.pop(who, ()):
            self.landed.setdefault(place, []).append(block)


def _warpgroup(card, program, index, progress):
    """Yields what it waits for, as a question that says whether it may go on."""
    gl_of(program, card)
    group, key, start = flash_backward._place.fn(card.sizes, card.causal, True)
    queries, _, heads, shared_by, *_ = card.sizes
    first, more = (64, False) if card.width == 64 else (128, card.width > 128)
    groups, who, number = heads // shared_by, (program, index), 0
    before, counter, settled, owed, place = 0, None, None, 0, None

    def settle(which, count):
        card.land(who)
        if count:
            card.turns[which] = card.turns.get(which, 0) + count

    def turn(which, least):
        return lambda: card.turns.get(which, 0) >= least

    def add(columns):
        card.land(who)
        card.waiting[who] = [((*place, columns), key // KEYS)]

    for one in range(shared_by):
        head = group % groups * shared_by + one
        for pair in range(start, queries, 128):
            for slot in range(2):
                settle(settled, owed)
                owed = 0
                yield lambda n=number: progress[1 - index][1] >= n - 1  # dS two blocks ago is done with
                progress[index][0] = number + 1
                yield lambda n=number: progress[1 - index][0] >= n  # dS of the block before is whole
                if first == 128 and number:
                    yield turn(counter, before)
                    add(index)
                    owed = 1
                if (more or first == 64) and 1 - slot == index and number:
                    if first == 64:
                        yield turn(counter, before)
                    add(2)
                    owed = 1
                progress[index][1] = number
                number, settled, place = number + 1, counter, (group // groups, head, pair + 64 * slot)
                counter = (*place[:2], pair // 128, slot, index)
                before = flash_backward._before.fn(pair, key, card.sizes, card.causal) + card.off
    yield lambda: progress[1 - index][0] >= number
    settle(settled, owed)
    if number and first == 128:
        yield turn(counter, before)
        add(index)
    if number and (more or first == 64) and index == 1:
        if first == 64:
            yield turn(counter, before)
        add(2)
    settle(counter, 1)


def gl_of(program, card):
    """Gluon's numbers as Python's, for one program."""
    _, _, heads, shared_by, blocks, _ = card.sizes
    flash_backward.gl = SimpleNamespace(
        minimum=min, maximum=max, program_id=lambda _: program, cdiv=lambda a, b: -(-a // b),
        num_programs=lambda _: blocks * heads // shared_by * card.batch,
    )  # fmt: skip


def run(seed, room=None, off=0, width=None):
    """Sums of one launch in an order that is drawn. Raises AssertionError where nobody can go on."""
    shape, order = random.Random(seed // 4), random.Random(seed)
    causal, width = shape.random() < 0.7, width or shape.choice((64, 128, 192))
    queries = shape.choice((128, 256, 384, 512))
    keys = queries + (shape.choice((0, 128)) if causal else shape.choice((-128, 0, 128)) * (queries > 128))
    shared_by, batch = shape.choice((1, 2)), shape.choice((1, 2))
    heads, blocks = shared_by * shape.choice((1, 2, 3)), -(-keys // KEYS)
    together = min(shape.choice((1, 2, 4)), heads // shared_by * batch)
    card = Card((queries, keys, heads, shared_by, blocks, together), causal, width, off)
    card.batch = batch
    room = room or order.choice((1, 2, 3, 8))
    begun, running = iter(range(blocks * heads // shared_by * batch)), []
    while True:
        while len({program for program, *_ in running}) < room and (program := next(begun, None)) is not None:
            progress = [[0, -1], [0, -1]]
            running += [[program, _warpgroup(card, program, i, progress), lambda: True, (program, i)] for i in (0, 1)]
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
    """A block of queries is added to by falling keys, each once, with as little as one program at a time."""
    for seed in range(120):
        card = run(seed)
        queries, keys, *_, blocks, _ = card.sizes
        assert card.landed
        for (_, _, row, _), came in card.landed.items():
            last = min((row // 128 * 128 + 127 + keys - queries) // KEYS, blocks - 1) if card.causal else blocks - 1
            assert came == list(range(last, -1, -1)), (seed, row, came)


def test_a_counter_that_lets_go_too_early_is_seen():
    """One turn less, and sums come in another order now and then; one more, and nobody can go on."""
    early = [any(came != sorted(came, reverse=True) for came in run(s, off=-1).landed.values()) for s in range(40)]
    assert any(early)
    with pytest.raises(AssertionError, match="nobody can go on"):
        for seed in range(40):
            run(seed, off=1)
