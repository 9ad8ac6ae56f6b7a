"""Rules that say what the kernels of a trace are: name patterns in YAML, read into frozen values.

A rule file has `kernels` (first match wins; regular expressions searched in the function's own name, see
`numerics.traces.names`, with conditions on its namespaces, on what its template names, on the annotation around its
launch and on its grid), `phases` (which annotations are phases of a layer), and, where a program always launches the
same kernels in the same order, `sequences` (the operations of each phase, by position). `operators` are rules for the
host operators of a trace without kernels, by their whole names, before those for kernels. A catch-all (`general`) holds
where nothing else does. `extends` appends the rules of another shipped file. Shipped: the names of DeepSeek, of
Megatron, of plain PyTorch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.document import Document, DocumentError, Place, Problem, dotted, read, unknown
from numerics.traces.names import Function, function

FOLDER = Path(__file__).parent
CLASSES = {
    "gemm": "matrix product, precision not told by its name", "gemm_fp8": "FP8 product, forward or input gradient",
    "gemm_fp8_wgrad": "FP8 product that accumulates a weight gradient", "gemm_bf16": "BF16 or FP16 product",
    "gemm_grouped": "one product an expert in one kernel", "attn_fwd": "attention forward",
    "attn_bwd": "attention backward", "conv": "convolution", "quant": "quantise or dequantise, transposing or not",
    "norm": "normalisation", "swiglu": "gated activation",
    "activation": "ReLU, GELU, sigmoid, tanh and such, without a gate", "rope": "rotary embedding",
    "permute": "token permutation and its maps", "routing": "gate, scores, top-k",
    "copy": "copy or cast without scales", "elementwise": "element by element", "reduce": "reduction or softmax",
    "weight_transpose": "transpose of a weight", "scale_transpose": "transpose of scales",
    "embedding": "table look-up and its gradient", "loss": "loss", "optimizer": "parameter update",
    "misc": "small kernels of other kinds", "comm_data": "moves data between ranks",
    "comm_sync": "barrier or layout exchange", "wrapper": "host operator: look at what it calls",
}  # fmt: skip
"""Classes a rule may give, and what they mean."""
SMALL = ("copy", "elementwise", "reduce", "routing", "misc")
"""Classes that a framework's general kernels serve: in a sequence, position decides between them."""
RULE_KEYS = ("class", "match", "scope", "inside", "op", "annotation", "grid", "loose", "general")
CONDITIONS = ("scope", "inside", "annotation")
"""Keys of a rule that are regular expressions beside `match`."""
FILE_KEYS = ("name", "source", "extends", "phases", "groups", "kernels", "operators", "sequences", "shapes")
_COUNTED = re.compile(r"(\S+) x(\d+)\Z")


class Rule(NamedTuple):
    """kind: a key of CLASSES. patterns: all are found in the function's own name. scope, inside: found in its
    namespaces, and in the own names of what its template arguments name. op: the operation's name, with groups of the
    first pattern (\\1), or "". grid: -1 is any.

    loose: may come anywhere, belongs to no sequence (kernels that run now and then). general: a catch-all, which says
    where a kernel comes from and not what it does.
    """

    kind: str
    patterns: tuple[re.Pattern[str], ...]
    scope: re.Pattern[str] | None = None
    inside: re.Pattern[str] | None = None
    op: str = ""
    annotation: re.Pattern[str] | None = None
    grid: tuple[int, ...] = ()
    loose: bool = False
    general: bool = False

    def fits(self, function: Function, annotation: str, grid: tuple[int, ...]) -> bool:
        """Whether a kernel is meant: by its name, the annotation around its launch, and its blocks in x, y and z."""
        conditions = ((self.scope, function.scope), (self.inside, function.inside), (self.annotation, annotation))
        return (
            all(pattern.search(function.own) for pattern in self.patterns)
            and all(pattern is None or pattern.search(text) for pattern, text in conditions)
            and all(a in (-1, b) for a, b in zip(self.grid, grid, strict=False))
        )


class Named(NamedTuple):
    """What a kernel was found to be. known: a rule matched that says what it does. general: one that does not, a
    catch-all or that it calls others."""

    kind: str
    op: str
    loose: bool
    known: bool
    general: bool = False


@dataclass(frozen=True)
class Rules:
    """One rule file. rules: of kernels; operators: of the host. phases: annotations that count; groups: operations on
    two streams that are one (group 1 names it).

    sequences: phase -> (class, operation) by position. shapes: where rows and K are read (see traces.operations).
    """

    name: str
    rules: tuple[Rule, ...]
    operators: tuple[Rule, ...] = ()
    phases: re.Pattern[str] | None = None
    groups: re.Pattern[str] | None = None
    sequences: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    shapes: Mapping[str, Any] = field(default_factory=dict)

    def classify(self, name: str, annotation: str = "", grid: tuple[int, ...] = (), host: bool = False) -> Named:
        """The first rule that fits a kernel (host: an operator); class "misc" and not known when none does."""
        candidates = [(rule, Function(name, "", "")) for rule in self.operators] if host else []
        candidates += [(rule, function(name)) for rule in self.rules]
        fitting = ((rule, named) for rule, named in candidates if rule.fits(named, annotation, grid))
        rule, named = min(fitting, key=lambda pair: pair[0].general, default=(None, None))
        if rule is None or named is None:
            return Named("misc", "", False, False)
        match = rule.patterns[0].search(named.own)
        op = match.expand(rule.op) if match and rule.op else ""
        general = rule.general or rule.kind == "wrapper"
        return Named(rule.kind, op, rule.loose, not general, general)


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
    if not isinstance(content.get("operators", []), list):
        problems.append(Problem(document.place(("operators",)), "operators", "a list of {class: ..., match: ...}"))
        return Rules("", ())
    for key in content:
        if key not in FILE_KEYS:
            problems.append(Problem(document.place((key,)), key, unknown(key, "key", FILE_KEYS)))
    for key in ("sequences", "shapes"):
        if not isinstance(content.get(key) or {}, dict):
            kind = type(content.pop(key)).__name__
            problems.append(Problem(document.place((key,)), key, f"a mapping, found {kind}"))
    rules, operators = (
        tuple(r for i in range(len(content.get(key, ()))) if (r := _rule(document, (key, i), problems)))
        for key in ("kernels", "operators")
    )
    base = content.get("extends")
    if base and base not in shipped():
        problems.append(Problem(document.place(("extends",)), "extends", unknown(base, "rules", shipped())))
    more = load(base) if base in shipped() else Rules("", ())
    return Rules(
        str(content.get("name", "")), (*rules, *more.rules), (*operators, *more.operators),
        _pattern(document, ("phases",), problems), _pattern(document, ("groups",), problems),
        _sequences(document, problems), content.get("shapes") or {},
    )  # fmt: skip


def _rule(document: Document, path: tuple[str, int], problems: list[Problem]) -> Rule | None:
    entry = document.content[path[0]][path[1]]
    if not isinstance(entry, dict) or "class" not in entry or entry.get("match") in (None, []):
        problems.append(Problem(document.place(path), dotted(path), "a rule is {class: ..., match: ...}"))
        return None
    before = len(problems)
    for key in entry:
        if key not in RULE_KEYS:
            problems.append(Problem(document.place((*path, key)), dotted(path), unknown(key, "key", RULE_KEYS)))
    _check_class(document, (*path, "class"), entry["class"], problems)
    texts = entry["match"] if isinstance(entry["match"], list) else [entry["match"]]
    patterns = [_name(document, (*path, "match"), problems, text) for text in texts]
    conditions = {key: _pattern(document, (*path, key), problems, entry.get(key)) for key in CONDITIONS}
    sizes = entry.get("grid") or []
    if not isinstance(sizes, list) or not all(size is None or type(size) is int for size in sizes):
        message = f"a list of whole numbers (null: any), found {sizes!r}"
        problems.append(Problem(document.place((*path, "grid")), f"{dotted(path)}.grid", message))
        return None
    grid = tuple(-1 if size is None else size for size in sizes)
    if len(problems) > before:
        return None
    return Rule(
        entry["class"], tuple(p for p in patterns if p), op=str(entry.get("op", "")), grid=grid,
        loose=bool(entry.get("loose")), general=bool(entry.get("general")), **conditions,
    )  # fmt: skip


def _name(
    document: Document, path: tuple[str | int, ...], problems: list[Problem], text: object
) -> re.Pattern[str] | None:
    """A pattern for a name; a kernel's own has no namespaces."""
    if path[0] == "kernels" and "::" in str(text):
        message = f"a function's own name has no '::', found {str(text)!r}; its namespaces are matched by scope"
        problems.append(Problem(document.place(path), dotted(path), message))
    return _pattern(document, path, problems, text)


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
