"""The flags of a Megatron-LM job in a shell script or a list of arguments, and where its launcher says it runs."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from hwmodels.refused import Refused
from sim.scenario.launchers.machine import Hosts
from sim.scenario.launchers.script import Script
from sim.scenario.launchers.settings import Note, Setting, Settings
from sim.scenario.launchers.shell import SINGLE, Letters, Word, letters

TELLING = frozenset(
    [
        "num_layers",
        "hidden_size",
        "num_attention_heads",
        "seq_length",
        "micro_batch_size",
        "global_batch_size",
        "use_mcore_models",
        "bf16",
        "tensor_model_parallel_size",
        "pipeline_model_parallel_size",
        "max_position_embeddings",
        "ffn_hidden_size",
    ]
)
"""Flags that only a Megatron job has; two of them make a command one."""
NODES = ("nnodes", "num_nodes", "nodes", "N")
PER_NODE = ("nproc_per_node", "gpus_per_node", "gres")
EACH = ("ntasks_per_node",)
TASKS = ("ntasks", "np", "n")
"""Options of torchrun, srun, sbatch and mpirun: nodes, GPUs or tasks on each, all tasks; the best first."""
AROUND = ("srun", "sbatch", "mpirun")
TORCH = ("torchrun", "torch.distributed")
"""Launchers around a job; words of those that start a rank a GPU."""
OPERATORS = "()|&;<>"
"""Letters that part commands."""


class Job(NamedTuple):
    """What a script launches: flags of the job, where it runs, and what was not understood on the way."""

    settings: Settings
    hosts: Hosts
    notes: tuple[Note, ...]


def is_megatron(text: str) -> bool:
    """Whether a text has flags that only a Megatron job has."""
    names = {_name(word) for word in re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", text)}
    return len(names & TELLING) > 1


def job(text: str, file: str, given: Mapping[str, str]) -> Job:
    """The job that a text launches. given: variables of the script from outside. Raises Refused."""
    try:
        script = Script(_letters(text), given)
    except Refused as refused:
        raise Refused(str(refused).removeprefix(f":{refused.line}: "), file, refused.line) from None
    if unknown := sorted(given.keys() - script.seen):
        raise Refused(f"has no variable {unknown[0]} that {unknown[0]}=... could stand for", file)
    words, notes = _launched(script)
    options, flags = _parted(words)
    settings, more = _settings(flags)
    slurm = [Word(letters(word), number) for number, line in enumerate(text.splitlines(), 1) for word in _sbatch(line)]
    around = [each for each in script.launched if each[0].text in AROUND]
    torch = any(mark in word.text for word in options for mark in TORCH)
    hosts = _hosts(torch, [dict(_options(each)) for each in (options, *around, slurm)])
    return Job(Settings(file, settings), hosts, (*script.notes, *notes, *more))


def _letters(text: str) -> Letters:
    """Letters of a script; in a list of arguments no operators stand between them."""
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    if not first.lstrip().startswith("-"):
        return letters(text)
    return [each._replace(quoting=SINGLE) if each.text in OPERATORS else each for each in letters(text)]


def _launched(script: Script) -> tuple[list[Word], list[Note]]:
    """The words of the command that launches the job: that with most flags; or else all loose flags, or those in
    variables."""
    jobs = [words for words in script.launched if not words[0].text.startswith("-") and _telling(words) > 1]
    if jobs:
        best = max(jobs, key=lambda words: (_telling(words), sum(w.text.startswith("--") for w in words)))
        others = [words for words in jobs if words is not best and words[0].text != best[0].text]
        why = f"another launch; the one read is that of line {best[0].line}"
        return list(best), [Note(words[0].line, words[0].text, why) for words in others]
    loose = [word for words in script.launched if words[0].text.startswith("-") for word in words]
    if _telling(loose) > 1:
        return loose, []
    names = [name for name, values in script.values.items() if any("--" in word.text for word in values)]
    inside = [word for name in names for word in script.expanded(script.values[name])]
    split = [part for word in inside for part in _parts(word)]
    return split, [Note(0, ", ".join(names), "nothing is launched here; read are the flags in these variables")]


def _parts(word: Word) -> Iterator[Word]:
    """The words that a text falls into at blank space."""
    part: list[int] = []
    for i, letter in enumerate([*word.letters, None]):
        if letter is None or letter.text.isspace():
            if part:
                inside = word.letters[part[0] : part[-1] + 1]
                yield Word(inside, inside[0].line)
            part = []
        else:
            part.append(i)


def _telling(words: Iterable[Word]) -> int:
    return len({_name(word.text) for word in words} & TELLING)


def _name(word: str) -> str:
    """The name of a flag as it is kept here."""
    return word.partition("=")[0].lstrip("-").replace("-", "_")


def _parted(words: Sequence[Word]) -> tuple[list[Word], list[Word]]:
    """Words of the launcher, up to the program, and of the program."""
    for i, word in enumerate(words):
        if word.text.endswith(".py") and not word.text.startswith("-"):
            return list(words[:i]), list(words[i + 1 :])
    first = next((i for i, word in enumerate(words) if _name(word.text) in TELLING), 0)
    return list(words[:first]), list(words)


def _settings(words: Sequence[Word]) -> tuple[dict[str, Setting], list[Note]]:
    """Flags with the words after them; the last of two wins, as argparse has it."""
    settings: dict[str, Setting] = {}
    notes: list[Note] = []
    flag, line, values = "", 0, list[str]()

    def keep() -> None:
        if flag:
            if (old := settings.get(_name(flag))) is not None:
                notes.append(Note(old.line, old.shown, f"comes again at line {line}, which counts"))
            settings[_name(flag)] = Setting(tuple(values), line, flag)

    for word in words:
        text = word.text
        if text.startswith("--") and len(text) > 2:
            keep()
            flag, _, value = text.partition("=")
            line, values = word.line, [value] if value else []
        elif text and flag:
            values.append(text)
        elif text and not text.startswith("-"):
            notes.append(Note(word.line, text, "stands before any flag; nothing is done with it"))
    keep()
    return settings, notes


def _sbatch(line: str) -> list[str]:
    match = re.match(r"#SBATCH\s+(.*)", line)
    return match[1].split() if match else []


def _options(words: Sequence[Word]) -> Iterator[tuple[str, str]]:
    """Options of a launcher with their values."""
    for i, word in enumerate(words):
        if word.text.startswith("-"):
            name, _, value = word.text.lstrip("-").partition("=")
            after = words[i + 1].text if i + 1 < len(words) else ""
            yield name.replace("-", "_"), value or ("" if after.startswith("-") else after)


def _hosts(torch: bool, launchers: Sequence[Mapping[str, str]]) -> Hosts:
    """Nodes and GPUs on each, from the first launcher that says them. torch: torchrun starts the ranks, on one node and
    one GPU unless said (torch/distributed/run.py); else each task is a rank."""
    nodes, tasks = _first(launchers, NODES), _first(launchers, TASKS)
    asked = next((each[name] for each in launchers for name in (*NODES, *PER_NODE) if "$" in each.get(name, "")), "")
    if torch:
        per_node = _first(launchers, PER_NODE) or int(not asked)
        return Hosts(nodes or tasks // (_first(launchers, EACH) or 1) or int(not asked), per_node, asked)
    per_node = _first(launchers, (*PER_NODE, *EACH))
    if not nodes and per_node and tasks % per_node == 0:
        nodes = tasks // per_node
    return Hosts(nodes, per_node, asked, tasks)


def _first(launchers: Sequence[Mapping[str, str]], names: Sequence[str]) -> int:
    """The first number under one of the names, 0 where there is none; of gpu:h100:8, the last part."""
    for launcher in launchers:
        for name in names:
            value = launcher.get(name, "").rpartition(":")[2]
            if value.isascii() and value.isdigit() and 0 < len(value) < 8 and int(value):
                return int(value)
    return 0
