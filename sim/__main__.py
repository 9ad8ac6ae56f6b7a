"""The command line: `python -m sim SCENARIO.yaml [key=value ...] [--out DIR]`.

Exit codes: 0 done, 1 simulated but infeasible, 2 wrong input, 70 a bug of ours, 130 interrupted, 141 a closed pipe.
Results go to a folder and, with `--format json`, to stdout; progress and tables to stderr. Everything heavy is imported
when a command needs it.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hwmodels.refused import Refused
from sim.command import BUG, DONE, INFEASIBLE, INTERRUPTED, TERMINATED, WRONG, Parser, answered, loaded, refusals

if TYPE_CHECKING:
    from sim.record import Record
    from sim.result import Result
    from sim.scenario import Scenario

PROG = "python -m sim"

HELP = """\
usage: python -m sim SCENARIO.yaml [key=value ...] [--out DIR] [--format text|json] [-q]
       python -m sim COMMAND ...

commands:
  run SCENARIO.yaml [key=value ...]    simulate; writes a folder (out/<scenario> unless --out says otherwise)
  check SCENARIO.yaml [key=value ...]  read and check a scenario and its schedule, nothing more
  list [KIND]                          known scenarios, models, devices, nodes, fabrics, schedules
  schema                               JSON Schema of a scenario file
  validate [--format text|markdown|json] [--write]
                                       predictions beside what was published, with errors and 90 % intervals
  sweep SWEEP.yaml [--jobs N]          many runs along axes of overrides, resumable
  study NAME [--jobs N]                a sweep that ships, told on its page: stragglers, unevenness, scale

options of run:
  --out DIR            where the results go: result.json, report.html, trace/, events.npz, links.csv,
                       loads.csv (where loads are drawn), scenario.yaml
  --format text|json   json: also print result.json on stdout
  -q, --quiet          no table and no progress

options of sweep and study:
  --jobs N             so many runs at a time (default: 1)
  --out FILE.jsonl     where each run goes as it ends (default: out/sweeps/<sweep>.jsonl), and the table as FILE.csv.
                       What it holds already is not run again: an interrupted sweep goes on where it was.
  -q, --quiet          no progress
  --docs DIR           of study: the folder with its page, whose figures are renewed (default: docs)
  A sweep names a scenario and its axes: a list of values of a key, or labels with overrides; see scenarios/sweeps.
  Points that do not fit in memory are still results (exit 0); points that cannot run are told and make it exit 2,
  points that a bug of ours ends make it exit 70, with the traceback in FILE.jsonl.

overrides reach anything, also inside what a name stands for, and items of a list by number (faults.0.slower=2):
  schedule=zb1p  cluster.nodes=128  cluster.node.nic.bandwidth=100GB/s  model.layers=30  outputs=[result]

exit codes: 0 done; 1 simulated, but it does not fit or misses a limit; 2 wrong input; 70 a bug of ours,
            with its traceback; 130 interrupted; 141 whoever read the output went away before its end (a closed pipe)
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that `words` (default: the process's arguments) say; the answer is the exit code."""
    words = sys.argv[1:] if words is None else list(words)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing here is worth threads, and starting them costs 0.1 s
    return answered(lambda: _command(words))


def _command(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="", file=sys.stdout if words else sys.stderr)
        return DONE if words else WRONG
    if words[0] in COMMANDS:
        name, rest = words[0], words[1:]
    elif words[0].endswith((".yaml", ".yml")) or Path(words[0]).is_file() or words[0].startswith("-"):
        name, rest = "run", words
    else:
        near = get_close_matches(words[0], COMMANDS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        raise Refused(f"unknown command {words[0]!r}{hint} legal: {', '.join(COMMANDS)}, or a scenario file (.yaml)")
    if "-h" in rest or "--help" in rest:
        print(HELP, end="")
        return DONE
    return COMMANDS[name](rest)


def _run(words: list[str]) -> int:
    start = time.perf_counter()
    parser = _scenario_parser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("-q", "--quiet", action="store_true")
    asked = parser.parse_intermixed_args(words)
    path, scenario = loaded(PROG, asked.words)
    from sim.notes import notes

    folder = asked.out or Path("out", Path(path).stem)
    result = _write(scenario, path, folder, asked.quiet, start)
    if not asked.quiet:
        from reports import terminal

        terminal.show(result, stream=sys.stderr, overrides=asked.words[1:])
        print(f"written to {folder}", file=sys.stderr)
    if asked.format == "json":
        sys.stdout.write((folder / "result.json").read_text(encoding="utf-8"))
    for line in notes(scenario, result.summary, asked.words[1:]):
        print(f"{path}: {line}", file=sys.stderr)
    for line in result.summary["infeasible"]:
        print(f"infeasible: {line}", file=sys.stderr)
    return DONE if result.summary["feasible"] else INFEASIBLE


def _write(scenario: "Scenario", path: str, folder: Path, quiet: bool, start: float) -> "Result":
    """Simulate, and write the results as `folder`, all of them or none."""
    from sim.folder import replacing, writing

    shown = not quiet and sys.stderr.isatty()
    try:
        with replacing(folder) as fresh:
            _progress(f"simulating {scenario.name} ...", shown)
            result = _simulate(scenario, path)
            _progress(f"writing {folder} ...", shown)
            from reports.folder import write

            with writing(folder):
                write(result, fresh, scenario.outputs, time.perf_counter() - start)
    finally:
        _progress("", shown)
    return result


def _simulate(scenario: "Scenario", path: str) -> "Result":
    """The result; a scenario that is refused on the way is wrong input."""
    import sim

    with refusals(path):
        return sim.run(scenario)


def _scenario_parser() -> Parser:
    parser = Parser(prog=PROG, add_help=False)
    parser.add_argument("words", nargs="*")
    return parser


def _progress(text: str, shown: bool) -> None:
    """`text` on the terminal's last line, in place of what was there."""
    if shown:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _check(words: list[str]) -> int:
    from sim import plan

    path, scenario = loaded(PROG, _scenario_parser().parse_intermixed_args(words).words)
    with refusals(path):
        plan.lay_out(scenario)
    print(f"{path}: nothing wrong ({scenario.name}; hash {scenario.scenario_hash})")
    return DONE


def _list(words: list[str]) -> int:
    from hwmodels import device, fabric, node
    from sim import program
    from sim.scenario import SCENARIOS, models

    known = {
        "scenarios": [f"scenarios/{file.name}" for file in sorted(SCENARIOS.glob("*.yaml"))],
        "models": models(), "devices": device.available(), "nodes": node.available(),
        "fabrics": fabric.available(), "schedules": program.names(),
    }  # fmt: skip
    for word in words:
        if word not in known:
            raise Refused(f"unknown kind {word!r}; legal: {', '.join(known)}")
    for kind in words or known:
        print(f"{kind}:", *known[kind], sep="\n  ")
    return DONE


def _schema(words: list[str]) -> int:
    import json

    from sim.scenario import schema

    Parser(prog=PROG, add_help=False).parse_args(words)
    print(json.dumps(schema(), indent=2))
    return DONE


def _validate(words: list[str]) -> int:
    """The table goes to stderr, Markdown and JSON to stdout; --write renews what a checkout records of predictions."""
    import json

    from sim import validate
    from sim.validation import page, records, table

    parser = Parser(prog=PROG, add_help=False)
    parser.add_argument("--format", choices=("text", "markdown", "json"), default="text")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args(words)
    rows, left = validate.compare_all(), validate.unanswered()
    if asked.format == "markdown":
        print(page.page(rows, left), end="")
    elif asked.format == "json":
        open_figures = [figure._asdict() for figure in left]
        print(json.dumps({"rows": [table.plain(row) for row in rows], "unanswered": open_figures}, indent=1))
    else:
        from shutil import get_terminal_size

        print(table.text(rows, get_terminal_size((120, 24)).columns), file=sys.stderr)
        print(f"\n{len(rows)} figures answered, {len(left)} not (see docs/VALIDATION.md)", file=sys.stderr)
    if asked.write:
        moved = records.write(records.CHECKOUT, rows, validate.headlines(rows), left)
        print(*moved, f"{len(moved)} predictions moved", sep="\n", file=sys.stderr)
        if moved:
            print("say so in CHANGELOG.md: a PREDICTION line with the step and the pair", file=sys.stderr)
    return DONE


def _sweep(words: list[str]) -> int:
    asked = _sweep_parser().parse_intermixed_args(words)
    if not asked.words:
        raise Refused("a sweep file is missing, e.g. scenarios/sweeps/stragglers.yaml; see python -m sim --help")
    return _swept(asked, Path(asked.words[0]))[1]


def _study(words: list[str]) -> int:
    from reports.studies.page import STUDIES, renew
    from sim.scenario import SCENARIOS

    parser = _sweep_parser()
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    asked = parser.parse_intermixed_args(words)
    if not asked.words or asked.words[0] not in STUDIES:
        found = f"unknown study {asked.words[0]!r}" if asked.words else "a study is missing"
        raise Refused(f"{found}; legal: {', '.join(STUDIES)}")
    name = asked.words[0]
    told, code = _swept(asked, SCENARIOS / "sweeps" / f"{name}.yaml")
    if code == DONE:
        print("written:", *renew(name, told, _published(), asked.docs))
    return code


def _published() -> dict[str, float]:
    """Figures that studies compare with, by id, in the units of scenarios/published."""
    from sim.validate import published

    rows = (row for name in ("deepseek_v3", "profile") for row in published(name)["rows"])
    return {row["id"]: float(row["value"]) for row in rows}


def _sweep_parser() -> Parser:
    parser = _scenario_parser()
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("-q", "--quiet", action="store_true")
    return parser


def _swept(asked: argparse.Namespace, path: Path) -> "tuple[list[tuple[dict[str, str], Record]], int]":
    """Run a sweep, print and write its table. Answers each point's labels with its record, and the exit code."""
    from sim import sweep

    kept = asked.out or Path("out", "sweeps", f"{path.stem}.jsonl")
    if asked.jobs < 1:
        raise Refused(f"--jobs expects a whole number, 1 or more; found {asked.jobs}")
    if kept.suffix != ".jsonl":
        raise Refused(f"{kept}: --out of a sweep is a file that ends in .jsonl")
    shown = not asked.quiet and sys.stderr.isatty()
    try:
        plan = sweep.read_sweep(path, asked.words[1:])
        records = sweep.records_of(plan, asked.jobs, kept, lambda done, all: _progress(f"{done} of {all} runs", shown))
        rows = sweep.table(plan, records)
        sweep.write_csv(rows, kept.with_suffix(".csv"))
    except KeyboardInterrupt:
        print(f"interrupted; the runs done are in {kept}, and the same command goes on from there", file=sys.stderr)
        return [], INTERRUPTED
    finally:
        _progress("", shown)
    print(sweep.text(rows))
    ran = list(zip(plan.points, records, strict=True))
    for point, found in ran:
        if why := sweep.lack(found):
            print(f"{path}: {point.title}: {why}", file=sys.stderr)
    failures = dict.fromkeys(found["failed"] for found in records if "failed" in found)
    print(*failures, sep="\n", end="", file=sys.stderr)
    code = BUG if failures else WRONG if any("error" in found for found in records) else DONE
    return [(point.labels, found) for point, found in ran], code


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run, "check": _check, "list": _list, "schema": _schema, "validate": _validate, "sweep": _sweep,
    "study": _study,
}  # fmt: skip


def _terminated(signal_number: int, frame: object) -> NoReturn:
    """SIGTERM leaves nothing half-written either."""
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main())
