"""Messages in batches: DualPipe's as its published program commits them, and no schedule that waits for itself."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.layout.batches import batches
from sim.layout.traffic import BACKWARD, FORWARD, messages
from sim.schedules.program import Shape, build, chunked, names
from tests.oracles.programs import parse


class Published:
    """What a rank of the published DualPipe (dualpipe.py @3da1bbe, `step`) commits before each chunk that it computes,
    as {("send" or "receive", "F" or "B", side)}; side 0 is that of its own end."""

    def __init__(self, depth, ranks, micro_batches):
        self.posted, self.batches = [], []
        self.main(ranks // 2 - depth - 1, depth + 1, micro_batches // 2 - ranks + depth + 1)
        self.batches.append(self.posted)

    def chunk(self, *halves, receive=None, send=True):
        """halves: such as F0 or B1. receive: the halves that are asked for here, all unless said."""
        for half in halves if receive is None else receive:
            self.posted.append(("receive", *half))
        self.batches.append(self.posted)
        self.posted = [("send", *half) for half in halves] if send else []

    def weight(self):
        self.chunk()

    def main(self, inner, own, pairs):
        middle = not inner
        for _ in range(2 * inner):
            self.chunk("F0")
        self.posted.append(("receive", *"F0"))
        for i in range(own):
            self.chunk("F0", receive=(), send=middle)
            self.posted.append(("receive", *"F0"))
            self.chunk("F1", send=not middle or i < own - 1)
            if not middle:
                self.posted.append(("send", *"F0"))
        for _ in range(inner):
            self.chunk("B1")
            self.posted.append(("receive", *"F1"))
            self.weight()
            self.chunk("F1", receive=())
        for i in range(pairs):
            if i == 0 and middle:
                self.chunk("F0", receive=(), send=False)
                self.posted.append(("send", *"F1"))
                self.chunk("B1", send=False)
                self.posted += [("send", *"F0"), ("send", *"B1")]
            else:
                self.chunk("F0", "B1", receive=("F0", "B1") if i else ("B1",))
            self.chunk("F1", "B0")
        for _ in range(inner):
            self.chunk("B1")
            self.chunk("F1", "B0")
        for _ in range(own):
            self.chunk("B1")
            self.chunk("B0")
        for _ in range(inner):
            self.weight()
            self.chunk("B0")
        for _ in range(own):
            self.weight()


@pytest.mark.parametrize(("ranks", "micro_batches"), [(2, 4), (4, 8), (6, 14), (8, 20), (16, 120)])
def test_dualpipe_commits_what_its_published_program_commits(ranks, micro_batches):
    program = build("dualpipe", Shape(ranks, micro_batches))
    rows = batches(program, messages(program))
    for position, row in enumerate(rows):
        own = position < ranks // 2  # of these ranks, the micro-batches that enter at rank 0 are of the own side
        found = [
            sorted(
                ("send" if m.position == position else "receive", "F" if m.output == FORWARD else "B",
                 str(int((m.micro_batch < micro_batches // 2) != own)))
                for m in batch
            )
            for batch in row
        ]  # fmt: skip
        first, last = position in (0, ranks - 1), position in (0, ranks - 1)  # no stage before, or none after
        nowhere = {("receive", "F", "0"), ("send", "B", "0")} if first else set()
        nowhere |= {("send", "F", "1"), ("receive", "B", "1")} if last else set()
        published = Published(min(position, ranks - 1 - position), ranks, micro_batches)
        assert found == [sorted(post for post in batch if post not in nowhere) for batch in published.batches]


@given(st.sampled_from(names()), st.integers(1, 9), st.integers(1, 40), st.integers(2, 3))
def test_no_schedule_waits_for_itself_and_every_message_is_waited_for_twice(name, pipeline, micro_batches, chunks):
    try:
        program = build(name, Shape(pipeline, micro_batches, chunks if chunked(name, 2) else 2))
    except Refused:
        return
    sent = messages(program)
    rows = batches(program, sent)
    waited = [(position, message) for position, row in enumerate(rows) for batch in row for message in batch]
    assert sorted(waited) == sorted((p, m) for row in sent.sent for m in row for p in (m.position, m.target))
    for position, row in enumerate(rows):
        for number, batch in enumerate(row):
            assert all(m.step < number if m.position == position else number <= m.receiver for m in batch)


def test_dualpipe_without_its_early_and_late_messages_says_who_waits_for_whom():
    program = replace(build("dualpipe", Shape(8, 20)), early={}, late={})
    with pytest.raises(Refused) as caught:
        batches(program, messages(program))
    assert str(caught.value) == (
        "dualpipe with comm.messages waited: deadlock: rank 1 before F6.11 hands F1.5 to rank 2; rank 2 before B5.10"
        " asks for B6.10 from rank 1; legal: comm.messages hidden"
    )


def test_two_ranks_that_hand_to_each_other_first():
    """Each would hand its output on before it asks for the other's; but both are in one batch, so neither waits."""
    program = parse(
        "hand ranks=2 stages=2 micro_batches=2 weight_copies=2\n"
        "rank 0: F0.0 F1.1 BW1.1 BW0.0\nrank 1: F0.1 F1.0 BW1.0 BW0.1\n"
    )
    rows = batches(program, messages(program))
    assert [[(m.position, m.step, m.output) for m in batch] for batch in rows[0]] == [
        [], [(1, 0, FORWARD), (0, 0, FORWARD)], [], [(1, 2, BACKWARD), (0, 2, BACKWARD)], [],
    ]  # fmt: skip
