"""The command line: `python -m sim SCENARIO.yaml [key=value ...] [--out DIR]`, or a command.

Exit codes: 0 done, 1 simulated but infeasible, 2 wrong input, 70 a bug of ours, 130 interrupted, 141 a closed pipe.
Results go to a folder and, with `--format json`, to stdout; progress and tables to stderr. Everything heavy is imported
when a command needs it.
"""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn

from hwmodels.refused import Refused
from sim.cli.command import DONE, TERMINATED, WRONG, answered

HELP = """\
usage: python -m sim SCENARIO.yaml [key=value ...] [--out DIR] [--format text|json] [-q]
       python -m sim COMMAND ...
       SCENARIO.yaml: a file, or the name of a scenario that ships (see list); with the key campaign it is a whole
                      training run (docs/CAMPAIGN.md), with rl steps of reinforcement learning (docs/RL.md), which run,
                      check and sweep take too

commands:
  run SCENARIO.yaml [key=value ...]    simulate; writes a folder (unless --out says otherwise out/<scenario>, and
                                       out/<scenario>,<overrides> where there are some)
  check SCENARIO.yaml [key=value ...]  whether a scenario is right, its schedule runs and it fits; writes nothing
  list [KIND]                          known scenarios, models, devices, nodes, fabrics, schedules
  schema [--write]                     JSON Schema of a scenario file; --write: the tables of docs/REFERENCE.md
  validate [--all] [--format text|markdown|json] [--write]
                                       predictions beside what was published, a line a group; --all: each figure with
                                       its error and 90 % interval
  validate --runs FILE.csv [--family NAME] [--jobs N | --executor WORD] [--format text|json] [--out FILE.csv]
           [--rival] [--learn] [--write]
                                       training runs as scenarios, their steps beside what was measured, a line a
                                       family; json, --out: a row a run; --rival: a closed form beside it; --learn: what
                                       intervals hold beside prices; --write: docs/RUNS.md and the README's table
                                       (of unseen_runs.csv: docs/UNSEEN.md)
  steps [--gpus 8] [--write]           steps of plain torch that were measured on one GPU beside simulated ones; over
                                       eight predicted, and compared with rows of --measured FILE
  cache [--write]                      what every model keeps of a token, in elements and bytes (docs/CACHE.md)
  load SERVE.yaml [key=value ...]      the largest load of a serving scenario within its objectives
  serving [--write]                    published rows of serving beside ours (docs/SERVING.md)
  rl [--write]                         published steps of reinforcement learning beside ours (docs/RL.md)
  sweep SWEEP.yaml [--jobs N]          many runs along axes of overrides, resumable
  search SEARCH.yaml [--executor WORD] the best of a space of scenarios, and what binds it (search --help)
  study NAME [--jobs N]                a sweep that ships, told on its page: stragglers, unevenness, scale,
                                       campaign, batch, exchange, hierarchy
  compare A [B] [key=value ... [-- key=value ...]]
                                       two runs side by side: what differs, by how much, why (compare --help)
  sensitivity SCENARIO.yaml [key=value ...]
                                       what the step hangs on, and what would bind next (sensitivity --help)
  tokens SCENARIO.yaml [key=value ...] who receives how many tokens, and how a bias evens them out (tokens --help)
  exchange SCENARIO.yaml [key=value ...]
                                       how many SMs communication should hold, as JSON (exchange --help)
  import FILE --node NODE [--out SCENARIO.yaml]
                                       a launch file of Megatron-LM, Megatron-Bridge, NeMo or torchtitan as a scenario
                                       (import --help)

options of run:
  --out DIR            where the results go: result.json, report.html, trace/, events.npz, links.csv, loads.csv (where
                       loads are drawn), scenario.yaml. Those of an older run are replaced, other files there stay.
  --format text|json   json: also print result.json on stdout
  -q, --quiet          no table and no progress

options of sweep and study:
  --jobs N             so many runs at a time (default: 1)
  --executor WORD      where they run instead: local:N, or dask:HOST:PORT, a scheduler that `dask scheduler` started
  --out FILE.jsonl     where each run goes as it ends (default: out/sweeps/<sweep>.jsonl), the table as FILE.csv,
                       and a page with heat maps as FILE.html.
                       What it holds already is not run again: an interrupted sweep goes on where it was.
  -q, --quiet          no progress
  --docs DIR           of study: the folder with its page, whose figures are renewed (default: docs)
  A sweep names a scenario and its axes: a list of values of a key, or labels with overrides; see scenarios/sweeps.
  Points that do not fit in memory are still results (exit 0); points that cannot run are told and make it exit 2,
  points that a bug of ours ends make it exit 70, with the traceback in FILE.jsonl.

overrides reach anything, also inside what a name stands for, and items of a list by number (faults.0.slower=2):
  schedule=zb1p  cluster.nodes=128  cluster.node.nic.bandwidth=100GB/s  model.layers=30  outputs=[result]

exit codes: 0 done; 1 simulated, but it does not fit (advice follows) or misses a limit; 2 wrong input; 70 a bug of
            ours, with its traceback; 130 interrupted; 141 whoever read the output went away before its end
"""


FEW_CIRCLES = 900_000
"""Objects between two looks for circles of garbage: a run makes many small values and hardly any circle, and Python's
700 cost it 7 % of its time."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that `words` (default: the process's arguments) say; the answer is the exit code."""
    words = sys.argv[1:] if words is None else list(words)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing here is worth threads, and starting them costs 0.1 s
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")  # looking for some reads every package that is installed
    gc.set_threshold(FEW_CIRCLES)
    return answered(lambda: _command(words))


def _command(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="", file=sys.stdout if words else sys.stderr)
        return DONE if words else WRONG
    if words[0] in COMMANDS:
        name, rest = words[0], words[1:]
    elif words[0].endswith((".yaml", ".yml")) or words[0].startswith("-") or _scenario(words[0]):
        name, rest = "run", words
    else:
        from sim.scenario.shelves import scenarios

        near = get_close_matches(words[0], [*COMMANDS, *scenarios()], n=1)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        what = f"unknown command {words[0]!r}{hint} legal: {', '.join(COMMANDS)}"
        raise Refused(f"{what}, or a scenario (a file, or a name from list)")
    module, function = COMMANDS[name].split(":")
    room = import_module(f"sim.cli.{module}")
    command: Callable[[list[str]], int] = getattr(room, function)
    own = getattr(room, "HELP", "")
    if "-h" in rest or "--help" in rest or (own and not rest):
        print(own or HELP, end="", file=sys.stdout if rest else sys.stderr)
        return DONE if rest else WRONG
    return command(rest)


def _scenario(word: str) -> bool:
    """Whether a word is a file, or the name of a scenario that ships."""
    from sim.scenario.shelves import place

    return place(word).is_file()


COMMANDS = {
    "run": "run:run", "check": "run:check", "list": "run:known", "schema": "schema:schema", "steps": "steps:steps",
    "validate": "validate:validate", "sweep": "sweeps:sweep", "study": "sweeps:study", "tokens": "tokens:tokens",
    "exchange": "exchange:exchange", "import": "imports:import_", "compare": "compare:compare",
    "search": "search:search", "cache": "cache:cache", "serving": "serving:serving",
    "load": "serving:load", "rl": "campaign:rl", "sensitivity": "sensitivity:sensitivity",
}  # fmt: skip
"""Word -> file of sim/cli, which may have a page of HELP for itself, and function in it."""


def _terminated(signal_number: int, frame: object) -> NoReturn:
    """SIGTERM leaves nothing half-written either."""
    raise SystemExit(TERMINATED)


def command() -> NoReturn:
    """The console script `trainyard`, the same as `python -m sim`."""
    import signal

    signal.signal(signal.SIGTERM, _terminated)
    code = main()
    gc.freeze()  # at its end Python would look through all objects for circles, which takes a fifth of a run
    sys.exit(code)


if __name__ == "__main__":
    command()
