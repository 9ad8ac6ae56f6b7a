"""Commands on a campaign and on reinforcement learning: run it into a folder, check it."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sim.cli import pages
from sim.cli.command import DONE, INFEASIBLE, progress, refusals, reported, unread
from sim.experiments import kinds

if TYPE_CHECKING:
    from sim.campaign.rl.values import Learning
    from sim.campaign.values import Campaign
    from sim.experiments.kind import Ran


def run(args: argparse.Namespace, folder: Path, start: float) -> int:
    """Simulate, and write a folder."""
    path = args.words[0]
    plan = _load(path, args.words[1:])
    answer = _write(plan, path, folder, args.quiet, start)
    reported(args, folder, lambda: _page(answer).show(answer.summary, sys.stderr))
    return _code(plan, answer, f"{path}: ")


def check(words: list[str]) -> int:
    """The same without a folder."""
    plan = _load(words[0], words[1:])
    with refusals(words[0]):
        answer = _simulated(plan)
    if answer.summary["feasible"]:
        print(f"{words[0]}: nothing wrong ({plan.title}; hash {plan.scenario_hash})")
    return _code(plan, answer, f"{words[0]}: ")


def rl(words: list[str]) -> int:
    """Published steps of reinforcement learning beside ours: the page goes to stdout; --write renews docs/RL.md of a
    checkout."""
    from sim.campaign.rl.page import PAGE, page

    return pages.document(words, PAGE, page)


def _load(path: str, overrides: Sequence[str]) -> "Campaign | Learning":
    plan: Campaign | Learning = kinds.load(path, overrides)  # type: ignore[assignment]
    return plan


def _simulated(plan: "Campaign | Learning") -> "Ran":
    return next(each for each in kinds.KINDS.values() if isinstance(plan, each.makes)).run(plan)


def _code(plan: "Campaign | Learning", answer: "Ran", before: str) -> int:
    """The exit code; what is against a plan, and what changes nothing in it, is told."""
    for line in (*answer.summary["unfelt"], *unread(plan)):
        print(f"{before}{line}", file=sys.stderr)
    for line in answer.summary["infeasible"]:
        print(f"{before}infeasible: {line}", file=sys.stderr)
    return DONE if answer.summary["feasible"] else INFEASIBLE


def _page(answer: "Ran") -> ModuleType:
    """The page of its kind."""
    from reports import campaign, rl

    return rl if kinds.RL in answer.summary else campaign


def _write(plan: "Campaign | Learning", path: str, folder: Path, quiet: bool, start: float) -> "Ran":
    """Simulate, and write result.json, scenario.yaml and report.html, all of them or none."""
    from sim.result import archive
    from sim.result.folder import LISTED, MARK, listed, replacing, writing

    shown = not quiet and sys.stderr.isatty()
    try:
        with replacing(folder, archive.FILES) as fresh:
            progress(f"simulating {plan.title} ...", shown)
            with refusals(path):
                answer = _simulated(plan)
            with writing(folder):
                if "report" in plan.outputs:
                    page = _page(answer).render(answer.summary, answer.scenario)
                    (fresh / "report.html").write_text(page, encoding="utf-8")
                text = archive.scenario_text(dict(answer.scenario))
                (fresh / "scenario.yaml").write_text(text, encoding="utf-8")
                own = {LISTED: listed(fresh), "wall_seconds": time.perf_counter() - start}
                (fresh / MARK).write_text(archive.figures({**answer.summary, **own}), encoding="utf-8")
    finally:
        progress("", shown)
    return answer
