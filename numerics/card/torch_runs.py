"""`python -m numerics calibrate --torch`: which runs time torch's kernels on a card, and the file that each leaves."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from hwmodels.refused import Refused
from numerics.card import torch_mix, torch_optimizers, torch_plan, torch_times, torch_wider
from numerics.tables.library import BURSTS, COMPANY, SCALED

Show = Callable[[str], None]


def company(path: Path, show: Show) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": list(torch_mix.run())}) + "\n", encoding="utf-8")


RUNS: dict[str, tuple[str, Callable[[Path, Show], object]]] = {
    "library": (BURSTS, lambda path, show: torch_times.run(path, show, torch_times.BUDGET_S)),
    "scaled": (SCALED, lambda path, show: torch_times.run(path, show, torch_times.BUDGET_S, torch_plan.scaled)),
    "company": (COMPANY, company),
    "optimizers": ("optimizers.json", lambda path, show: torch_optimizers.run(path, show, 150.0)),
    "heads": ("heads.json", lambda path, show: torch_times.run(path, show, 150.0, torch_wider.heads)),
    "blocks": ("blocks.json", lambda path, show: torch_times.run(path, show, 90.0, torch_wider.blocks)),
    "experts": ("experts.json", lambda path, show: torch_times.run(path, show, 90.0, torch_wider.experts)),
}
"""Name -> file, and what writes it within its own seconds; the last four take seven minutes at most on an H200."""


def run(folder: Path, names: Sequence[str], show: Show) -> list[str]:
    """The files of some runs, or of all. Raises Refused for a name that is none."""
    if unknown := [name for name in names if name not in RUNS]:
        raise Refused(f"--only {unknown[0]}: no such run; legal: {', '.join(RUNS)}")
    wanted = [RUNS[name] for name in names or RUNS]
    for file, timed in wanted:
        timed(folder / file, show)
    return [file for file, _ in wanted]
