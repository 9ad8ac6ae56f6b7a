"""The command line of loads: `python -m sim tokens SCENARIO.yaml [key=value ...] [--steps N] [--format text|json]`.

Exit codes as of `python -m sim`: 0 done, 2 wrong input (one line on stderr), 70 a bug of ours (its traceback), 130
interrupted, 141 a closed pipe.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hwmodels.refused import Refused
from sim.cli.command import DONE, Parser, loaded, refusals
from sim.result.title import title

PROG = "python -m sim tokens"

HELP = """\
usage: python -m sim tokens SCENARIO.yaml [key=value ...] [--steps N] [--format text|json]

Who receives how many tokens: by layer over all ranks and micro-batches, as a run draws them, and how many nodes and
ranks a token reaches. Nothing is simulated.

options:
  --steps N            also run N steps of the loss-free bias update of a sigmoid gate from the scenario's popularity,
                       and tell how MaxVio falls (two seconds a step for the 59 layers of DeepSeek-V3)
  --format text|json   text: tables; json: the same and every rank in every layer of the first micro-batch
"""


def tokens(words: Sequence[str]) -> int:
    """Run what `words` say; the answer is the exit code."""
    parser = Parser(PROG, worded=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    args = parser.parse_intermixed_args(words)
    if args.steps is not None and args.steps < 1:
        raise Refused(f"--steps expects a whole number, 1 or more; found {args.steps}")
    path, scenario = loaded(PROG, args.words)
    from sim.experiments.tokens import survey

    with refusals(path):
        table = survey(scenario, args.steps or 0)
    print(json.dumps(table, indent=1) if args.format == "json" else "\n\n".join(_tables(table)))
    return DONE


def _tables(table: dict[str, Any]) -> Iterator[str]:
    """The same as text."""
    from sim.experiments.table import text

    priced, drawn = table["reach"]["priced"], table["reach"]["drawn"]
    how = "expected values" if table["expected"] else f"{table['ranks']} ranks, {table['micro_batches']} micro-batches"
    yield (
        f"{title(table['scenario'], table['overrides'])}: {table['routing']} routing,"
        f" {table['tokens']:,} tokens a rank and micro-batch, expert groups of {table['group']} ranks; {how}"
    )
    head = ["layer", "received least", "mean", "most", "rows least", "mean", "most", "MaxVio"]
    rows = [_row(layer, () if table["expected"] else ("max_vio_popularity",)) for layer in table["layers"]]
    yield text([head if table["expected"] else [*head, "of popularity"], *rows])
    yield (
        f"a token reaches {priced['nodes']:.2f} nodes and {priced['ranks']:.2f} ranks as exchanges are priced;"
        f" {drawn['nodes']:.2f} and {drawn['ranks']:.2f} of {drawn['tokens']:,} tokens drawn through the gate\n"
        "received: tokens of a rank; rows: of its experts, each padded to 128\n"
        "MaxVio: largest over mean tokens of an expert, less 1, " + _of_what(table)
    )
    if "bias" in table:
        bias = table["bias"]
        rows = [[s["step"], f"{s['mean']:.3f}", f"{s['largest']:.3f}"] for s in bias["steps"]]
        yield text([["step", "MaxVio mean", "MaxVio largest"], *rows])
        yield (
            f"{bias['tokens']:,} tokens a step and layer, biases moved by {bias['speed']:g} after each step;"
            f" experts liked alike have a MaxVio of {bias['alike']:.3f} with so many tokens, by chance alone"
        )


def _of_what(table: dict[str, Any]) -> str:
    """Which tokens MaxVio is of."""
    if table["expected"]:
        return "as expected: no tokens are drawn"
    return f"as drawn in a step of {table['step_tokens']:,} tokens; of popularity: of expected tokens"


def _row(layer: dict[str, Any], more: Sequence[str]) -> list[object]:
    """Cells of a layer; `more` says which shares follow its MaxVio."""
    parts = (layer[what] for what in ("received", "rows"))
    figures = [f"{part[key]:.0f}" for part in parts for key in ("smallest", "mean", "largest")]
    return [layer["layer"], *figures, *(f"{layer[key]:.3f}" for key in ("max_vio", *more))]
