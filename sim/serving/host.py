"""Caches of sequences in host memory: room for them, and the links on which they go there and come back."""

from sim.serving.deployment import Deployed


class Host:
    """Of an instance. room: tokens that it holds at most. A group's ranks move their parts at once, each on its link;
    groups take what comes in turn, the least busy first."""

    def __init__(self, own: Deployed, room: int) -> None:
        self.own, self.room = own, room
        self.held = 0
        self.free_at = [0] * own.pool.groups

    def takes(self, tokens: int) -> bool:
        """Whether there is room for a cache."""
        return self.held + tokens <= self.room

    def store(self, tokens: int) -> int:
        """ns that a cache takes to go there."""
        self.held += tokens
        return self.own.host_ns(tokens)

    def fetch(self, tokens: int, now: int) -> int:
        """When a cache has come back that is asked for now."""
        self.held -= tokens
        lane = self.free_at.index(min(self.free_at))
        self.free_at[lane] = max(now, self.free_at[lane]) + self.own.host_ns(tokens)
        return self.free_at[lane]

    def clear(self) -> None:
        """All is lost."""
        self.held = 0
