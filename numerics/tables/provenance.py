"""Where a calibration table comes from, and whether the program that wrote it still says the same.

A table carries digests of its inputs and of the program that made it. The program is not whole files but the
definitions reached by name from its entry points, through our own imports; comments, docstrings, annotations, layout
and the order of definitions do not count, so only a change that can change a figure makes a table stale. Nor does where
an import finds what it brings: files may move. Methods come with their class; what is outside the project (numpy) does
not count. A document that the program reads (rules) can be an entry too; what it says counts, its comments do not.
"""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.document import read
from hwmodels.tables import FOLDER

ROOT = Path(__file__).resolve().parents[2]
DIGEST_BYTES = 16
"""Length of a digest: 128 bits tell any two programs apart (RFC 7693 sec 2.1 allows 1 to 64 bytes)."""
SILENT = frozenset({"annotation", "returns", "type_comment", "type_params", "type_ignores", "kind", "ctx"})
"""Parts of a syntax tree that change no result, or are not in every version of Python."""
NOT_FOLLOWED = frozenset({"numerics.tables.provenance"})
"""How a digest is made changes no figure."""


class Module(NamedTuple):
    """The top level of a file. definitions: name -> statements; imports: local name -> (module, name in it). said,
    mentions: what was worked out of definitions, by name (see `_said`, `_references`)."""

    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str]]
    said: dict[str, str]
    mentions: dict[str, tuple[tuple[str, str], ...]]


def digest(data: bytes) -> str:
    """blake2b of `data` in hexadecimal."""
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def digest_of(path: Path) -> str:
    """blake2b of a file of any size."""
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def content(value: Any) -> str:
    """Digest of plain data, independent of the order of keys."""
    return digest(json.dumps(value, sort_keys=True).encode())


def program(entries: Sequence[str], root: Path = ROOT) -> dict[str, str]:
    """File -> digest of its definitions that the entries ("package.module:name", or a path of a document) reach.

    Raises ValueError for an entry that the files under `root` do not define.
    """
    reached: dict[str, set[str]] = {}
    code = [entry for entry in entries if ":" in entry]
    documents = {entry: _document(root / entry) for entry in entries if ":" not in entry}
    waiting = [(module, name) for module, _, name in (entry.partition(":") for entry in code)]
    for module, name in waiting:
        file = _module(root, module)
        if file is None or name not in file.definitions:
            raise ValueError(f"{module}:{name} is not defined")
    asked = set(waiting)
    while waiting:
        at = _where(root, *waiting.pop())
        if at and at[0] not in NOT_FOLLOWED and at[1] not in reached.setdefault(at[0], set()):
            reached[at[0]].add(at[1])
            waiting += (further := [each for each in _references(root, *at) if each not in asked])
            asked.update(further)
    digests = {
        _path(root, m).relative_to(root).as_posix(): _digest_of_names(root, m, names)
        for m, names in sorted(reached.items())
    }
    return digests | documents


def _document(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path.name} is not there")
    return content(read(path).content)


def stale(device: str, tables: Path = FOLDER, root: Path = ROOT) -> list[str]:
    """A line for each table of `device` whose program is not the one that wrote it; [] when all are fresh.

    Raises FileNotFoundError when the device has no tables.
    """
    paths = sorted((tables / device).glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"{tables / device} holds no tables")
    return [line for path in paths for line in _stale(f"{device}/{path.name}", json.loads(path.read_text()), root)]


def _stale(name: str, table: Mapping[str, Any], root: Path) -> Iterator[str]:
    said = table.get("provenance", {}).get("program")
    if not said:
        yield f"{name}: no provenance; nothing says which program wrote it"
        return
    again = f"write it again: {table['provenance'].get('command', 'its command is not known')}"
    try:
        now = program(said["entries"], root)
    except (ValueError, SyntaxError) as error:
        yield f"{name}: stale, its program is gone ({error}); {again}"
        return
    then = said["files"]
    changed = sorted(f for f in then.keys() | now.keys() if then.get(f) != now.get(f))
    if changed:
        yield f"{name}: stale, {', '.join(changed)} changed since it was written; {again}"


# --- files that moved -------------------------------------------------------------------------------------------------


def moved(device: str, tables: Path = FOLDER, root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """File stem -> table, of those of `device` whose program lies elsewhere now and says the same, with its new places.

    Digests stay as they were: a table whose program says anything else is left out, and stays stale.
    """
    by_name = {path.stem: json.loads(path.read_text()) for path in sorted((tables / device).glob("*.json"))}
    records = {name: table["provenance"] for name, table in by_name.items() if "program" in table.get("provenance", {})}
    now = {name: _replaced(said["program"], root) for name, said in records.items()}
    return {
        name: {**by_name[name], "provenance": {**records[name], "program": program}}
        for name, program in now.items() if program not in (None, records[name]["program"])
    }  # fmt: skip


def _replaced(said: Mapping[str, Any], root: Path) -> dict[str, Any] | None:
    """A program with the places that its files have now, or None where it is not the same program any more."""
    try:
        entries = [_place(root, entry) for entry in said["entries"]]
        files = program(entries, root)
    except (ValueError, SyntaxError):
        return None
    return {"entries": entries, "files": files} if sorted(files.values()) == sorted(said["files"].values()) else None


def _place(root: Path, entry: str) -> str:
    """Where an entry is now: in the one file of the same name in its room. Raises ValueError where there is none."""
    module, _, name = entry.partition(":")
    if (root / entry).is_file() or _defines(root, module, name):
        return entry
    room, last = entry.split("/")[0], module.rpartition(".")[2]
    if name:
        paths = [path.relative_to(root).with_suffix("") for path in root.joinpath(module.split(".")[0]).rglob("*.py")]
        modules = {".".join(path.parts).removesuffix(".__init__") for path in paths}
        places = [f"{m}:{name}" for m in modules if m.rpartition(".")[2] == last and _defines(root, m, name)]
    else:
        places = [path.relative_to(root).as_posix() for path in (root / room).rglob(Path(entry).name)]
    if len(places) != 1:
        raise ValueError(f"{entry} is not there, and {len(places)} others could be it")
    return places[0]


def _defines(root: Path, module: str, name: str) -> bool:
    file = _module(root, module)
    return file is not None and name in file.definitions


# --- what a program reaches -------------------------------------------------------------------------------------------


def _path(root: Path, module: str) -> Path:
    folder = root.joinpath(*module.split("."))
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def _module(root: Path, module: str) -> Module | None:
    """The module, or None when it is not ours."""
    path = _path(root, module)
    return _parsed(path, path.stat().st_mtime_ns) if path.is_file() else None


@cache
def _parsed(path: Path, _changed_ns: int) -> Module:
    file = Module({}, {}, {}, {})
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            file.imports.update({a.asname or a.name: (statement.module, a.name) for a in statement.names})
        elif isinstance(statement, ast.Import):
            file.imports.update({a.asname or a.name: (a.name, "") for a in statement.names})
        for name in _names(statement):
            file.definitions.setdefault(name, []).append(statement)
    return file


def _names(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))


def _where(root: Path, module: str, name: str) -> tuple[str, str] | None:
    """The module that defines `name` as `module` sees it; None for what is not ours or is a module itself."""
    file = _module(root, module)
    if file is None:
        return None
    if name in file.definitions:
        return module, name
    return _where(root, *file.imports[name]) if name in file.imports else None


def _references(root: Path, module: str, name: str) -> tuple[tuple[str, str], ...]:
    """(module, name) of everything that a definition mentions; `shelf.load` where `shelf` is an imported module."""
    file = _module(root, module)
    assert file is not None
    if name not in file.mentions:
        file.mentions[name] = tuple(dict.fromkeys(_mentioned(file, module, name)))
    return file.mentions[name]


def _mentioned(file: Module, module: str, name: str) -> Iterator[tuple[str, str]]:
    for statement in file.definitions[name]:
        for node in _nodes(statement):
            if isinstance(node, ast.Name):
                yield module, node.id
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                source, of = file.imports.get(node.value.id, ("", ""))
                if source:
                    yield f"{source}.{of}".rstrip("."), node.attr


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for _, value in _parts(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _nodes(child)


# --- what a definition says -------------------------------------------------------------------------------------------


def _digest_of_names(root: Path, module: str, names: set[str]) -> str:
    file = _module(root, module)
    assert file is not None
    return digest("\n".join(f"{name}: {_said(file, name)}" for name in sorted(names)).encode())


def _said(file: Module, name: str) -> str:
    """A definition as text."""
    if name not in file.said:
        file.said[name] = str([canonical(statement) for statement in file.definitions[name]])
    return file.said[name]


def _parts(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Fields that say something. Empty ones are left out: versions of Python differ in which they have."""
    for field, value in ast.iter_fields(node):
        if field in SILENT or value is None or value == []:
            continue
        yield field, _spoken(value) if isinstance(value, list) else value


def _spoken(values: list[Any]) -> list[Any]:
    """Statements without docstrings; of "from ... import" among them the names that they bring, not where from."""
    imports = [v for v in values if isinstance(v, ast.ImportFrom)]
    brought = sorted((a.name, a.asname or "") for statement in imports for a in statement.names)
    return [*map(repr, brought), *(v for v in values if v not in imports and not _is_docstring(v))]


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def canonical(node: Any) -> str:
    """A syntax tree as text: the same for two programs that differ in comments, docstrings, annotations or layout, or
    in where an import inside a definition finds what it brings."""
    if isinstance(node, ast.Constant):
        return f"Constant({node.value!r})"
    if isinstance(node, ast.AST):
        return f"{type(node).__name__}({', '.join(f'{k}={canonical(v)}' for k, v in _parts(node))})"
    return f"[{', '.join(map(canonical, node))}]" if isinstance(node, list) else repr(node)
