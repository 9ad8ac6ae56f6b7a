"""Programs as text that a person can read and write."""

import re

from hwmodels.refused import Refused
from sim.schedules.program import KINDS, Program, Step

_TOKEN = re.compile(r"(?P<kind>F|BW|B|W)(?P<at>\d+\.\d+)(?:\+(?P<kind_b>BW|B)(?P<at_b>\d+\.\d+))?")
_HEADER = re.compile(
    r"(?P<schedule>\S+) ranks=(?P<ranks>\d+) stages=(?P<stages>\d+) micro_batches=(?P<micro_batches>\d+)"
    r" weight_copies=(?P<weight_copies>\d+)"
)


def text(program: Program) -> str:
    """The program as text: a header, then a line a rank with tokens such as F0.3, B2.1, W2.1, BW2.1, F0.5+BW7.2
    (stage.micro-batch)."""
    header = (
        f"{program.schedule} ranks={program.positions} stages={program.stages}"
        f" micro_batches={program.micro_batches} weight_copies={program.weight_copies}"
    )
    lines = (f"rank {position}: {' '.join(map(str, steps))}" for position, steps in enumerate(program.steps))
    return "\n".join((header, *lines)) + "\n"


def parse(source: str) -> Program:
    """The program that `text` printed; blank lines are skipped. Refused names line and token. Does not `check`."""
    lines = [(number, line) for number, line in enumerate(source.splitlines(), 1) if line.strip()]
    number, header = lines[0] if lines else (1, "")
    match = _HEADER.fullmatch(header.strip())
    if match is None:
        legal = "dualpipe ranks=8 stages=8 micro_batches=20 weight_copies=2"
        raise Refused(f"line {number}: a program starts with a line like '{legal}'; got '{header.strip()}'")
    positions, stages, micro_batches, copies = (int(figure) for figure in match.groups()[1:])
    steps = tuple(_parse_steps(number, position, line) for position, (number, line) in enumerate(lines[1:]))
    if len(steps) != positions:
        raise Refused(f"line {number}: the header says {positions} ranks, but {len(steps)} rank lines follow")
    return Program(match["schedule"], positions, stages, micro_batches, steps, copies)


def _parse_steps(number: int, position: int, line: str) -> tuple[Step, ...]:
    label, colon, rest = line.partition(":")
    if not colon or label.split() != ["rank", str(position)]:
        raise Refused(f"line {number}: expected 'rank {position}: ...'; got '{line.strip()[:20]}'")
    return tuple(_parse_token(number, index, token) for index, token in enumerate(rest.split(), 1))


def _parse_token(number: int, index: int, token: str) -> Step:
    match = _TOKEN.fullmatch(token)
    kind = "" if match is None else "+".join(filter(None, (match["kind"], match["kind_b"])))
    if match is None or kind not in KINDS:
        legal = "F0.3, B2.1, W2.1, BW2.1 or F0.5+BW7.2 (stage.micro-batch)"
        raise Refused(f"line {number}, token {index}: '{token}' is not a step; steps look like {legal}")
    at = [figure for half in (match["at"], match["at_b"]) if half for figure in map(int, half.split("."))]
    return Step(kind, *at)
