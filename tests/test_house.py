"""The doors between the rooms stay where the design put them."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("hwmodels", "sim", "numerics", "reports")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
KERNEL_LINES, FILE_LINES, FUNCTION_LINES = 600, 400, 40
PARTICIPLES = frozenset({"found", "told", "met", "took"})
"""Words that say how a value was come by and not what it is."""
MAY_IMPORT = {
    "hwmodels": {"hwmodels"},
    "sim": {"sim", "hwmodels"},
    "reports": {"reports", "sim", "hwmodels"},
    "numerics": {"numerics", "hwmodels", "sim"},
}
REPORTS_MAY_READ = {"sim.result.trace", "sim.result", "hwmodels.units", "hwmodels.refused"}
NUMERICS_MAY_READ = ("sim.models", "sim.scenario", "sim.layout", "sim.assembly")
DOORS = {
    "simpy": {"sim/engine/clock.py"},
    "networkx": {"hwmodels/fabric.py"},
    "pydantic": {
        "sim/scenario/form.py",
        "sim/scenario/layout.py",
        "sim/scenario/mistakes.py",
        "sim/scenario/model.py",
        "sim/scenario/quantity.py",
        "sim/scenario/resolve.py",
        "sim/models/form.py",
        "sim/models/*/form.py",
        "sim/serving/form.py",
        "sim/serving/files.py",
        "sim/campaign/form.py",
        "sim/campaign/rl/form.py",
    },
    "yaml": {"hwmodels/document.py", "sim/result/archive.py"},
    "plotly": {"reports", "numerics/training"},
    "rich": {"reports/terminal.py"},
    "torch": {"numerics"},
    "optuna": {"sim/experiments/sampler.py"},
    "distributed": {"sim/experiments/cluster.py"},
    "pandas": {"sim/result/trace.py", "sim/result/comparison.py", "sim/experiments/answer.py"},
    "triton": {"numerics"},
}
"""Outside package -> the only files or folders that may import it."""

FLOW = {
    "sim": (
        "result", "models", "schedules", "scenario", "layout",
        "step", "engine", "routing", "communication", "disturbances", "assembly", "analysis", "simulation",
        "serving", "campaign",
        "experiments", "validation", "cli",
    ),
    "numerics": (
        "reference", "kernels", "ops", "layers", "fits", "traces", "tables", "card", "accuracy", "census", "training",
        "progress",
    ),
}  # fmt: skip
"""Package -> its rooms (folders, and files beside them) in the order in which they build on each other."""
DOORSTEP = ("__init__", "__main__")
"""What stands before the rooms of a package and may import all of them."""
NO_CIRCLES = ("hwmodels", "numerics", "reports", "sim")
"""Packages whose files import each other in no circle, not even inside functions or for types alone."""


@cache
def nodes(text: str) -> list[ast.AST]:
    """All of a text's syntax tree."""
    return list(ast.walk(ast.parse(text)))


def of(path: Path) -> list[ast.AST]:
    return nodes(path.read_text(encoding="utf-8"))


def statements(path: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports anywhere in a file."""
    return (node for node in of(path) if isinstance(node, ast.Import | ast.ImportFrom))


def imports(path: Path) -> set[str]:
    """Modules a file imports anywhere in it, type checking included."""
    found: set[str] = set()
    for node in statements(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules(package: Path) -> dict[str, Path]:
    """Module -> file, of a package; a folder is its `__init__`."""
    paths = ((path.relative_to(package.parent).with_suffix(""), path) for path in package.rglob("*.py"))
    return {".".join(module.parts).removesuffix(".__init__"): path for module, path in paths}


def brought(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules among `known` that a file imports anywhere in it; a folder counts where something in it is no module."""
    found: set[str] = set()
    for node in statements(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module and not node.level:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in known else node.module for each in inside}
    return found & known.keys()


def against_the_flow(package: Path, rooms: Sequence[str]) -> Iterator[str]:
    """Imports of a room that does not stand before the importing one, and rooms that have no place in the order."""
    known = modules(package)
    place = {room: i for i, room in enumerate((*rooms, *DOORSTEP))}
    for module, path in known.items():
        room = path.relative_to(package).with_suffix("").parts[0]
        if room not in place:
            yield f"{module}: {room} has no place among the rooms"
        for other in brought(path, known) - {package.name}:
            target = other.split(".")[1]
            if room in place and place.get(target, -1) >= place[room] and target != room:
                yield f"{module} imports {other}"


def circle(package: Path) -> list[str]:
    """Modules of a package that import each other in a circle, the first one found; [] when there is none."""
    known = modules(package)
    try:
        TopologicalSorter({module: brought(path, known) for module, path in known.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def offenders(rule: Callable[[Path], object], folder: str = "") -> dict[str, object]:
    """Files of a folder that break a rule, each with what the rule says of it."""
    return {name(path): wrong for path in FILES if name(path).startswith(folder) and (wrong := rule(path))}


def outside(path: Path) -> set[str]:
    """Modules of ours that a file imports and its room may not."""
    legal = MAY_IMPORT[name(path).split("/")[0]] | ({"reports"} if name(path).startswith("sim/cli/") else set())
    return {m for m in imports(path) if m.split(".")[0] in ROOMS and m.split(".")[0] not in legal}


def test_rooms_import_only_what_lies_upstream() -> None:
    assert offenders(outside) == {}


def test_reports_only_render() -> None:
    def read(path: Path) -> set[str]:
        ours = {module for module in imports(path) if module.startswith(("sim.", "hwmodels."))}
        return {m for m in ours if not any(m == legal or m.startswith(f"{legal}.") for legal in REPORTS_MAY_READ)}

    assert offenders(read, "reports/") == {}


def test_numerics_takes_only_shapes_from_sim() -> None:
    def read(path: Path) -> set[str]:
        return {m for m in imports(path) if m.startswith("sim.") and not m.startswith(NUMERICS_MAY_READ)}

    assert offenders(read, "numerics/") == {}


@pytest.mark.parametrize("package", sorted(FLOW))
def test_a_package_has_at_most_twenty_rooms(package: str) -> None:
    assert len(FLOW[package]) + len(DOORSTEP) <= 20  # that each room is in the order is tested below


@pytest.mark.parametrize("package", sorted(FLOW))
def test_a_room_imports_only_rooms_before_it(package: str) -> None:
    assert list(against_the_flow(ROOT / package, FLOW[package])) == []
    assert {module.split(".")[1] for module in modules(ROOT / package) if "." in module} >= set(FLOW[package])


@pytest.mark.parametrize("package", NO_CIRCLES)
def test_no_files_import_each_other_in_a_circle(package: str) -> None:
    assert circle(ROOT / package) == []


def test_circles_and_climbs_are_seen(tmp_path: Path) -> None:
    """A climb and a circle through an import in a function, a room without a place; a folder's own parts are fine."""
    texts = {
        "rail/__init__.py": "", "rail/__main__.py": "from rail import yard", "rail/yard.py": "import rail.line.track",
        "rail/line/__init__.py": "from rail.line import track", "rail/line/track.py": "",
    }  # fmt: skip
    for file, text in texts.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    package, track = tmp_path / "rail", tmp_path / "rail" / "line" / "track.py"
    assert list(against_the_flow(package, ("line", "yard"))) == circle(package) == []
    assert list(against_the_flow(package, ("yard", "line"))) == ["rail.yard imports rail.line.track"]
    assert list(against_the_flow(package, ("line",))) == ["rail.yard: yard has no place among the rooms"]
    track.write_text("def late():\n    from rail.yard import Wagon\n")
    assert list(against_the_flow(package, ("line", "yard"))) == ["rail.line.track imports rail.yard"]
    assert set(circle(package)) == {"rail.yard", "rail.line.track"}


@pytest.mark.parametrize("package", sorted(FLOW))
def test_tests_stand_where_the_code_does(package: str) -> None:
    """A folder of tests is a room of the package."""
    folders = {path.name for path in (ROOT / "tests" / package).iterdir() if path.is_dir() and path.name[0] not in "_."}
    assert folders <= set(FLOW[package])


@pytest.mark.parametrize("package", sorted(DOORS))
def test_outside_packages_have_one_door(package: str) -> None:
    users = {name(path) for path in FILES if any(m.split(".")[0] == package for m in imports(path))}
    doors = DOORS[package]
    assert not {user for user in users if not any(fnmatch(user, door) or user.startswith(f"{door}/") for door in doors)}


POWERS = {float(10**k) for k in (3, 6, 9, 12, 15, -3, -6, -9)} | {1024.0, 1048576.0, 1073741824.0, 3600.0, 86400.0}


def scales(path: Path) -> list[int | float]:
    """Scale factors that stand in a file."""
    if name(path) == "hwmodels/units.py" or name(path).startswith("numerics/"):
        return []
    numbers = [node.value for node in of(path) if isinstance(node, ast.Constant)]
    return [n for n in numbers if isinstance(n, int | float) and not isinstance(n, bool) and float(n) in POWERS]


def test_scale_factors_live_in_units() -> None:
    """No 1e9, 1024, 1_000_000 and the like outside hwmodels/units.py."""
    assert offenders(scales) == {}


def long(path: Path) -> list[str]:
    """Functions of a file that are too long, and the file where it is itself."""
    lines, kernel = path.read_text(encoding="utf-8").count("\n"), name(path).startswith("numerics/kernels/")
    whole = [f"{lines} lines"] * (lines > (KERNEL_LINES if kernel else FILE_LINES))
    functions = (node for node in of(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not kernel)
    return whole + [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= FUNCTION_LINES]


def test_files_and_functions_stay_short() -> None:
    assert offenders(long) == {}


def test_modules_are_nouns_of_the_field() -> None:
    words = {"utils", "util", "base", "common", "manager", "helpers", "helper", "misc"}
    assert not [name(path) for path in FILES if path.stem in words]


def participles(text: str) -> set[str]:
    """Variables, parameters and functions of a file whose name has one of PARTICIPLES as a word."""
    names: set[str] = set()
    for node in nodes(text):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return {each for each in names if PARTICIPLES & set(each.split("_"))}


def test_names_are_nouns_of_the_field() -> None:
    assert offenders(lambda path: participles(path.read_text(encoding="utf-8"))) == {}


@pytest.mark.parametrize(
    "text", ["found = 1", "def met():\n    pass", "def f(took):\n    pass", "f(x for last_told in y)"]
)
def test_participles_are_seen(text: str) -> None:
    assert participles(text) and not participles("rows = foundation = 'found'")


def test_modules_say_what_they_are() -> None:
    def silent(path: Path) -> bool:
        module = of(path)[0]
        return isinstance(module, ast.Module) and bool(module.body) and not ast.get_docstring(module)

    assert offenders(silent) == {}


def test_every_schedule_states_its_source_and_bubble() -> None:
    for path in sorted((ROOT / "sim" / "schedules").glob("*.py")):
        if path.stem not in ("__init__", "program"):
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            assert re.search("bubble", doc, re.IGNORECASE) and re.search("arXiv|paper|README|report", doc), path.stem


@pytest.mark.parametrize("package", ["torch", "triton", "plotly", "networkx", "pydantic", "numpy", "rich"])
def test_importing_the_simulator_stays_light(package: str) -> None:
    code = f"import sim, sys; sys.exit({package!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_nothing_names_a_machine() -> None:
    """Files speak of the project alone."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    private = re.compile("/" + r"(work|root|home)/|/opt/" + "pypi")
    texts = [ROOT / f for f in listed if not f.endswith((".png", ".gz", ".npz")) and (ROOT / f).exists()]
    assert [p for p in texts if private.search(p.read_text(encoding="utf-8", errors="ignore"))] == []


def test_all_that_is_read_ships() -> None:
    """Every file of a package that is no code is package data, so that a wheel runs what a checkout runs."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    for package in (*ROOMS, "scenarios"):
        files = {path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        shipped = {path for pattern in data.get(package, ()) for path in (ROOT / package).glob(pattern)}
        assert sorted(path for path in files - shipped if path.suffix not in (".py", ".pyc")) == []
