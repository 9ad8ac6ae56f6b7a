"""Messages in batches: what a position hands on and asks for between two steps, where it waits for all of it.

A position that does not hide its messages commits, before each step, the outputs of the step before and the inputs of
the step to come, and goes on when all of them are through, its own outputs included (`_commit_and_wait_comm` of
github.com/deepseek-ai/DualPipe @3da1bbe). A message leaves when both of its ends have come so far. A schedule says
which inputs are asked for a step early and which outputs are handed on a step late.
"""

from collections.abc import Mapping, Sequence

from hwmodels.refused import Refused
from sim.layout.traffic import FORWARD, Message, Messages
from sim.schedules.program import Program

Batch = Sequence[Message]
"""Messages that a position waits for between two steps: those that come to it, then its own."""
Ends = Mapping[Message, tuple[int, int]]
"""Numbers of the batches in which a message is handed on and asked for."""


def batches(program: Program, messages: Messages) -> Sequence[Sequence[Batch]]:
    """Of each position: the batch before each of its steps, and the one after the last. Raises Refused where positions
    would wait for each other for good."""
    everything = sorted((message for row in messages.sent for message in row), key=lambda message: message.output)
    ends = {message: _ends(program, message) for message in everything}
    rows: list[list[list[Message]]] = [[[] for _ in range(len(steps) + 1)] for steps in program.steps]
    for message in everything:
        rows[message.target][ends[message][1]].append(message)
    for message in everything:
        rows[message.position][ends[message][0]].append(message)
    _check(program, rows, ends)
    return rows


def _ends(program: Program, message: Message) -> tuple[int, int]:
    letter = "F" if message.output == FORWARD else "B"
    handed = program.late.get((message.position, message.step, letter), message.step + 1)
    return handed, program.early.get((message.target, message.receiver, letter), message.receiver)


def _check(program: Program, rows: Sequence[Sequence[Batch]], ends: Ends) -> None:
    """Go through all batches as far as they get, whatever steps take."""
    reached, before = [0] * program.positions, [-1]
    while reached != before:
        before = list(reached)
        for position, row in enumerate(rows):
            while reached[position] < len(row) and _missing(row[reached[position]], reached, ends) is None:
                reached[position] += 1
    stuck = [position for position, row in enumerate(rows) if reached[position] < len(row)]
    if stuck:
        circle = _circle(program, rows, ends, reached, stuck[0])
        raise Refused(f"{program.schedule} with comm.messages waited: deadlock: {circle}; legal: comm.messages hidden")


def _missing(batch: Batch, reached: Sequence[int], ends: Ends) -> Message | None:
    """A message of a batch an end of which has not come to it."""
    for message in batch:
        sending, asking = ends[message]
        if reached[message.position] < sending or reached[message.target] < asking:
            return message
    return None


def _circle(
    program: Program, rows: Sequence[Sequence[Batch]], ends: Ends, reached: Sequence[int], position: int
) -> str:
    """Who waits for whom, once round the circle that stops `position`."""
    seen: dict[int, str] = {}
    while position not in seen:
        number, steps = reached[position], program.steps[position]
        message = _missing(rows[position][number], reached, ends)
        assert message is not None, "who is stuck waits for somebody"
        what = f"{'F' if message.output == FORWARD else 'B'}{message.stage}.{message.micro_batch}"
        at = f"before {steps[number]}" if number < len(steps) else "after its last step"
        sends = message.position == position
        other = message.target if sends else message.position
        seen[position] = f"rank {position} {at} {f'hands {what} to' if sends else f'asks for {what} from'} rank {other}"
        position = other
    circle = list(seen)
    return "; ".join(seen[each] for each in circle[circle.index(position) :])
