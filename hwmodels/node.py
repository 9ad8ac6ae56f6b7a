"""Servers: GPUs joined by NVSwitch, their NICs and PCIe, as `nodes/*.yaml` say."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hwmodels import device as devices
from hwmodels.device import Device
from hwmodels.document import Document, KeyPath
from hwmodels.figure import HERE, Figure, Reading
from hwmodels.shelf import Shelf, expand, names
from hwmodels.units import GIGA, MICRO

SHELF = Shelf("node", HERE / "nodes", "hwmodels/nodes", {"device": devices.SHELF})

LINKS = ("nvlink", "nic", "pcie")

NVLINK = "NVLink"
"""What the links between GPUs are called where a document gives them no name."""

KEYS = ("name", "device", "gpus", "nics_per_gpu", *LINKS, "launch")


@dataclass(frozen=True)
class Link:
    """A link of one GPU. bandwidth: nominal bytes/s in one direction. efficiency: the part of it that large
    transfers reach (0 to 1). latency_s: end to end between two GPUs (or GPU and host) over one such link. peers: GPUs
    that share the bandwidth, each by an equal link of its own (a full mesh); 0 where a switch gives all of it to any.
    name: what its maker calls it.
    """

    bandwidth: float
    efficiency: float
    latency_s: float
    peers: int = 0
    name: str = ""

    @property
    def effective(self) -> float:
        """Bytes/s in one direction that large transfers reach."""
        return self.bandwidth * self.efficiency

    def between(self, ranks: int) -> float:
        """Those that one of `ranks` GPUs reaches when it talks to all others: in a mesh, over the links to them."""
        return self.effective * min(1.0, max(1, ranks - 1) / self.peers) if self.peers else self.effective


@dataclass(frozen=True)
class Launch:
    """Seconds of the host for an operation of a framework that launches one elementwise kernel: forward, its gradient
    recorded, and backward. What other operations take is told in such ones (`sim.models.layer.Kernel`). The only source
    of the host's time: what tables of a library hold of it (host.json) is evidence for docs/PRICES.md, not a price.

    The default, for nodes that say nothing, is that of an H200's host (hwmodels/nodes/h200x1.yaml; assumed).
    """

    forward_s: float = 14.9 * MICRO
    backward_s: float = 20.6 * MICRO


@dataclass(frozen=True)
class Node:
    """One server, or a rack whose GPUs are one NVLink domain. nvlink, pcie: of each GPU, the links to the other GPUs
    and to the host, whatever their makers call them. nic: of each NIC; a GPU has `nics_per_gpu` of them.

    launch: of its host, of which each GPU has its own share.

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
    launch: Launch = Launch()
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
        launch=_launch(reading),
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


def _launch(reading: Reading) -> Launch:
    if reading.content("launch") is None or not reading.keys(("forward", "backward"), "launch"):
        return Launch()
    return Launch(reading.quantity("time", "launch", "forward"), reading.quantity("time", "launch", "backward"))


def _link(reading: Reading, name: str) -> Link:
    between_gpus = name == "nvlink"
    if not reading.keys(("bandwidth", "efficiency", "latency", *(("name", "peers") if between_gpus else ())), name):
        return Link(0.0, 0.0, 0.0)
    link = Link(
        reading.quantity("data/time", name, "bandwidth"),
        reading.quantity("ratio", name, "efficiency"),
        reading.quantity("time", name, "latency"),
        reading.count(name, "peers") if reading.content(name, "peers") is not None else 0,
        (reading.word(name, "name", optional=True) or NVLINK) if between_gpus else name,
    )
    if link.efficiency > 1:
        reading.problem((name, "efficiency"), f"expected a ratio from 0 to 1; found {link.efficiency:g}")
    return link
