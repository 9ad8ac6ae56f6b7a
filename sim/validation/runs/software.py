"""The software of a row: its family's stack, and what that runs where a row says what it does not know."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from sim.models.recompute import SELECTIVE
from sim.models.stacks.stack import KINDS
from sim.validation.runs import layouts, models
from sim.validation.runs.rows import Run
from sim.validation.runs.words import table

ANY = {"stack": ["megatron"]}, {"stack": ["torch", "megatron"], "unsaid": {"parallel.zero": 3}}
"""What a family that nobody described has: Megatron's or torch's."""
TORCH = re.compile(r"torch|\bfsdp2?\b|automodel|foundry|composer|lightning|accelerate", re.IGNORECASE)
"""Words of rows that torch's stack runs, where a family is none that is known and Megatron is not named."""


def family(run: Run) -> Mapping[str, Any]:
    """What rows of its family have in common; where nobody described that, the software that its words name."""
    known = table("families")
    if run.family in known:
        return cast(Mapping[str, Any], known[run.family])
    text = " ".join((run.family, run.source, run.data_parallel, run.overlap, run.other))
    return ANY[bool(TORCH.search(text)) and "megatron" not in text.casefold()]


def stack(stacks: list[str], precision: str, mixture: bool = False) -> str:
    """The first that has kernels for a precision; the last where none has, which is then refused by name. mixture: of
    experts, which torch multiplies in BF16 alone here."""

    def known(name: str) -> bool:
        return precision in KINDS[name].precisions and not (mixture and KINDS[name].plain and precision != BF16)

    return next(filter(known, stacks), stacks[-1])


BF16 = "bf16"


class Instead(NamedTuple):
    """A key with a value that a row does not say so, and what it stands for; no note: it follows from the others."""

    key: str
    value: Any
    note: str = ""


def instead(run: Run, name: str, keys: Mapping[str, Any]) -> Iterator[Instead]:
    """What a stack runs beside or instead of what a row says."""
    kind, eager = KINDS[name], keys.get("stack.compiled") is False
    if kind.plain and keys.get("stack.compiled") and models.mixture(run):
        note = "what torch.compile fuses of experts is not built: eager kernels stand for them, and for all else"
        yield Instead("stack.compiled", False, note)
    elif kind.plain and keys["precision"] != BF16:  # no eager kernels of torchao's casts are known
        note = "torchao's casts run eagerly have no kernels here: those of torch.compile stand for them"
        yield Instead("stack.compiled", True, note * eager)
    elif kind.plain and keys.get("overlap.tensor") and (run.tensor or 1) > 1:
        yield Instead("stack.compiled", True, "asynchronous tensor parallelism is torch.compile's" * eager)
    if keys.get("stack.graphed") and keys.get("stack.cuda_graphs"):  # a scope says more than an implementation
        yield Instead("stack.cuda_graphs", False)
    if isinstance(text := keys.get("placement"), str):
        yield from _placed(run, text, keys)
    if keys.get("recompute") == SELECTIVE and not kind.selective:
        note = f"torchtitan's policy by operators is none of {name}'s: core attention is computed again"
        yield Instead("recompute", {"modules": ["core_attention"]}, note)


def _placed(run: Run, text: str, keys: Mapping[str, Any]) -> Iterator[Instead]:
    """A layout string of other layers or stages than the row's is left to the rule; prediction modules are as many as
    its letters say."""
    if not layouts.fits(run, text, models.layers(models.model(run))):
        yield Instead("placement", "", f"the layout {text} is of other layers or stages: they are spread by rule")
    elif not (modules := keys.get("model.mtp_depth", models.predicts(run))) and "m" in text:
        yield Instead("placement", text.replace("m", ""))
    elif modules != text.count("m") and "model.mtp_depth" not in keys:
        yield Instead("model.mtp_depth", text.count("m"), f"prediction modules as in the layout {text}")
