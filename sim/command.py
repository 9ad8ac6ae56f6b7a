"""What the command lines of this room share: exit codes, scenarios read from words, wrong input told in a line."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sim.scenario import Scenario

DONE, INFEASIBLE, WRONG, INTERRUPTED, UNHEARD, TERMINATED = 0, 1, 2, 130, 141, 143


class WrongInput(Exception):  # noqa: N818 - it names what the user gave
    """Input that cannot be run; its text says what to write instead."""


class Parser(argparse.ArgumentParser):
    """argparse that reports a mistake in one line. prog: the command, as it is typed."""

    def error(self, message: str) -> NoReturn:
        raise WrongInput(f"{message}; see {self.prog} --help")


def helped(words: Sequence[str], text: str, command: Callable[[Sequence[str]], int]) -> int:
    """Run a command on its words; without any, or where they ask for it, its help. The answer is the exit code."""

    def run() -> int:
        if not words or "-h" in words or "--help" in words:
            print(text, end="", file=sys.stdout if words else sys.stderr)
            return DONE if words else WRONG
        return command(words)

    return answered(run)


def answered(command: Callable[[], int]) -> int:
    """The exit code of a command; mistakes in its input are told in a line."""
    try:
        return _told(command)
    except BrokenPipeError:
        # Python would complain again when it flushes at exit.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return UNHEARD


def _told(command: Callable[[], int]) -> int:
    try:
        code = command()
        sys.stdout.flush()
        return code
    except WrongInput as error:
        print(error, file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("interrupted; nothing written", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def refusals(path: str) -> Iterator[None]:
    """Inside it, a scenario that a schedule, a table or the layout refuses is wrong input, told in one line."""
    try:
        yield
    except ValueError as error:
        raise WrongInput(f"{path}: {' '.join(str(error).split())}") from None
    except (OverflowError, MemoryError) as error:
        from sim import beyond

        raise WrongInput(f"{path}: {beyond(error)}") from None


def loaded(prog: str, words: Sequence[str]) -> "tuple[str, Scenario]":
    """The path and the scenario that a file name and overrides give."""
    from sim.scenario import ScenarioError, load

    if not words:
        raise WrongInput(f"a scenario file is missing; see {prog} --help")
    try:
        return words[0], load(words[0], words[1:])
    except ScenarioError as error:
        raise WrongInput(str(error)) from None
