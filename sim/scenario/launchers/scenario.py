"""A launch file as a scenario: what kind it is of, its keys in ours, and the text with all that it does not say."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.document import Document, DocumentError, Place, merge, parse, unknown
from hwmodels.refused import Refused, plain
from hwmodels.shelf import expand
from sim.result.archive import scenario_text
from sim.scenario.launchers import bridge, flags, megatron, reasons, torchtitan, transformer
from sim.scenario.launchers.machine import Hosts, Machine, cluster
from sim.scenario.launchers.settings import Note, Setting, Settings
from sim.scenario.launchers.transformer import Kind
from sim.scenario.shelves import MODELS, models

MARK = "# A scenario imported from "
"""How every imported scenario begins."""
LONGEST = 1 << 17
"""Bytes of a launch file at most."""
KINDS = "Megatron-LM arguments or a script with them, a Megatron-Bridge or NeMo recipe in YAML, a torchtitan TOML"
UNSAID = {"megatron": "fp32"}
"""Stack -> format of all states that a scenario does not say: written, they would be told to change nothing."""
PYTHON = re.compile(r"^(import \w|from \w+(\.\w+)* import|def \w+\(|class \w+)", re.MULTILINE)
"""Lines that only Python has."""


@dataclass(frozen=True)
class Asked:
    """What whoever imports says beside the file. model: a known model instead of the file's, "" for none; vocabulary:
    tokens, 0: as the file says; given: variables of a script, or keys of a recipe or a job, as text."""

    machine: Machine
    model: str = ""
    vocabulary: int = 0
    given: Mapping[str, str] | None = None


class Imported(NamedTuple):
    """A launch file in our keys. kind: in words; notes: what of it the scenario does not say, by line."""

    file: str
    kind: str
    scenario: dict[str, Any]
    notes: tuple[Note, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each note: place, what is written, why."""
        return tuple(
            plain(f"{self.file}:{n.line}: {n.word}: {n.why}" if n.line else f"{self.file}: {n.word}: {n.why}")
            for n in self.notes
        )

    @property
    def text(self) -> str:
        """The scenario as YAML, its notes as comments."""
        head = [f"{MARK}{plain(self.file)}, {self.kind}."]
        if self.notes:
            head += ["# What it says there and not here:", *(f"#   {line}" for line in self.lines)]
        return "\n".join([*head, scenario_text(self.scenario)])


def read(path: Path, asked: Asked) -> Imported:
    """The launch file in `path` as a scenario. Raises Refused: for what is no launch file, and for what is missing."""
    file, text = str(path), _text(path)
    if torchtitan_tables := _toml(text, file):
        return _torchtitan(torchtitan_tables, text, file, asked)
    if flags.is_megatron(text) and not _yaml_like(text):
        return _megatron(text, file, asked)
    if document := _recipe(text, file):
        return _bridge(document, file, asked)
    if flags.is_megatron(text):
        return _megatron(text, file, asked)
    raise Refused(f"is no launch file that is known: {_guess(text)}; known: {KINDS}", file)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST:
            raise Refused(f"is longer than a launch file: {LONGEST} bytes", str(path))
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Refused("not a text file (UTF-8 expected)", str(path)) from None
    except (OSError, ValueError) as error:
        raise Refused(f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)) from None
    if "\0" in text:
        raise Refused("not a text file (it has zero bytes)", str(path))
    return text.removeprefix("\ufeff")


def _yaml_like(text: str) -> bool:
    """Whether a text begins with a key of YAML: flags may stand below it."""
    first = next(
        (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "---"))), ""
    )
    return bool(re.match(r"[A-Za-z_][\w.-]*:(\s|$)", first))


def _toml(text: str, file: str) -> dict[str, Any]:
    """The tables of a torchtitan job; {} for another kind of file."""
    names = set(re.findall(r"^\s*\[([A-Za-z_]+)[\w.]*\]\s*(?:#.*)?$", text, re.MULTILINE))
    if not names & {"parallelism", "training", "activation_checkpoint", "experimental"}:
        return {}
    content = torchtitan.tables(text, file)
    return content if torchtitan.is_job(content) else {}


def _recipe(text: str, file: str) -> Document | None:
    """The document of a recipe; None for another kind of file."""
    if not re.search(r"^\s*[\"']?[\w-]+[\"']?\s*:", text, re.MULTILINE):
        return None
    if PYTHON.search(text):
        return None
    document = parse(text, file)
    if isinstance(document.content, Mapping) and sum(key in document.content for key in bridge.OURS) > 1:
        raise Refused("is a scenario already; run it", file)
    if isinstance(document.content, Mapping) and "architectures" in document.content:
        raise Refused("is a model's config.json and no launch file; name it under model in a scenario", file)
    return document if bridge.is_recipe(document.content) else None


def _guess(text: str) -> str:
    """What a file looks like, in words."""
    if not text.strip():
        return "it is empty"
    if PYTHON.search(text):
        return "it is Python (print the job's configuration as YAML or TOML, and import that)"
    return "it has neither flags, nor sections, nor tables of one"


# --- kinds ------------------------------------------------------------------------------------------------------------


def _megatron(text: str, file: str, asked: Asked) -> Imported:
    job = flags.job(text, file, asked.given or {})
    return _in_our_keys(job.settings, job.hosts, job.notes, "Megatron-LM arguments", asked)


def _bridge(document: Document, file: str, asked: Asked) -> Imported:
    document = _with(document, asked, file)
    settings, hosts = bridge.settings(document, file)
    if bridge.is_flags(document.content):
        return _in_our_keys(settings, hosts, (), "Megatron-LM arguments in YAML", asked)
    kind = Kind.PADDED if bridge.pads(document.content) else Kind.PLAIN
    return _in_our_keys(settings, hosts, (), "a Megatron-Bridge or NeMo recipe", asked, kind)


def _in_our_keys(
    s: Settings, hosts: Hosts, notes: Sequence[Note], kind: str, asked: Asked, of: Kind = Kind.ARGUMENTS
) -> Imported:
    """A job of Megatron Core in our keys."""
    machine, world = cluster(asked.machine, hosts, 0, s.file)
    name = Path(s.file).stem
    model: Any = asked.model
    if model:
        whole = _known(model, s.file)
        _ignored(s, name, asked, set(s.settings) - s.read, of)
    else:
        model = transformer.model(s, name, asked.vocabulary, megatron.tensor(s), of)
        whole = model
    keys = megatron.keys(s, whole, world)
    return _imported(s, kind, {"name": name, "cluster": machine, "model": model, **keys}, notes, asked)


def _ignored(s: Settings, name: str, asked: Asked, mine: set[str], of: Kind) -> None:
    """Tell of all dimensions in the file that a known model stands instead of them."""
    before = len(s.notes)
    with suppress(Refused):  # it lacks some of them, which is why a model is named
        transformer.model(s, name, asked.vocabulary or 1, 1, of)
    del s.notes[before:]
    for each in sorted(s.read & mine - {"seq_length"}):
        s.note(each, f"is of its model, in whose place stands {asked.model}")


def _torchtitan(content: Mapping[str, Any], text: str, file: str, asked: Asked) -> Imported:
    given = asked.given or {}
    s = torchtitan.settings(content, text, file)
    for name, value in given.items():
        s.settings[torchtitan.OLD.get(name, name)] = Setting((_value(name, value),), 0, name)
    model = asked.model or torchtitan.model(s)
    if asked.model and "model.flavor" in s:
        s.note("model.flavor", f"is of its model, in whose place stands {asked.model}")
    s.read |= {"model.name", "model.flavor"}
    base = model["base"] if isinstance(model, Mapping) else model
    whole = _known(str(base), file)
    machine, ranks = cluster(asked.machine, Hosts(), torchtitan.world(s), file)
    name = Path(file).stem
    keys = torchtitan.keys(s, whole, ranks)
    return _imported(s, "a torchtitan job", {"name": name, "cluster": machine, "model": model, **keys}, (), asked)


def _with(document: Document, asked: Asked, file: str) -> Document:
    """A recipe with keys given beside it."""
    for name, value in (asked.given or {}).items():
        path = tuple(name.split("."))
        if not all(path):
            raise Refused(f"{name}={value}: a key is words with dots between", file)
        document = merge(document, Document(_value(name, value), {(): Place(file)}).under(*path))
    return document


def _value(name: str, text: str) -> Any:
    """What a key is given beside the file, as YAML has it."""
    return parse(text, name).content


def _known(name: str, file: str) -> Mapping[str, Any]:
    """The keys of a known model."""
    if name not in models():
        raise Refused(f"--model: {unknown(name, 'model', models())}")
    try:
        content: Mapping[str, Any] = expand(Document(name), MODELS).content
    except DocumentError as error:
        raise Refused(f"--model {name}: {error}", file) from None
    return content


def _imported(s: Settings, kind: str, scenario: dict[str, Any], notes: Sequence[Note], asked: Asked) -> Imported:
    """The scenario with notes in the order of the file, those on settings that nobody read included."""
    given = asked.given or {}
    rest = [
        Note(setting.line, setting.shown, reasons.why(name, s.read, s.spell))
        for name, setting in s.rest()
        if setting.line or name in given
    ]
    lines = sorted(dict.fromkeys((*notes, *s.notes, *rest)), key=lambda note: note.line)
    own = UNSAID.get(scenario["stack"]["name"])
    states = {key: word for key, word in scenario["states"].items() if word != own}
    parts = {key: part for key, part in (scenario | {"states": states}).items() if part != {}}
    return Imported(s.file, kind, parts, tuple(lines))
