"""Rules that say what the kernels of a trace are: name patterns in YAML, read into frozen values.

A rule file has `kernels` (first match wins; regular expressions searched in the kernel's name, optional conditions on
the annotation around its launch and on its grid), `phases` (which annotations are phases of a layer), and, where a
program always launches the same kernels in the same order, `sequences` (the operations of each phase, by position).
`extends` appends the rules of another shipped file. Shipped: the names of DeepSeek, of Megatron, of plain PyTorch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.document import Document, DocumentError, Place, Problem, dotted, read, unknown

FOLDER = Path(__file__).parent
CLASSES = {
    "gemm": "matrix product, precision not told by its name", "gemm_fp8": "FP8 product, forward or input gradient",
    "gemm_fp8_wgrad": "FP8 product that accumulates a weight gradient", "gemm_bf16": "BF16 or FP16 product",
    "gemm_grouped": "one product an expert in one kernel", "attn_fwd": "attention forward",
    "attn_bwd": "attention backward", "quant": "quantise or dequantise, transposing or not", "norm": "normalisation",
    "swiglu": "gated or plain activation", "rope": "rotary embedding", "permute": "token permutation and its maps",
    "routing": "gate, scores, top-k", "copy": "copy or cast without scales", "elementwise": "element by element",
    "reduce": "reduction or softmax", "weight_transpose": "transpose of a weight",
    "scale_transpose": "transpose of scales", "embedding": "table look-up and its gradient", "loss": "loss",
    "optimizer": "parameter update", "misc": "small kernels of other kinds", "comm_data": "moves data between ranks",
    "comm_sync": "barrier or layout exchange", "wrapper": "host operator: look at what it calls",
}  # fmt: skip
"""Classes a rule may give, and what they mean."""
SMALL = ("copy", "elementwise", "reduce", "routing", "misc")
"""Classes that a framework's general kernels serve: in a sequence, position decides between them."""
RULE_KEYS = ("class", "match", "op", "annotation", "grid", "loose")
FILE_KEYS = ("name", "source", "extends", "phases", "groups", "kernels", "sequences", "shapes", "contention")
_COUNTED = re.compile(r"(\S+) x(\d+)\Z")


class Rule(NamedTuple):
    """kind: a key of CLASSES. op: the operation's name, with groups of the match (\\1), or "". grid: -1 is any.

    loose: may come anywhere, belongs to no sequence (kernels that run now and then).
    """

    kind: str
    pattern: re.Pattern[str]
    op: str = ""
    annotation: re.Pattern[str] | None = None
    grid: tuple[int, ...] = ()
    loose: bool = False


class Named(NamedTuple):
    """What a kernel was found to be. `known`: a rule matched."""

    kind: str
    op: str
    loose: bool
    known: bool


@dataclass(frozen=True)
class Rules:
    """One rule file. phases: annotations that count; groups: operations on two streams that are one (group 1 names it).

    sequences: phase -> (class, operation) by position. shapes: where rows and K are read (see traces.operations).
    contention: family -> classes whose slow-down is estimated together, least microseconds and excluded operations.
    """

    name: str
    rules: tuple[Rule, ...]
    phases: re.Pattern[str] | None = None
    groups: re.Pattern[str] | None = None
    sequences: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    shapes: Mapping[str, Any] = field(default_factory=dict)
    contention: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def classify(self, name: str, annotation: str = "", grid: tuple[int, ...] = ()) -> Named:
        """The first rule that fits a kernel; class "misc" and not known when none does."""
        for rule in self.rules:
            match = rule.pattern.search(name)
            if match is None or (rule.annotation and not rule.annotation.search(annotation)):
                continue
            if rule.grid and any(a not in (-1, b) for a, b in zip(rule.grid, grid, strict=False)):
                continue
            return Named(rule.kind, match.expand(rule.op) if rule.op else "", rule.loose, True)
        return Named("misc", "", False, False)


def shipped() -> tuple[str, ...]:
    """Names of the rule files that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load(which: str | Path) -> Rules:
    """A shipped rule file by name, or one by path. Raises DocumentError with one line a problem."""
    path = Path(which)
    if str(which) in shipped():
        path = FOLDER / f"{which}.yaml"
    elif not path.suffix:
        raise DocumentError([Problem(Place("rules"), "", unknown(str(which), "rules", shipped()))])
    shown = path.name if path.parent == FOLDER else str(path)
    document = read(path, shown)
    problems: list[Problem] = []
    rules = _rules(document, problems)
    if problems:
        raise DocumentError(problems)
    return rules


def _rules(document: Document, problems: list[Problem]) -> Rules:
    content = document.content
    if not isinstance(content, dict) or not isinstance(content.get("kernels"), list):
        problems.append(Problem(document.place(()), "kernels", "missing: a list of {class: ..., match: ...}"))
        return Rules("", ())
    for key in content:
        if key not in FILE_KEYS:
            problems.append(Problem(document.place((key,)), key, unknown(key, "key", FILE_KEYS)))
    for key in ("sequences", "shapes", "contention"):
        if not isinstance(content.get(key) or {}, dict):
            kind = type(content.pop(key)).__name__
            problems.append(Problem(document.place((key,)), key, f"a mapping, found {kind}"))
    rules = [_rule(document, index, problems) for index in range(len(content["kernels"]))]
    base = content.get("extends")
    if base and base not in shipped():
        problems.append(Problem(document.place(("extends",)), "extends", unknown(base, "rules", shipped())))
    more = load(base).rules if base in shipped() else ()
    return Rules(
        str(content.get("name", "")), (*(r for r in rules if r), *more), _pattern(document, ("phases",), problems),
        _pattern(document, ("groups",), problems), _sequences(document, problems), content.get("shapes") or {},
        content.get("contention") or {},
    )  # fmt: skip


def _rule(document: Document, index: int, problems: list[Problem]) -> Rule | None:
    path = ("kernels", index)
    entry = document.content["kernels"][index]
    if not isinstance(entry, dict) or "class" not in entry or "match" not in entry:
        problems.append(Problem(document.place(path), dotted(path), "a rule is {class: ..., match: ...}"))
        return None
    before = len(problems)
    for key in entry:
        if key not in RULE_KEYS:
            problems.append(Problem(document.place((*path, key)), dotted(path), unknown(key, "key", RULE_KEYS)))
    _check_class(document, (*path, "class"), entry["class"], problems)
    pattern, annotation = (
        _pattern(document, (*path, key), problems, entry.get(key)) for key in ("match", "annotation")
    )
    sizes = entry.get("grid") or []
    if not isinstance(sizes, list) or not all(size is None or type(size) is int for size in sizes):
        message = f"a list of whole numbers (null: any), found {sizes!r}"
        problems.append(Problem(document.place((*path, "grid")), f"{dotted(path)}.grid", message))
        return None
    grid = tuple(-1 if size is None else size for size in sizes)
    if pattern is None or len(problems) > before:
        return None
    return Rule(entry["class"], pattern, str(entry.get("op", "")), annotation, grid, bool(entry.get("loose")))


def _check_class(document: Document, path: tuple[str | int, ...], kind: object, problems: list[Problem]) -> None:
    if kind not in CLASSES:
        problems.append(Problem(document.place(path), dotted(path), unknown(kind, "class", CLASSES)))


def _pattern(
    document: Document, path: tuple[str | int, ...], problems: list[Problem], text: object = None
) -> re.Pattern[str] | None:
    """The regular expression at `path`, or None when there is none."""
    text = document.content.get(path[0]) if len(path) == 1 else text
    if text is None:
        return None
    try:
        return re.compile(str(text))
    except re.error as error:
        message = f"not a regular expression: {error} in {str(text)!r}"
        problems.append(Problem(document.place(path), dotted(path), message))
        return None


def _sequences(document: Document, problems: list[Problem]) -> dict[str, tuple[tuple[str, str], ...]]:
    """phase -> entries; an entry is "class operation", or "class operation x12" for operation_00 to operation_11."""
    out: dict[str, tuple[tuple[str, str], ...]] = {}
    for phase, lines in (document.content.get("sequences") or {}).items():
        entries: list[tuple[str, str]] = []
        if not isinstance(lines or [], list):
            problems.append(Problem(document.place(("sequences", phase)), f"sequences.{phase}", "a list is needed"))
            continue
        for index, line in enumerate(lines or ()):
            path = ("sequences", phase, index)
            kind, _, op = str(line).partition(" ")
            _check_class(document, path, kind, problems)
            if not op:
                problems.append(
                    Problem(document.place(path), dotted(path), f"expected 'class operation', found {line!r}")
                )
            counted = _COUNTED.match(op)
            names = [f"{counted[1]}_{i:02d}" for i in range(int(counted[2]))] if counted else [op]
            entries += [(kind, name) for name in names]
        out[phase] = tuple(entries)
    return out
