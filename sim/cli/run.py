"""Commands on one scenario: run it, check it, list what is known, print the schema."""

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from hwmodels.refused import Refused
from sim.cli import campaign, serving
from sim.cli.command import DONE, INFEASIBLE, PROG, Parser, loaded, progress, refusals, reported
from sim.experiments import kinds
from sim.result.title import changes

if TYPE_CHECKING:
    from sim.result import Result
    from sim.scenario import Scenario


def run(words: list[str]) -> int:
    start = time.perf_counter()
    parser = Parser(worded=True)
    parser.add_argument("--out", type=Path)
    parser.tells()
    args = parser.parse_intermixed_args(words)
    which = kinds.kind(args.words[0]) if args.words else ""
    if which == kinds.SERVE:
        return serving.run(args, args.out or place(args.words[0], args.words[1:]))
    if which in (kinds.CAMPAIGN, kinds.RL):
        return campaign.run(args, args.out or place(args.words[0], args.words[1:]), start)
    path, scenario = loaded(PROG, args.words)
    from reports import headline, terminal
    from sim.analysis.notes import notes

    folder = args.out or place(path, args.words[1:])
    result = _write(scenario, path, folder, args.quiet, start)
    reported(args, folder, lambda: terminal.show(result, stream=sys.stderr))
    for line in (*notes(scenario, result.summary, args.words[1:]), *result.summary.get("unfelt", ())):
        print(f"{path}: {line}", file=sys.stderr)
    for line in result.summary["infeasible"]:
        print(f"infeasible: {line}", file=sys.stderr)
    for line in headline.advice(result):
        print(f"advice: {line}", file=sys.stderr)
    return DONE if result.summary["feasible"] else INFEASIBLE


NAME_LENGTH, DIGEST_BYTES = 80, 4


def place(path: str, overrides: Sequence[str]) -> Path:
    """The folder of a run that --out does not name: that of the file, or one for these overrides beside it.

    Letters that do not belong into a file's name become `_`, and a digest tells apart what is then alike.
    """
    words = changes(overrides)
    stem, text = Path(path).stem, ",".join(words)
    if not words:
        return Path("out", stem)
    safe = re.sub(r"[^\w.,=+-]+", "_", text, flags=re.ASCII)[:NAME_LENGTH]
    if safe != text:
        safe += f"-{blake2b(text.encode(errors='surrogateescape'), digest_size=DIGEST_BYTES).hexdigest()}"
    return Path("out", f"{stem},{safe}")


def _write(scenario: "Scenario", path: str, folder: Path, quiet: bool, start: float) -> "Result":
    """Simulate, and write the results as `folder`, all of them or none."""
    from sim.result import archive
    from sim.result.folder import replacing, writing

    shown = not quiet and sys.stderr.isatty()
    try:
        with replacing(folder, archive.FILES) as fresh:
            progress(f"simulating {scenario.title} ...", shown)
            result = _advised(_simulate(scenario, path), scenario, shown)
            progress(f"writing {folder} ...", shown)
            from reports.folder import write

            with writing(folder):
                write(result, fresh, scenario.outputs)
                archive.write(result, fresh, scenario.outputs, time.perf_counter() - start)
    finally:
        progress("", shown)
    return result


def _simulate(scenario: "Scenario", path: str) -> "Result":
    """The result; a scenario that is refused on the way is wrong input."""
    import sim

    with refusals(path):
        return sim.run(scenario)


def _advised(result: "Result", scenario: "Scenario", shown: bool) -> "Result":
    """The result; with changes that fit, where it does not fit in memory."""
    worst = result.summary.get("worst_memory")
    if result.summary["feasible"] or worst is None:
        return result
    from sim.experiments import advice

    if worst["peak_bytes"] <= advice.room(scenario):
        return result
    step_s = result.summary["step_time_s"]
    changes = advice.advice(scenario, step_s, lambda text: progress(f"advice: {text} ...", shown))
    return replace(result, summary=result.summary | {"advice": changes})


def check(words: list[str]) -> int:
    """Run without a folder: what does not fit or misses a limit is told, like what is refused, and what changes
    nothing."""
    from sim.experiments.unfelt import unfelt
    from sim.simulation import run

    args = Parser(worded=True).parse_intermixed_args(words).words
    which = kinds.kind(args[0]) if args else ""
    if which == kinds.SERVE:
        return serving.check(args)
    if which in (kinds.CAMPAIGN, kinds.RL):
        return campaign.check(args)
    path, scenario = loaded(PROG, [*args[:1], "outputs=[result]", *args[1:]] if args else [])
    with refusals(path):
        summary, lines = run(scenario, interval=False).summary, list(unfelt(scenario))
    for line in lines:
        print(f"{path}: {line}", file=sys.stderr)
    for line in summary["infeasible"]:
        print(f"{path}: infeasible: {line}", file=sys.stderr)
    if summary["feasible"]:
        print(f"{path}: nothing wrong ({scenario.title}; hash {scenario.scenario_hash})")
    return DONE if summary["feasible"] else INFEASIBLE


def known(words: list[str]) -> int:
    from hwmodels import device, fabric, node
    from hwmodels.shelf import names
    from sim.experiments.search import SEARCHES
    from sim.experiments.sweep import SWEEPS
    from sim.scenario.shelves import models, scenarios
    from sim.schedules import program

    known = {
        "scenarios": scenarios(), "sweeps": names(SWEEPS), "searches": names(SEARCHES), "models": models(),
        "devices": device.available(),
        "nodes": node.available(), "fabrics": fabric.available(), "schedules": program.names(),
    }  # fmt: skip
    for word in words:
        if word not in known:
            raise Refused(f"unknown kind {word!r}; legal: {', '.join(known)}")
    for kind in words or known:
        print(f"{kind}:", *known[kind], sep="\n  ")
    return DONE
