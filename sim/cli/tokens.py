"""The command line of loads: `python -m sim tokens SCENARIO.yaml [key=value ...] [--steps N] [--format text|json]`.

Exit codes as of `python -m sim`: 0 done, 2 wrong input (one line on stderr), 70 a bug of ours (its traceback), 130
interrupted, 141 a closed pipe.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hwmodels.refused import Refused
from sim.cli.command import DONE, Parser, helped, loaded, refusals

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
    return helped(words, HELP, _command)


def _command(words: Sequence[str]) -> int:
    parser = Parser(prog=PROG, add_help=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    asked = parser.parse_intermixed_args(words)
    if asked.steps is not None and asked.steps < 1:
        raise Refused(f"--steps expects a whole number, 1 or more; found {asked.steps}")
    path, scenario = loaded(PROG, asked.words)
    from sim.experiments.tokens import survey

    with refusals(path):
        told = survey(scenario, asked.steps or 0)
    print(json.dumps(told, indent=1) if asked.format == "json" else "\n\n".join(_tables(told)))
    return DONE


def _tables(told: dict[str, Any]) -> Iterator[str]:
    """The same as text."""
    from sim.experiments.sweep import text

    priced, drawn = told["reach"]["priced"], told["reach"]["drawn"]
    how = "expected values" if told["expected"] else f"{told['ranks']} ranks, {told['micro_batches']} micro-batches"
    yield (
        f"{told['scenario']}: {told['routing']} routing, {told['tokens']:,} tokens a rank and micro-batch,"
        f" expert groups of {told['group']} ranks; {how}"
    )
    head = ["layer", "received least", "mean", "most", "rows least", "mean", "most", "MaxVio"]
    rows = [_row(layer, () if told["expected"] else ("max_vio_popularity",)) for layer in told["layers"]]
    yield text([head if told["expected"] else [*head, "of popularity"], *rows])
    yield (
        f"a token reaches {priced['nodes']:.2f} nodes and {priced['ranks']:.2f} ranks as exchanges are priced;"
        f" {drawn['nodes']:.2f} and {drawn['ranks']:.2f} of {drawn['tokens']:,} tokens drawn through the gate\n"
        "received: tokens of a rank; rows: of its experts, each padded to 128\n"
        "MaxVio: largest over mean tokens of an expert, less 1, " + _of_what(told)
    )
    if "bias" in told:
        found = told["bias"]
        rows = [[s["step"], f"{s['mean']:.3f}", f"{s['largest']:.3f}"] for s in found["steps"]]
        yield text([["step", "MaxVio mean", "MaxVio largest"], *rows])
        yield (
            f"{found['tokens']:,} tokens a step and layer, biases moved by {found['speed']:g} after each step;"
            f" experts liked alike have a MaxVio of {found['alike']:.3f} with so many tokens, by chance alone"
        )


def _of_what(told: dict[str, Any]) -> str:
    """Which tokens MaxVio is of."""
    if told["expected"]:
        return "as expected: no tokens are drawn"
    return f"as drawn in a step of {told['step_tokens']:,} tokens; of popularity: of expected tokens"


def _row(layer: dict[str, Any], more: Sequence[str]) -> list[object]:
    """Cells of a layer; `more` says which shares follow its MaxVio."""
    parts = (layer[what] for what in ("received", "rows"))
    figures = [f"{part[key]:.0f}" for part in parts for key in ("smallest", "mean", "largest")]
    return [layer["layer"], *figures, *(f"{layer[key]:.3f}" for key in ("max_vio", *more))]
