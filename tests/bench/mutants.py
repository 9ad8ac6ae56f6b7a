"""A mutation study: 60 small changes to the rooms that decide an answer, and the tests that notice each.

    pip install 'cosmic-ray==8.7.0'
    python tests/bench/mutants.py --list         what is drawn, with its line before and after
    python tests/bench/mutants.py [number ...]   the study, or some of its mutants; 0 is the unchanged code
    python tests/bench/mutants.py --near [...]   only as far as the tests of its room: minutes instead of hours

Cosmic-ray names all mutations of the files in SUBJECTS; the draw takes 60 of them from a fixed seed, so one state of
the code always gives the same ones, and any change of those files draws others. Each is written into a copy of the
checkout and must get past, in this order, the tests of its own file or folder, the golden results and predictions, the
tests of its room, those across rooms and at last those of all other rooms. The first failure kills it; so does a stage
that takes longer than LIMIT_S, and a file that can no longer be imported. Run 0 first: what fails there tells nothing
about a mutant.

Drawn from, of cosmic-ray's operators: arithmetic by other arithmetic, `|`, `&`, `^` by each other, comparisons by other
comparisons, signs and `not` taken away or added, `and` and `or`, True and False, numbers one more and one less, break
and continue, exceptions, decorators, loops that run no round. Left out, because they measure nothing:
* shifts and bit operators for arithmetic, and arithmetic for bit operators: a type error on floats, so killed for free;
* `is` and `is not` for comparisons of values (as true as the interpreter's store of small ones) and `<` and the like
  for `is`; `~` for signs;
* operators that need arguments (VariableReplacer, VariableInserter);
* places inside annotations, and mutations that compile to the same code or to none.
"""

import ast
import difflib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

try:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names
except ImportError:
    raise SystemExit("tests/bench/mutants.py needs cosmic-ray: pip install 'cosmic-ray==8.7.0'") from None

ROOT = Path(__file__).parents[2]
SUBJECTS = (
    "sim/engine", "sim/layout", "sim/step", "sim/analysis", "sim/communication", "hwmodels/price.py",
    "hwmodels/collectives.py", "hwmodels/transfer.py",
)  # fmt: skip
SEED, DRAWN = 20261129, 60
LIMIT_S = 900
ENVIRONMENT = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
"""Two texts of a file, as long and written in the same second, share their bytecode."""
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow")
BITS = ("BitOr", "BitAnd", "BitXor")
VALUES = ("Eq", "NotEq", "Lt", "LtE", "Gt", "GtE")
IDENTITY = ("Is", "IsNot")
REPLACED = {
    "ReplaceBinaryOperator": (ARITHMETIC, BITS),
    "ReplaceComparisonOperator": (VALUES, IDENTITY),
    "ReplaceUnaryOperator": (("USub", "UAdd"), ("Delete", "USub", "UAdd", "Not")),
}
"""Kind of operator -> sets of which one member replaces another."""
UNASKED = ("VariableReplacer", "VariableInserter")
QUIETLY = ("-p", "no:cacheprovider", "--tb=line", "--hypothesis-profile=ci")
"""The profile: examples that are the same in each run, however long they take."""
GATE = ("tests/cross/test_golden_results.py", "tests/test_docs.py", "-k", "moved or golden or table")


class Mutation(NamedTuple):
    """One place: in a file, the occurrence of an operator, and the line (from 1) and column it stands at."""

    file: str
    line: int
    column: int
    operator: str
    occurrence: int


# --- the draw ---------------------------------------------------------------------------------------------------------


def operators() -> Iterator[str]:
    """Cosmic-ray's, but for those that are left out."""
    for name in sorted(operator_names()):
        kind, *members = name.removeprefix("core/").split("_")
        if kind in REPLACED:
            if any(set(members) <= set(alike) for alike in REPLACED[kind]):
                yield name
        elif kind not in UNASKED:
            yield name


def annotations(tree: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end, as (line, column)."""
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.returns)
    return [((n.lineno, n.col_offset), (n.end_lineno or 0, n.end_col_offset or 0)) for n in found if n is not None]


def mutations(file: str) -> Iterator[Mutation]:
    """All of a file, those that compile to the same code or to none included."""
    text = (ROOT / file).read_text(encoding="utf-8")
    nodes = list(ast_nodes(get_ast(text)))
    silent = annotations(ast.parse(text))
    for name in operators():
        operator = get_operator(name)()
        places = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, place in enumerate(places):
            if not any(first <= place < last for first, last in silent):
                yield Mutation(file, *place, name, occurrence)


def mutated(mutation: Mutation) -> str | None:
    """The file's text with the mutation; None where that is no Python, or the same."""
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    found: str | None = mutate_code(text, get_operator(mutation.operator)(), mutation.occurrence)
    try:
        return found if found and ast.dump(ast.parse(found)) != ast.dump(ast.parse(text)) else None
    except SyntaxError:
        return None


def drawn() -> list[Mutation]:
    """The study's mutations, in the order of the draw. Those that are no change are passed over."""
    paths = [path for subject in SUBJECTS for path in (ROOT.glob(subject) if "." in subject
                                                       else (ROOT / subject).rglob("*.py"))]  # fmt: skip
    every = sorted(mutation for path in paths for mutation in mutations(path.relative_to(ROOT).as_posix()))
    print(f"{len(every)} mutations of {len(paths)} files", flush=True)
    order = random.Random(SEED).sample(every, 2 * DRAWN)
    return [mutation for mutation in order if mutated(mutation)][:DRAWN]


def change(mutation: Mutation) -> str:
    """Lines before and after, as one."""
    before = (ROOT / mutation.file).read_text(encoding="utf-8").splitlines()
    lines = list(difflib.ndiff(before, (mutated(mutation) or "").splitlines()))
    old, new = (" ".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return f"`{old}` -> `{new}`"


# --- one mutant -------------------------------------------------------------------------------------------------------


def stages(file: str) -> list[tuple[str, ...]]:
    """Arguments of pytest, stage by stage."""
    path = Path("tests") / file
    own, room = path.with_name(f"test_{path.name}"), Path(*path.parts[: 3 if path.parts[1] == "sim" else 2])
    first = own if (ROOT / own).exists() else own.parent
    far = ("tests/sim", "tests/hwmodels", "tests/reports", "tests/test_docs.py")
    return [(first.as_posix(),), GATE, (room.as_posix(),), ("tests/cross",), far]


def killer(copy: Path, arguments: tuple[str, ...]) -> str:
    """The first test that fails; "" when none does."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", *QUIETLY, *arguments]
    try:
        run = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=LIMIT_S, env=ENVIRONMENT)
    except subprocess.TimeoutExpired:
        return f"no end of {' '.join(arguments)} in {LIMIT_S} s"
    if run.returncode == 0:
        return ""
    if found := re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE):
        return found[1]
    if "ImportError while loading conftest" in run.stderr + run.stdout:
        return "import"
    raise RuntimeError(f"pytest could not run {arguments}: {run.stdout[-2000:]}{run.stderr[-2000:]}")


def study(copy: Path, file: str, text: str, near: bool) -> str:
    """The test that kills, or "". The copy is as before afterwards."""
    before = (copy / file).read_text(encoding="utf-8")
    (copy / file).write_text(text, encoding="utf-8")
    try:
        asked = stages(file)[: -2 if near else None]
        return next(filter(None, (killer(copy, arguments) for arguments in asked)), "")
    finally:
        (copy / file).write_text(before, encoding="utf-8")


def main(words: list[str]) -> None:
    found = drawn()
    if words == ["--list"]:
        for number, mutation in enumerate(found, 1):
            print(f"{number} | {mutation.file}:{mutation.line} | {change(mutation)}")
        return
    near = "--near" in words
    words = [word for word in words if word != "--near"]
    survivors = []
    numbers = [int(word) for word in words] or list(range(DRAWN + 1))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "out"))
        for number in numbers:
            began = perf_counter()
            if number:
                mutation = found[number - 1]
                by = study(copy, mutation.file, mutated(mutation) or "", near)
                place, what = f"{mutation.file}:{mutation.line}", change(mutation)
            else:
                every = ("tests/sim", "tests/hwmodels", "tests/cross", "tests/reports", "tests/test_docs.py")
                by, place, what = killer(copy, every), "unchanged", ""
            if not by:
                survivors.append(number)
            took = perf_counter() - began
            print(f"{number} | {place} | {what} | {by or 'SURVIVES'} | {took:.0f} s", flush=True)
    print(f"{len(numbers)} run, survivors: {survivors or 'none'}")


if __name__ == "__main__":
    main(sys.argv[1:])
