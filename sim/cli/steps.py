"""The command `steps`: measured steps of plain torch, on one GPU and on several, beside simulated ones."""

from pathlib import Path

from hwmodels.refused import Refused
from sim.cli import pages
from sim.cli.command import Parser


def steps(words: list[str]) -> int:
    """The page goes to stdout; --write renews it in docs/ of a checkout: TORCH_STEPS.md, with --gpus 8 NODE_STEPS.md.

    Rows measured over eight may be in a file that a card run left (--measured)."""
    parser = Parser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--gpus", type=int, choices=(8,))
    parser.add_argument("--measured", type=Path)
    args = parser.parse_args(words)
    if args.measured and not args.gpus:
        raise Refused("--measured goes with --gpus 8: steps over fewer GPUs are kept in scenarios/measured")
    return pages.renewed(_page(args.gpus), lambda: _node(args.measured) if args.gpus else _torch(), args.write)


def _page(gpus: int | None) -> Path:
    from sim.validation import torch_node, torch_page

    return torch_node.PAGE if gpus else torch_page.PAGE


def _node(measured: Path | None) -> str:
    """Steps over eight GPUs, predicted and as far as measured."""
    from sim.validation import torch_node

    return torch_node.page(list(torch_node.steps(measured)))


def _torch() -> str:
    """Steps over one, two and four GPUs."""
    from hwmodels.units import KILO
    from sim.validation import torch_pairs
    from sim.validation.torch_page import page
    from sim.validation.torch_steps import compared, runs

    bound = next(run for run in runs() if run["name"] == "sm_24L_1k1")
    return page(compared(), bound["kernel_us"] / KILO) + torch_pairs.section()
