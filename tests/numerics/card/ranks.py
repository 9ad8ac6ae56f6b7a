"""A program of torchrun's on CPU ranks that are forked from this process, which has imported torch: a process of its
own takes 3 s to do that. That a program also starts under torchrun itself is test_node.py's."""

import os
import runpy
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

LIMIT_S = 240


def run(world: int, module: str, *words: str, said: Path) -> str:
    """What all ranks wrote to stderr, which is kept in `said`. Fails where one did, or took longer than LIMIT_S."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    ranks = [_forked(rank, world, port, module, words, said) for rank in range(world)]
    status, until = dict.fromkeys(ranks), time.monotonic() + LIMIT_S
    while None in status.values() and not any(status.values()) and time.monotonic() < until:
        for each in (each for each, code in status.items() if code is None):
            done, code = os.waitpid(each, os.WNOHANG)
            status[each] = os.waitstatus_to_exitcode(code) if done else None
        time.sleep(0.02)
    for each in (each for each, code in status.items() if code is None):  # others wait for the one that failed
        os.kill(each, signal.SIGKILL)
        os.waitpid(each, 0)
    text = said.read_text(encoding="utf-8")
    assert list(status.values()) == [0] * world, text[-2000:]
    return text


def _forked(rank: int, world: int, port: int, module: str, words: tuple[str, ...], said: Path) -> int:
    """The process of a rank, with what torchrun says to it."""
    if process := os.fork():
        return process
    code = 1
    try:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        sys.stderr, sys.argv = os.fdopen(2, "w", buffering=1), [module, *words]
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
        }  # fmt: skip
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
