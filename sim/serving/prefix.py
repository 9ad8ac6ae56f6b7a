"""Prompts of the past, block by block: what a request need not compute again. The least recently used goes first."""

from collections import OrderedDict
from collections.abc import Sequence


class Prefixes:
    """room: blocks that are kept at most. A block's name says all that comes before it, as in Mooncake's traces."""

    def __init__(self, room: int) -> None:
        self.room, self.kept = room, OrderedDict[int, None]()
        self.asked = self.hits = 0

    def known(self, blocks: Sequence[int]) -> int:
        """Blocks at the beginning of a prompt that are kept."""
        for i, name in enumerate(blocks):
            if name not in self.kept:
                return i
        return len(blocks)

    def use(self, blocks: Sequence[int]) -> int:
        """The same of a request that comes; they are the most recently used then."""
        count = self.known(blocks)
        for name in blocks[:count]:
            self.kept.move_to_end(name)
        self.asked, self.hits = self.asked + len(blocks), self.hits + count
        return count

    def keep(self, blocks: Sequence[int]) -> None:
        """All blocks of a prompt that was computed."""
        for name in blocks:
            self.kept[name] = None
            self.kept.move_to_end(name)
        while len(self.kept) > self.room:
            self.kept.popitem(last=False)
