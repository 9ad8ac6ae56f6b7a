"""The doors between the rooms stay where the design put them."""

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("hwmodels", "sim", "numerics", "reports")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
KERNEL_LINES, FILE_LINES, FUNCTION_LINES = 600, 400, 40
MAY_IMPORT = {
    "hwmodels": {"hwmodels"},
    "sim": {"sim", "hwmodels"},
    "reports": {"reports", "sim", "hwmodels"},
    "numerics": {"numerics", "hwmodels", "sim"},
}
REPORTS_MAY_READ = {"sim.trace", "sim.result", "hwmodels.units"}
NUMERICS_MAY_READ = ("sim.models", "sim.precision", "sim.scenario", "sim.resolve")
DOORS = {
    "simpy": {"sim/engine.py"},
    "networkx": {"hwmodels/fabric.py"},
    "pydantic": {"sim/form.py", "sim/resolve.py", "sim/models/*/form.py"},
    "yaml": {"hwmodels/document.py", "reports/folder.py"},
    "plotly": {"reports", "numerics/studies"},
    "rich": {"reports/terminal.py"},
    "torch": {"numerics"},
    "triton": {"numerics"},
}
"""Outside package -> the only files or folders that may import it."""


def imports(path: Path) -> set[str]:
    """Modules a file imports anywhere in it, type checking included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_rooms_import_only_what_lies_upstream(path: Path) -> None:
    room = name(path).split("/")[0]
    ours = {module for module in imports(path) if module.split(".")[0] in ROOMS}
    outside = {module for module in ours if module.split(".")[0] not in MAY_IMPORT[room]}
    if name(path) == "sim/__main__.py":
        outside = {module for module in outside if not module.startswith("reports")}
    assert not outside


@pytest.mark.parametrize("path", [p for p in FILES if name(p).startswith("reports/")], ids=name)
def test_reports_only_render(path: Path) -> None:
    read = {module for module in imports(path) if module.startswith(("sim.", "hwmodels."))}
    assert {m for m in read if not any(m == legal or m.startswith(f"{legal}.") for legal in REPORTS_MAY_READ)} == set()


@pytest.mark.parametrize("path", [p for p in FILES if name(p).startswith("numerics/")], ids=name)
def test_numerics_takes_only_shapes_from_sim(path: Path) -> None:
    read = {module for module in imports(path) if module.startswith("sim.")}
    assert {m for m in read if not m.startswith(NUMERICS_MAY_READ)} == set()


@pytest.mark.parametrize("package", sorted(DOORS))
def test_outside_packages_have_one_door(package: str) -> None:
    users = {name(path) for path in FILES if any(m.split(".")[0] == package for m in imports(path))}
    doors = DOORS[package]
    assert not {
        user for user in users if not any(fnmatch(user, door) or user.startswith(f"{door}/") for door in doors)
    }


@pytest.mark.parametrize("path", [p for p in FILES if not name(p).startswith("numerics/")], ids=name)
def test_scale_factors_live_in_units(path: Path) -> None:
    """No 1e9, 1024, 1_000_000 and the like outside hwmodels/units.py."""
    if name(path) == "hwmodels/units.py":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    numbers = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    powers = {float(10**k) for k in (3, 6, 9, 12, 15, -3, -6, -9)} | {1024.0, 1048576.0, 1073741824.0, 3600.0, 86400.0}
    assert not [n for n in numbers if isinstance(n, int | float) and not isinstance(n, bool) and float(n) in powers]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    kernel = name(path).startswith("numerics/kernels/")
    assert text.count("\n") <= (KERNEL_LINES if kernel else FILE_LINES)
    if kernel:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", FILES, ids=name)
def test_modules_are_nouns_of_the_field(path: Path) -> None:
    assert path.stem not in ("utils", "util", "base", "common", "manager", "helpers", "helper", "misc")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_modules_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_every_schedule_states_its_source_and_bubble() -> None:
    for path in sorted((ROOT / "sim" / "schedules").glob("*.py")):
        if path.stem != "__init__":
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
