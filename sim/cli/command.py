"""What the command lines of this room share: exit codes, scenarios read from words, refusals told in a line.

What is no refusal is a bug of ours: its traceback on stderr, and exit code 70 (EX_SOFTWARE of sysexits.h).
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

from hwmodels.refused import Refused

if TYPE_CHECKING:
    from sim.scenario.values import Scenario

PROG = "python -m sim"

DONE, INFEASIBLE, WRONG, BUG, INTERRUPTED, UNHEARD, TERMINATED = 0, 1, 2, 70, 130, 141, 143


class Parser(argparse.ArgumentParser):
    """argparse that reports a mistake in one line. prog: the command, as it is typed. worded: whether it takes words
    beside options, a file and overrides; they may stand in any order. allow_abbrev: of options."""

    def __init__(self, prog: str = PROG, worded: bool = False, allow_abbrev: bool = True) -> None:
        super().__init__(prog=prog, add_help=False, allow_abbrev=allow_abbrev)
        if worded:
            self.add_argument("words", nargs="*")

    def runs(self) -> None:
        """Options of where many runs go."""
        self.add_argument("--jobs", type=int, default=1)
        self.add_argument("--executor")

    def tells(self) -> None:
        """Options of how an answer is told."""
        self.add_argument("--format", choices=("text", "json"), default="text")
        self.add_argument("-q", "--quiet", action="store_true")

    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message}; see {self.prog} --help")


def answered(command: Callable[[], int]) -> int:
    """The exit code of a command; what it refuses is told in a line, a bug with its traceback."""
    try:
        return _exit_code(command)
    except BrokenPipeError:
        # Python would complain again when it flushes at exit.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return UNHEARD


def _exit_code(command: Callable[[], int]) -> int:
    try:
        code = command()
        sys.stdout.flush()
        return code
    except Refused as refused:
        print(refused, file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        exec("")  # Python would end by the signal where it came inside another exec, such as that of a named tuple
        print("interrupted; nothing written", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception:
        from traceback import print_exc

        print_exc()
        return BUG


@contextmanager
def refusals(path: str) -> Iterator[None]:
    """Inside it, what a schedule, a table or the layout refuses is laid to the scenario file, in one line."""
    try:
        yield
    except Refused as refused:
        raise Refused(" ".join(str(refused).split()), path) from None


def loaded(prog: str, words: Sequence[str]) -> "tuple[str, Scenario]":
    """The path and the scenario that a file name and overrides give."""
    from sim.scenario.files import load

    if not words:
        raise Refused(f"a scenario file is missing; see {prog} --help")
    return words[0], load(words[0], words[1:])


def unread(value: object) -> Iterator[str]:
    """Lines of what is stated of the machine of a campaign, of steps of reinforcement learning or of a served load,
    and that nothing reads."""
    from hwmodels.figure import OVERRIDE
    from sim.experiments import kinds, unfelt

    own = next(each for each in kinds.KINDS.values() if isinstance(value, each.makes))
    for key in (key for key, figure in own.machine(value).items() if figure.source == OVERRIDE):
        inner = key.removeprefix(f"{own.key}.")
        for line in unfelt.descriptive([inner if inner == key else f"cluster.{inner}"]):
            yield line if inner == key else line.replace("cluster.", f"{own.key}.", 1)


def executor(args: argparse.Namespace) -> str:
    """Where runs run, by the options of `Parser.runs`. Raises Refused."""
    from sim.experiments.executors import jobs

    if args.jobs < 1:
        raise Refused(f"--jobs expects a whole number, 1 or more; found {args.jobs}")
    where = args.executor or f"local:{args.jobs}"
    jobs(where)
    return where


def reported(args: argparse.Namespace, folder: Path, show: Callable[[], None]) -> None:
    """Tell what a run wrote into its folder: by `show` unless quiet, and result.json on stdout where that is asked."""
    if not args.quiet:
        show()
        print(f"written to {folder}", file=sys.stderr)
    if args.format == "json":
        sys.stdout.write((folder / "result.json").read_text(encoding="utf-8"))


def progress(text: str, shown: bool) -> None:
    """`text` on the terminal's last line, in place of what was there."""
    if shown:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


SOON_S, OFTEN_S = 2.0, 0.2
"""Seconds before progress is shown, and between two times."""


def heard(shown: bool, things: str = "points") -> Callable[[str, int, int], None]:
    """Hears what is done, of how many things, and of how many in all (0: nobody knows), and tells it on the terminal's
    last line in anything over two seconds, with its rate and the time left."""
    began, last, phase, since, first = monotonic(), 0.0, "", 0.0, 0

    def hear(what: str, done: int, of: int) -> None:
        nonlocal last, phase, since, first
        now = monotonic()
        if what != phase:
            phase, since, first = what, now, done
        if not shown or now - began < SOON_S or now - last < OFTEN_S:
            return
        last = now
        rate = (done - first) / (now - since) if now > since else 0.0
        left = f", {(of - done) / rate:.0f} s left" if rate and of > done else ""
        progress(f"{done}{f' of {of}' if of else ''} {things} {what}, {rate:.1f} a second{left}", shown)

    return hear
