"""Dragonflies: groups of switches joined all to all, and groups joined all to all (Kim et al., ISCA 2008).

A group has a*h global ports. Port j of each group leads to the group j + 1 further on (counted in a circle), and so
again with the ports that are left after all others have been reached; what is left then goes to nearby groups in pairs,
one forward and one back. With g = a h + 1 groups, the largest dragonfly, every two groups have one cable.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Dragonfly:
    """groups (g) of switches_per_group (a) switches with global_ports (h) and hosts_per_switch (p) each."""

    groups: int
    switches_per_group: int
    global_ports: int
    hosts_per_switch: int

    @property
    def hosting(self) -> int:
        """All switches."""
        return self.switches

    @property
    def switches(self) -> int:
        """a g."""
        return self.groups * self.switches_per_group

    @property
    def endpoints(self) -> int:
        """a p g."""
        return self.switches * self.hosts_per_switch

    @property
    def links(self) -> int:
        """g a (a - 1) / 2 inside groups and g a h / 2 between them."""
        return self.switches * (self.switches_per_group - 1 + self.global_ports) // 2

    @property
    def ports(self) -> int:
        """p + h + a - 1."""
        return self.hosts_per_switch + self.global_ports + self.switches_per_group - 1

    @property
    def layers(self) -> int:
        """All switches are alike."""
        return 1

    @property
    def outward(self) -> int:
        """Global ports of a group: a h."""
        return self.switches_per_group * self.global_ports

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Offsets of the global ports of a group: how many groups further on each leads [a h]."""
        rounds, rest = divmod(self.outward, self.groups - 1)
        pairs = [offset for i in range(1, rest // 2 + 1) for offset in (i, self.groups - i)]
        return tuple([*range(1, self.groups)] * rounds + [self.groups // 2] * (rest % 2) + pairs)

    @cached_property
    def mates(self) -> tuple[int, ...]:
        """Mates of the global ports: the port of the group it leads to at the other end of the cable [a h]."""
        rounds, rest = divmod(self.outward, self.groups - 1)
        full, span = rounds * (self.groups - 1), self.groups - 1
        mates = [j - j % span + self.groups - 1 - offset for j, offset in enumerate(self.offsets[:full])]
        middle = [full] * (rest % 2)
        first = full + rest % 2
        return tuple(mates + middle + [first + (i ^ 1) for i in range(rest - rest % 2)])

    def cables(self) -> Iterator[tuple[int, int]]:
        """Pairs of switches; switch s of group g is number g a + s, and its ports are s h to s h + h - 1."""
        a, h = self.switches_per_group, self.global_ports
        for group in range(self.groups):
            first = group * a
            yield from ((first + s, first + t) for s in range(a) for t in range(s + 1, a))
            for port, (offset, mate) in enumerate(zip(self.offsets, self.mates, strict=True)):
                other = (group + offset) % self.groups
                if (group, port) < (other, mate):
                    yield first + port // h, other * a + mate // h

    def layer(self, switch: int) -> int:
        """0: all switches have endpoints."""
        return 0

    def switch_name(self, switch: int) -> str:
        """Group and place in it, e.g. switch3.5."""
        group, place = divmod(switch, self.switches_per_group)
        return f"switch{group}.{place}"
