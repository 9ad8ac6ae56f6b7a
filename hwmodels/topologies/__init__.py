"""How switches are wired, one kind a file: counts by closed form, the cables, and names. No routes, no speeds."""

from collections.abc import Iterator
from typing import Protocol


class Topology(Protocol):
    """One plane of switches, numbered from 0; the first `hosting` of them have endpoints, `hosts_per_switch` each."""

    @property
    def hosts_per_switch(self) -> int:
        """Endpoints on a switch that has any."""
        ...

    @property
    def hosting(self) -> int:
        """Switches that have endpoints."""
        ...

    @property
    def endpoints(self) -> int:
        """Endpoints in all."""
        ...

    @property
    def switches(self) -> int:
        """Switches in all."""
        ...

    @property
    def links(self) -> int:
        """Cables between switches."""
        ...

    @property
    def ports(self) -> int:
        """Ports that the busiest switch uses."""
        ...

    @property
    def layers(self) -> int:
        """Layers of switches; 1 where all switches are alike."""
        ...

    def cables(self) -> Iterator[tuple[int, int]]:
        """Pairs of switches, one a cable. Raises Refused (one line) when it cannot be wired."""
        ...

    def switch_name(self, switch: int) -> str:
        """What a switch is called."""
        ...

    def layer(self, switch: int) -> int:
        """Layer of a switch, 0 the one with endpoints."""
        ...
