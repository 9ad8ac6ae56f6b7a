"""Numbers that a sensitivity moves: of the machine, of a scenario, and of the file of any other kind."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hwmodels.document import did_you_mean
from hwmodels.figure import Figure
from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S, units
from sim.experiments.kind import Kind
from sim.experiments.unfelt import DESCRIPTIVE
from sim.result.sensitivity import MACHINE, SCENARIO
from sim.scenario.values import Scenario

WHOLE = ("gpus", "nics_per_gpu", "nics_per_leaf", "radix", "layers", "planes", "order", "groups", "hosts_per_switch",
         "peers", "dies", "nodes", "seed")  # fmt: skip
"""Figures that count parts: another number is another machine, not a percentage of this one."""
ALONG = ("efficiency",)
"""Figures that are only ever read as a product with another one, the bandwidth."""
DEARER = ("latency", "launch", "spread", "jitter", "max_vio", "slower", "forward", "backward", "p2p")
"""Words of keys whose more is the worse."""
NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*")
MACHINES = ("cluster", "node", "fabric")
"""Keys of a file below which its machine is."""


class Key(NamedTuple):
    """Something to move. base: SI, text: as written. unit: behind the number. multiple: values are multiples of it; 0:
    any number."""

    key: str
    kind: str
    base: float
    text: str
    number: float
    unit: str
    multiple: int = 0

    @property
    def dearer(self) -> bool:
        """Whether more of it is the worse."""
        return any(word in part for word in DEARER for part in self.key.split(".")[-2:])

    @property
    def one(self) -> float:
        """SI value of a unit of its number."""
        return self.base / self.number

    def at(self, factor: float) -> tuple[str, float]:
        """Its value as written, and by what factor that lies from the base."""
        if not self.multiple:
            return f"{self.number * factor:.10g} {self.unit}".strip(), factor
        times, now = round(self.number * factor / self.multiple), round(self.number / self.multiple)
        if times == now and factor != 1:  # the next one that is legal
            times += 1 if factor > 1 else -1
        near = max(1, times) * self.multiple
        return f"{near:.15g}", near / self.number


def asked(every: Iterable[Key], words: Iterable[str]) -> list[Key]:
    """Those of keys that are asked for, or lie in what is; without words all. Raises Refused."""
    keys, wanted = list(every), list(words)
    for word in wanted:
        if not any(_in(key.key, word) for key in keys):
            near = did_you_mean(word, [key.key for key in keys])
            raise Refused(f"--keys: nothing to move at {word!r}{near or '; see --help for what is moved'}")
    return [key for key in keys if not wanted or any(_in(key.key, word) for word in wanted)]


def _in(key: str, word: str) -> bool:
    return key == word or key.startswith(f"{word}.")


def of_scenario(scenario: Scenario) -> Iterator[Key]:
    """Of a training step: of its machine, batch, SMs of communication, loads, faults, and times of chunks."""
    if scenario.cluster:
        yield from of_machine(scenario.cluster.figures)
    batch, routing = scenario.batch, scenario.routing
    if batch.sequences:
        once = scenario.data_parallel * batch.micro_batch  # of a micro-batch each; schedules that pair them need two
        yield _plain("batch.sequences", batch.sequences, once * (1 + (batch.sequences % (2 * once) == 0)))
    elif batch.micro_batches:
        yield _plain("batch.micro_batches", batch.micro_batches, 1 + (batch.micro_batches % 2 == 0))
    if scenario.model:
        yield _plain("batch.sequence_length", batch.sequence_length, _even(batch.sequence_length))
        if scenario.comm.sms:
            yield _plain("comm.sms", scenario.comm.sms, 2)
    for name in ("spread", "max_vio"):
        if value := getattr(routing, name):
            yield _plain(f"routing.{name}", value)
    if scenario.jitter:
        yield _plain("jitter", scenario.jitter)
    for place, fault in enumerate(scenario.faults):
        yield _plain(f"faults.{place}.slower", fault.slower)
    for name, ns in vars(scenario.chunk_times).items() if scenario.chunk_times else ():
        if ns:
            yield Key(f"chunk_times.{name}", SCENARIO, ns / NS_PER_S, f"{ns} ns", ns, "ns")


def of_machine(figures: Mapping[str, Figure]) -> Iterator[Key]:
    """Of a machine's numbers by dotted key."""
    for key, figure in figures.items():
        last = key.split(".")[-1]
        if figure.value and last not in (*WHOLE, *ALONG) and not descriptive(key):
            yield _key(key, figure)


def _key(key: str, figure: Figure) -> Key:
    match = NUMBER.fullmatch(figure.text)
    assert match, figure.text
    whole = isinstance(figure.value, int)
    return Key(key, MACHINE, figure.value, figure.text, float(match[1]), match[2], 1 if whole else 0)


def descriptive(key: str) -> bool:
    """Whether a figure of a machine is read by nothing."""
    inside = key.partition(".node.")[2] or key.partition(".fabric.")[2]
    names = (name.removeprefix("cluster.").removeprefix("node.").removeprefix("fabric.") for name in DESCRIPTIVE)
    return any(_in(inside, name) for name in names)


def of_file(own: Kind, content: Any, figures: Mapping[str, Figure]) -> Iterator[Key]:
    """Of another kind: of its machine, and every number that its file says, but for those that say how something is
    cut."""
    yield from of_machine(figures)
    for key, value in _numbers(content):
        parts = key.split(".")
        cut = any(word in parts for word in own.structure) or parts[-1] in WHOLE
        cut = cut or any(word in MACHINES for word in parts[:2])
        if not cut and (one := _of_text(key, value)):
            yield one


def _numbers(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a document by dotted key; items of lists by their number."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    if isinstance(content, Mapping):
        for name, inner in content.items():
            yield from _numbers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(content, int | float | str) and not isinstance(content, bool):
        yield key, content


def _of_text(key: str, value: int | float | str) -> Key | None:
    """A number as a file has it: plain, or with a unit; None of words and of nothing."""
    match = NUMBER.fullmatch(str(value))
    if match is None or not float(match[1]) or (match[2] and match[2] not in units()):
        return None
    if isinstance(value, str) and not match[2]:
        return None  # a word that looks like a number
    number = float(match[1])
    one = units()[match[2]][1] if match[2] else 1.0
    return Key(key, SCENARIO, number * one, str(value), number, match[2], 1 if isinstance(value, int) else 0)


def _plain(key: str, value: float, multiple: int = 0) -> Key:
    return Key(key, SCENARIO, value, f"{value:g}" if multiple else f"{value!r}", value, "", multiple)


def _even(length: int) -> int:
    """A power of two that a length is a multiple of, as large as a tenth of it allows."""
    size = 1
    while length % (2 * size) == 0 and 2 * size * 16 <= length:
        size *= 2
    return size
