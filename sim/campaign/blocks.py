"""A phase as blocks of equal steps. Where the batch grows, a step after T tokens of the phase has
first + (last - first) T / tokens sequences, rounded to the nearest multiple of `by` above the first; whole arithmetic,
so that tokens add up exactly."""

from collections.abc import Iterator
from dataclasses import dataclass

from sim.campaign.values import Phase


@dataclass(frozen=True)
class Block:
    """`steps` equal steps of `sequences` each. phase: its number."""

    phase: int
    sequences: int
    steps: int
    length: int

    @property
    def tokens(self) -> int:
        """Of all of its steps."""
        return self.steps * self.sequences * self.length


def blocks(number: int, phase: Phase) -> Iterator[Block]:
    """Blocks of a phase, in order: as many tokens as it asks for, and less than a step more."""
    if phase.tokens is None:
        assert phase.steps is not None
        yield Block(number, phase.first, phase.steps, phase.length)
        return
    trained, sequences = 0, phase.first
    while trained < phase.tokens:
        end = min(phase.tokens, _until(phase, sequences))
        if end > trained:
            steps = -(-(end - trained) // (sequences * phase.length))
            yield Block(number, sequences, steps, phase.length)
            trained += steps * sequences * phase.length
        sequences += phase.by


def _until(phase: Phase, sequences: int) -> int:
    """Tokens of the phase from which on a step has more than so many sequences."""
    assert phase.tokens is not None
    if sequences >= phase.last:
        return phase.tokens
    middle = 2 * (sequences - phase.first) + phase.by
    return -(-phase.tokens * middle // (2 * (phase.last - phase.first)))
