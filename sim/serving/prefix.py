"""Prompts of the past, block by block: what a request need not compute again.

Two tiers, HBM and host memory. The least recently used goes from HBM to the host, and from there for good; what is used
again comes back.
"""

from collections import OrderedDict
from collections.abc import Sequence

Tier = OrderedDict[int, None]


class Prefixes:
    """room, beyond: blocks that HBM and host memory keep at most. A block's name says all that comes before it, as in
    Mooncake's traces."""

    def __init__(self, room: int, beyond: int = 0) -> None:
        self.room, self.beyond = room, beyond
        self.kept, self.hosted = Tier(), Tier()

    def known(self, blocks: Sequence[int]) -> int:
        """Blocks at the beginning of a prompt that are kept."""
        for i, name in enumerate(blocks):
            if name not in self.kept and name not in self.hosted:
                return i
        return len(blocks)

    def use(self, blocks: Sequence[int]) -> tuple[int, int]:
        """The same of a request that comes, and how many of them host memory has; all are the most recently used then,
        and in HBM."""
        count = self.known(blocks)
        fetched = 0
        for name in blocks[:count]:
            if name in self.hosted:
                del self.hosted[name]
                fetched += 1
            self._newest(name)
        self._trim()
        return count, fetched

    def keep(self, blocks: Sequence[int]) -> None:
        """All blocks of a prompt that was computed."""
        for name in blocks:
            self.hosted.pop(name, None)
            self._newest(name)
        self._trim()

    def _newest(self, name: int) -> None:
        self.kept[name] = None
        self.kept.move_to_end(name)

    def _trim(self) -> None:
        while len(self.kept) > self.room:
            name, _ = self.kept.popitem(last=False)
            if self.beyond:
                self.hosted[name] = None
        while len(self.hosted) > self.beyond:
            self.hosted.popitem(last=False)
