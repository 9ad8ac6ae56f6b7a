"""Tables of a job's own kernels, from its trace: a folder that `python -m numerics calibrate --trace` wrote, or its
contents."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hwmodels import device as devices
from hwmodels import tables as calibration
from hwmodels.document import Document, DocumentError, KeyPath, Problem, dotted
from hwmodels.refused import Refused
from sim.scenario.fits import Finding
from sim.scenario.values import Scenario

KEY = "tables"


def tables(part: Document, key: KeyPath, path: Path | None) -> tuple[str, dict[str, Any]]:
    """The tables as JSON, and as plain values. A folder is looked for beside the scenario's file, then from where the
    command runs. Raises DocumentError."""
    content = part.content
    try:
        said = content if isinstance(content, Mapping) else calibration.of_folder(_folder(str(content), path))
        whole = {name: said[name] for name in calibration.OF_A_TRACE}
        text = json.dumps(whole, sort_keys=True)
        calibration.given(text)
    except Refused as refused:
        raise DocumentError([Problem(part.place(()), dotted(key), str(refused))]) from None
    except (KeyError, TypeError, ValueError, OSError) as error:
        what = f"not the tables of a trace ({type(error).__name__}: {error}); legal: a folder that calibrate wrote"
        raise DocumentError([Problem(part.place(()), dotted(key), what)]) from None
    return text, whole


def _folder(word: str, path: Path | None) -> Path:
    beside = (path.parent if path else Path()) / word
    return beside if beside.is_dir() else Path(word)


def findings(scenario: Scenario) -> Iterator[Finding]:
    """Whether tables are of the scenario's own GPU and library."""
    if not scenario.tables or scenario.cluster is None:
        return
    said, device = calibration.given(scenario.tables), scenario.cluster.node.device
    of = json.loads(scenario.tables)["library"]
    theirs = devices.load(said.device).name
    if theirs != device.name:
        yield (KEY, "cluster.node"), f"are of {theirs}; {device.name} (cluster.node) is another device"
    if of != scenario.stack.library:
        own = scenario.stack.library or "kernels of its own"
        yield (KEY, "stack"), f"are of {of}'s kernels; the stack {scenario.stack.name} runs {own}"
