"""Commands on a campaign: run it into a folder, check it."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sim.cli.command import DONE, INFEASIBLE, progress, refusals

if TYPE_CHECKING:
    from sim.campaign.answer import Answer
    from sim.campaign.values import Campaign


def run(args: argparse.Namespace, folder: Path, start: float) -> int:
    """Simulate a campaign, and write its folder."""
    from sim.campaign.resolve import load

    path = args.words[0]
    campaign = load(path, args.words[1:])
    answer = _write(campaign, path, folder, args.quiet, start)
    if not args.quiet:
        from reports import campaign as page

        page.show(answer.summary, sys.stderr)
        print(f"written to {folder}", file=sys.stderr)
    if args.format == "json":
        sys.stdout.write((folder / "result.json").read_text(encoding="utf-8"))
    return _code(answer, f"{path}: ")


def check(words: list[str]) -> int:
    """The same without a folder."""
    from sim.campaign.answer import run as simulate
    from sim.campaign.resolve import load

    campaign = load(words[0], words[1:])
    with refusals(words[0]):
        answer = simulate(campaign)
    if answer.summary["feasible"]:
        print(f"{words[0]}: nothing wrong ({campaign.title}; hash {campaign.scenario_hash})")
    return _code(answer, f"{words[0]}: ")


def _code(answer: "Answer", before: str) -> int:
    """The exit code; what is against a campaign, and what changes nothing in it, is told."""
    for line in answer.summary["unfelt"]:
        print(f"{before}{line}", file=sys.stderr)
    for line in answer.summary["infeasible"]:
        print(f"{before}infeasible: {line}", file=sys.stderr)
    return DONE if answer.summary["feasible"] else INFEASIBLE


def _write(campaign: "Campaign", path: str, folder: Path, quiet: bool, start: float) -> "Answer":
    """Simulate, and write result.json, scenario.yaml and report.html, all of them or none."""
    from sim.campaign.answer import run as simulate
    from sim.result import archive
    from sim.result.folder import LISTED, MARK, listed, replacing, writing

    shown = not quiet and sys.stderr.isatty()
    try:
        with replacing(folder, archive.FILES) as fresh:
            progress(f"simulating {campaign.title} ...", shown)
            with refusals(path):
                answer = simulate(campaign)
            with writing(folder):
                if "report" in campaign.outputs:
                    from reports import campaign as page

                    (fresh / "report.html").write_text(page.render(answer.summary, answer.scenario), encoding="utf-8")
                text = archive.scenario_text(answer.scenario)
                (fresh / "scenario.yaml").write_text(text, encoding="utf-8")
                own = {LISTED: listed(fresh), "wall_seconds": time.perf_counter() - start}
                (fresh / MARK).write_text(archive.figures(answer.summary | own), encoding="utf-8")
    finally:
        progress("", shown)
    return answer
