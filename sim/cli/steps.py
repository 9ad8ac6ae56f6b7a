"""The command `steps`: measured steps of plain torch, on one GPU and on several, beside simulated ones."""

import sys

from sim.cli.command import DONE, PROG, Parser


def steps(words: list[str]) -> int:
    """The page goes to stdout; --write renews docs/TORCH_STEPS.md of a checkout."""
    from hwmodels.units import KILO
    from sim.validation import torch_pairs
    from sim.validation.torch_page import PAGE, page
    from sim.validation.torch_steps import compared, runs

    parser = Parser(prog=PROG, add_help=False)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(words)
    bound = next(run for run in runs() if run["name"] == "sm_24L_1k1")
    text = page(compared(), bound["kernel_us"] / KILO) + torch_pairs.section()
    if args.write:
        PAGE.write_text(text, encoding="utf-8")
        print(f"written to {PAGE}", file=sys.stderr)
    else:
        print(text, end="")
    return DONE
