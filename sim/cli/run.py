"""Commands on one scenario: run it, check it, list what is known, print the schema."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hwmodels.refused import Refused
from sim.cli.command import DONE, INFEASIBLE, PROG, Parser, loaded, progress, refusals, scenario_parser

if TYPE_CHECKING:
    from sim.result import Result
    from sim.scenario import Scenario


def run(words: list[str]) -> int:
    start = time.perf_counter()
    parser = scenario_parser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("-q", "--quiet", action="store_true")
    args = parser.parse_intermixed_args(words)
    path, scenario = loaded(PROG, args.words)
    from sim.analysis.notes import notes

    folder = args.out or Path("out", Path(path).stem)
    result = _write(scenario, path, folder, args.quiet, start)
    if not args.quiet:
        from reports import terminal

        terminal.show(result, stream=sys.stderr, overrides=args.words[1:])
        print(f"written to {folder}", file=sys.stderr)
    if args.format == "json":
        sys.stdout.write((folder / "result.json").read_text(encoding="utf-8"))
    from sim.experiments.unfelt import unfelt

    lines = (*notes(scenario, result.summary, args.words[1:]), *unfelt(scenario, path, args.words[1:]))
    for line in lines:
        print(f"{path}: {line}", file=sys.stderr)
    for line in result.summary["infeasible"]:
        print(f"infeasible: {line}", file=sys.stderr)
    return DONE if result.summary["feasible"] else INFEASIBLE


def _write(scenario: "Scenario", path: str, folder: Path, quiet: bool, start: float) -> "Result":
    """Simulate, and write the results as `folder`, all of them or none."""
    from sim.experiments.folder import replacing, writing

    shown = not quiet and sys.stderr.isatty()
    try:
        with replacing(folder) as fresh:
            progress(f"simulating {scenario.name} ...", shown)
            result = _simulate(scenario, path)
            progress(f"writing {folder} ...", shown)
            from reports.folder import write

            with writing(folder):
                write(result, fresh, scenario.outputs, time.perf_counter() - start)
    finally:
        progress("", shown)
    return result


def _simulate(scenario: "Scenario", path: str) -> "Result":
    """The result; a scenario that is refused on the way is wrong input."""
    import sim

    with refusals(path):
        return sim.run(scenario)


def check(words: list[str]) -> int:
    from sim.layout.plan import lay_out

    path, scenario = loaded(PROG, scenario_parser().parse_intermixed_args(words).words)
    with refusals(path):
        lay_out(scenario)
    print(f"{path}: nothing wrong ({scenario.name}; hash {scenario.scenario_hash})")
    return DONE


def known(words: list[str]) -> int:
    from hwmodels import device, fabric, node
    from sim.scenario.shelves import SCENARIOS, models
    from sim.schedules import program

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


def schema(words: list[str]) -> int:
    import json

    from sim.scenario.files import schema

    Parser(prog=PROG, add_help=False).parse_args(words)
    print(json.dumps(schema(), indent=2))
    return DONE
