"""A row as a scenario: its model, machine, layout and words in one mapping, and what was left to defaults."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hwmodels.document import unknown
from hwmodels.refused import Refused
from sim.models.stacks.stack import KINDS
from sim.scenario.files import from_mapping
from sim.scenario.values import Scenario
from sim.validation.runs import layouts, machines, models, words
from sim.validation.runs.rows import Run


@dataclass(frozen=True)
class Mapped:
    """A row as a scenario says it. plain: as YAML would. defaults: keys that matter to the row and that it does not
    say. notes: what its words say beyond the keys."""

    plain: Mapping[str, Any]
    defaults: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def scenario(self) -> Scenario:
        """The scenario. Raises DocumentError."""
        return from_mapping(self.plain)


def _many(axis: str) -> Callable[[Run, str], bool]:
    return lambda run, stack: (getattr(run, axis) or 1) > 1


def _copies(run: Run, stack: str) -> bool:
    return layouts.replicas(run) * (run.context or 1) > 1


MATTERS: dict[str, Callable[[Run, str], bool]] = {
    "recompute": lambda run, stack: True,
    "overlap.gradients": _copies,
    "overlap.parameters": _copies,
    "overlap.buckets": _copies,
    "overlap.tensor": _many("tensor"),
    "overlap.expert": _many("expert"),
    "overlap.pipeline": _many("pipeline"),
    "parallel.sequence": _many("tensor"),
    "parallel.context_kind": _many("context"),
    "parallel.expert_tensor": lambda run, stack: (run.expert or 1) > 1 and (run.tensor or 1) > 1,
    "parallel.shard": _copies,
    "placement": _many("pipeline"),
    "stack.dispatcher": lambda run, stack: (run.expert or 1) > 1 and "dispatcher" in KINDS[stack].options,
    "stack.compiled": lambda run, stack: "compiled" in KINDS[stack].options,
    "stack.cuda_graphs": lambda run, stack: True,
    "routing.kind": _many("expert"),
    "states.gradients": lambda run, stack: True,
    "cluster.fabric": lambda run, stack: (run.gpus or 1) > 8,
}
"""Key -> whether it can matter to a row on a stack. A key of a phrase that cannot is left out; one that can, and that
no phrase says, is a default, but for the last of these."""
NOT_ASKED = ("parallel.shard",)
"""Of them: left out is what everybody has."""


def mapped(run: Run) -> Mapped:
    """The scenario of a row. Raises Refused where it cannot be one, with the reason."""
    family = _family(run)
    said = list(words.meanings(run))
    if refused := next((each.refused for each in said if each.refused), ""):
        raise Refused(refused)
    keys = {key: value for each in said for key, value in each.keys.items()}
    stack = _stack(family["stack"], keys["precision"])
    own = _of_model(family, run)
    keys = {**family.get("keys", {}), **own.get("keys", {}), **_layout_string(run, own, keys), **keys}
    keys = {key: value for key, value in keys.items() if key not in MATTERS or MATTERS[key](run, stack)}
    if keys.get("parallel.shard") == layouts.replicas(run) * (run.context or 1):
        del keys["parallel.shard"]
    given = {*keys, *NOT_ASKED, *(["parallel.expert_tensor"] if run.expert_tensor else [])}
    defaults = tuple(key for key, matters in MATTERS.items() if key not in given and matters(run, stack))
    keys |= layouts.parallel(run)
    plain = _plain(run, stack, keys)
    assumed = tuple(f"{key} (assumed)" for key in run.assumed)
    notes = tuple(dict.fromkeys(each.note for each in said if each.note))
    return Mapped(plain, defaults + assumed, notes)


def _family(run: Run) -> Mapping[str, Any]:
    known = words.table("families")
    if run.family not in known:
        raise Refused(unknown(run.family, "family", known))
    family: Mapping[str, Any] = known[run.family]
    return family


def _of_model(family: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
    """What a family's sources say of a row's model; of a GPU and from so many on, where they say that (only)."""
    own: Mapping[str, Any] = family.get("models", {}).get(run.model, {})
    only = own.get("only", {})
    alike = run.gpu == only.get("gpu", run.gpu) and (run.gpus or 1) >= only.get("from_gpus", 1)
    return own if alike else {}


def _stack(stacks: list[str], precision: str) -> str:
    """The first that has kernels for a precision; the last where none has, which is then refused by name."""
    return next((name for name in stacks if precision in KINDS[name].precisions), stacks[-1])


def _layout_string(run: Run, own: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Stages of the preset that a row is of; without a prediction module its place is empty."""
    layout = own.get("layouts", {}).get(f"{run.pipeline}x{run.chunks}")
    if layout and keys.get("model.mtp_depth") == 0:
        layout = layout.replace("m", "")
    return {"placement": layout} if layout else {}


def _plain(run: Run, stack: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": f"{run.id} {run.model}", "cluster": machines.cluster(run), "model": models.model(run),
        "stack": {"name": stack}, "schedule": layouts.schedule(run), "outputs": ["result"],
        "batch": {"sequences": run.sequences, "sequence_length": run.sequence_length, "micro_batch": run.micro_batch},
    }  # fmt: skip
    for key, value in {**machines.collectives(run), **_implied(stack, keys), **keys}.items():
        _put(plain, key, value)
    if "placement" not in plain and (rule := layouts.placement(run, models.layers(plain["model"]))):
        plain["placement"] = rule
    return plain


def _implied(stack: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """torchao's casts are fused by torch.compile: no eager kernels of that recipe are known."""
    return {"stack.compiled": True} if KINDS[stack].plain and keys["precision"] == "fp8_current" else {}


def _put(plain: dict[str, Any], key: str, value: Any) -> None:
    """A value under a dotted key; a document that stands there by its name alone becomes one that builds on it."""
    first, *rest = key.split(".")
    if not rest:
        plain[first] = value
        return
    inner = plain.setdefault(first, {})
    if isinstance(inner, str):
        inner = plain[first] = {"base": inner}
    _put(inner, ".".join(rest), value)
