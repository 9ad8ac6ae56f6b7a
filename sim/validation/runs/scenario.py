"""A row as a scenario: its model, machine, layout and words in one mapping, and what was left to defaults."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hwmodels.refused import Refused
from sim.models.stacks.stack import KINDS
from sim.scenario.files import from_mapping
from sim.scenario.software import has
from sim.scenario.values import Scenario
from sim.validation.runs import layouts, machines, models, software, words
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
    "precision": lambda run, stack: True,
    "parallel.zero": lambda run, stack: True,
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
    "parallel.no_sync": lambda run, stack: KINDS[stack].units and _copies(run, stack),
    "stack.loss_parallel": lambda run, stack: "loss_parallel" in KINDS[stack].options and (run.tensor or 1) > 1,
    "placement": _many("pipeline"),
    "stack.dispatcher": lambda run, stack: (run.expert or 1) > 1 and "dispatcher" in KINDS[stack].options,
    "stack.compiled": lambda run, stack: "compiled" in KINDS[stack].options,
    "stack.cuda_graphs": lambda run, stack: True,
    "stack.graphed": lambda run, stack: "graphed" in KINDS[stack].options,
    "stack.attention_precision": lambda run, stack: machines.multiplies_fp8(run),
    "stack.attention": lambda run, stack: "attention" in KINDS[stack].options,
    "routing.kind": _many("expert"),
    "states.gradients": lambda run, stack: True,
    "cluster.fabric": lambda run, stack: (run.gpus or 1) > 8,
    "cluster.node.gpus": lambda run, stack: run.gpus == machines.RACK,
}
"""Key -> whether it can matter to a row on a stack. A key of a phrase that cannot is left out; one that can, and that
no phrase says, is a default, but for the last of these."""
INSTEAD = " (instead)"
"""Ends what counts as not said since something else stands for it."""
NOT_ASKED = (
    "parallel.shard", "parallel.no_sync", "cluster.node.gpus", "stack.graphed", "stack.attention",
    "stack.attention_precision", "stack.loss_parallel",
)  # fmt: skip
"""Of them: left out is what everybody has."""


def mapped(run: Run) -> Mapped:
    """The scenario of a row. Raises Refused where it cannot be one, with the reason."""
    if run.wrong:
        raise Refused(run.wrong)
    family = software.family(run)
    run = _completed(family, run)
    said = list(words.meanings(run))
    if refused := next((each.refused for each in said if each.refused), ""):
        raise Refused(refused)
    keys = {key: value for each in said for key, value in each.keys.items()}
    own = _of_model(family, run)
    stacks = own.get("stack", family["stack"])
    stack = software.stack(stacks, keys.get("precision", PRECISION), models.mixture(run))
    stands = family.get("instead", "") if stack != stacks[0] else ""
    row = family.get("rows", {}).get(run.id, {}).get("keys", {})
    keys = {
        **family.get("keys", {}), **own.get("keys", {}), **_of_release(family, run), **_layout_string(run, own, keys),
        **_of_software(family, run, keys.get("precision", PRECISION)), **keys, **row,
    }  # fmt: skip
    keys = {key: value for key, value in keys.items() if _matters(run, stack, key, value)}
    if keys.get("parallel.shard") == layouts.replicas(run) * (run.context or 1):
        del keys["parallel.shard"]
    given = {*keys, *NOT_ASKED, *(["parallel.expert_tensor"] if run.expert_tensor else [])}
    defaults = tuple(key for key, matters in MATTERS.items() if key not in given and matters(run, stack))
    keys = {"precision": PRECISION, **family.get("unsaid", {}), **keys}
    other = list(software.instead(run, stack, keys))
    keys |= {each.key: each.value for each in other} | layouts.parallel(run)
    if not keys.get("placement", "-"):
        del keys["placement"]
    notes = [
        *(note for each in said for note in (*each.notes, *each.instead)),
        *(each.note for each in other),
        machines.gpu(run).note, stands,
    ]  # fmt: skip
    notes += [models.instead(run), *(f"not understood: {each.left}" for each in said if each.left)]
    stood = ["stack.name"] * bool(stands) + [each.key for each in other if each.note]
    doubts = _doubts(run, said) + tuple(f"{key}{INSTEAD}" for key in stood)
    return Mapped(_plain(run, stack, keys), defaults + doubts, tuple(dict.fromkeys(filter(None, notes))))


def _has(run: Run, stack: str) -> bool:
    return True


def _matters(run: Run, stack: str, key: str, value: Any) -> bool:
    """Whether a key can matter to a row, and a stack that stands for the row's has it, and the value for it."""
    word = key.removeprefix("stack.")
    known = word in (key, "name") or (word in KINDS[stack].options and has(stack, word, value))
    return known and MATTERS.get(key, _has)(run, stack)


PRECISION = "bf16"
"""Of a row that says none."""


def _completed(family: Mapping[str, Any], run: Run) -> Run:
    """The row with numbers of its columns that it leaves out, of axes, and that its family's sources say."""
    columns = _of_model(family, run).get("columns", {})
    return replace(run, **{name: value for name, value in columns.items() if getattr(run, name) in (None, 1)})


def _of_model(family: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
    """What a family's sources say of a row's model; of a GPU and from so many on, where they say that (only)."""
    own: Mapping[str, Any] = family.get("models", {}).get(models.known_as(run), {})
    only = own.get("only", {})
    alike = run.gpu == only.get("gpu", run.gpu) and (run.gpus or 1) >= only.get("from_gpus", 1)
    return own if alike else {}


def _of_release(family: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Keys that its sources give for all rows of a release, which the row's source or words name."""
    named = (each for name, each in family.get("releases", {}).items() if name in run.source or name in run.other)
    return {key: value for each in named for key, value in each["keys"].items()}


def _of_software(family: Mapping[str, Any], run: Run, precision: str) -> dict[str, Any]:
    """Keys of the kernels that a release launches: those of all entries that name the row's release, model, GPU and
    precision, or leave them open."""
    said = {"model": models.known_as(run), "gpu": run.gpu, "precision": precision}

    def alike(each: Mapping[str, Any]) -> bool:
        named = any(run.source.endswith(f" {name}") for name in each.get("releases", [])) or "releases" not in each
        return named and all(said[key] in each.get(key, said[key]) for key in said)

    return {key: value for each in family.get("software", []) if alike(each) for key, value in each["keys"].items()}


def _doubts(run: Run, said: Iterable[words.Meaning]) -> tuple[str, ...]:
    """What counts as not said besides: numbers that somebody assumed, phrases that nobody understands, a family that
    nobody described, a GPU that another stands for."""
    out = [f"{key} (assumed)" for key in run.assumed]
    out += [f"{each.column} (not understood)" for each in said if each.left]
    out += [f"{each.column}{INSTEAD}" for each in said if each.instead]
    out += ["stack.name"] if run.family not in words.table("families") else []
    out += [f"model{INSTEAD}"] if models.instead(run) else []
    out += ["gpu (a like one)"] if machines.gpu(run).note else []
    return tuple(dict.fromkeys(out))


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
    for key, value in {**machines.collectives(run), **keys}.items():
        _put(plain, key, value)
    if "placement" not in plain and (rule := layouts.placement(run, models.layers(plain["model"]))):
        plain["placement"] = rule
    return plain


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
