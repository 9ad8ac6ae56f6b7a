"""Servers: GPUs joined by NVSwitch, their NICs and PCIe, as `nodes/*.yaml` say."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hwmodels import device as devices
from hwmodels.device import Device
from hwmodels.document import Document, KeyPath
from hwmodels.figure import HERE, Figure, Reading
from hwmodels.shelf import Shelf, expand, names
from hwmodels.units import GIGA

SHELF = Shelf("node", HERE / "nodes", "hwmodels/nodes", {"device": devices.SHELF})

LINKS = ("nvlink", "nic", "pcie")

KEYS = ("name", "device", "gpus", "nics_per_gpu", *LINKS)


@dataclass(frozen=True)
class Link:
    """A link of one GPU. bandwidth: nominal bytes/s in one direction. efficiency: the part of it that large
    transfers reach (0 to 1). latency_s: end to end between two GPUs (or GPU and host) over one such link.
    """

    bandwidth: float
    efficiency: float
    latency_s: float

    @property
    def effective(self) -> float:
        """Bytes/s in one direction that large transfers reach."""
        return self.bandwidth * self.efficiency


@dataclass(frozen=True)
class Node:
    """One server. nvlink, pcie: of each GPU. nic: of each NIC; a GPU has `nics_per_gpu` of them.

    nic.latency_s is end to end through one switch; a fabric's own latencies take its place, they do not add to it.
    figures: dotted key of the document, without the device's -> the number with its provenance.
    """

    name: str
    device: Device
    gpus: int
    nvlink: Link
    nic: Link
    nics_per_gpu: int
    pcie: Link
    figures: Mapping[str, Figure] = field(default_factory=dict, hash=False, repr=False)


def load(name: str) -> Node:
    """The node called `name` in `nodes/`. Raises DocumentError."""
    return build(Document(name))


def available() -> tuple[str, ...]:
    """Names of the known nodes."""
    return names(SHELF.folder)


def expanded(document: Document, key: KeyPath = ()) -> Document:
    """`document` without names and `base:`, its device's peaks as its SMs and clock have them. Raises DocumentError."""
    whole = expand(document, SHELF, key)
    device = devices.following(whole.at("device"))
    rest = {path: place for path, place in whole.places.items() if path[:1] != ("device",)}
    places = rest | {("device", *path): place for path, place in device.places.items()}
    return Document({**whole.content, "device": device.content}, places)


def build(document: Document, key: KeyPath = ()) -> Node:
    """The node that a document (a name, or a mapping with or without `base:`) describes. Raises DocumentError.

    key: where the document sits in a larger one, for messages.
    """
    whole = expanded(document, key)
    reading = Reading(whole, key)
    inner = Reading(whole.at("device"), (*key, "device"))
    reading.keys(KEYS)
    node = Node(
        name=reading.word("name"),
        device=devices.read(inner),
        gpus=reading.count("gpus"),
        **{link: _link(reading, link) for link in LINKS},
        nics_per_gpu=_nics(reading),
        figures=reading.figures,
    )
    reading.problems.extend(inner.problems)
    reading.check()
    return node


def _nics(reading: Reading) -> int:
    """NICs of a GPU; of one that GPUs share, how to say it is noted."""
    key = "nics_per_gpu"
    content = reading.content(key)
    number = content.get("value") if isinstance(content, Mapping) else content
    nic = reading.figures.get("nic.bandwidth")
    if nic is None or not isinstance(number, float) or not 0 < number < 1:
        return reading.count(key)
    part = f"nic.bandwidth={nic.value * number / GIGA:g}GB/s"
    reading.problem((key,), f"expected a whole number, 1 or more; found {number:g}; for NICs that GPUs share write "
                    f"{key}: 1 and the part that each has, {part}")  # fmt: skip
    return 0


def _link(reading: Reading, name: str) -> Link:
    if not reading.keys(("bandwidth", "efficiency", "latency"), name):
        return Link(0.0, 0.0, 0.0)
    link = Link(
        reading.quantity("data/time", name, "bandwidth"),
        reading.quantity("ratio", name, "efficiency"),
        reading.quantity("time", name, "latency"),
    )
    if link.efficiency > 1:
        reading.problem((name, "efficiency"), f"expected a ratio from 0 to 1; found {link.efficiency:g}")
    return link
