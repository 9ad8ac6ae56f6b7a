"""A served load, step by step, with nothing but lists and a clock: what `sim.serving` must come to.

One instance that does both. Prompts go first, in the order they come, in parts of `chunk`; else every sequence makes a
token. A step's time comes from two functions. No events, no columns, no steps taken together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Prefill = Callable[[int, float], float]
Decode = Callable[[int, float], float]


@dataclass
class Sequence_:  # noqa: N801 - a sequence of tokens, not Python's
    """A request: when it came, tokens of prompt and answer, tokens computed, tokens made, and its first and last."""

    arrival: int
    prompt: int
    output: int
    computed: int = 0
    made: int = 0
    first: int = 0
    last: int = 0
    tokens: list[int] = field(default_factory=list)

    @property
    def context(self) -> int:
        """Tokens in the cache while it decodes: the newest token is not there yet."""
        return self.prompt + self.made - 1


def serve(
    requests: Sequence[tuple[int, int, int]], prefill: Prefill, decode: Decode, chunk: int, batch: int, blocks: int,
    block: int,
) -> list[Sequence_]:  # fmt: skip
    """All requests (arrival ns, prompt, output), served to their ends."""
    everyone = [Sequence_(*each) for each in requests]
    to_come, waiting, filling, running = list(everyone), [], [], []
    now = 0

    def taken(tokens: int) -> int:
        return -(-tokens // block)

    while to_come or waiting or filling or running:
        if not (waiting or filling or running):
            now = max(now, to_come[0].arrival)
        while to_come and to_come[0].arrival <= now:
            waiting.append(to_come.pop(0))
        while waiting and len(running) + len(filling) < batch:
            used = sum(taken(one.prompt) for one in filling) + sum(taken(one.context) for one in running)
            if used + taken(waiting[0].prompt + 1) > blocks:
                break
            filling.append(waiting.pop(0))
        if filling:
            now = _prompts(filling, running, now, prefill, chunk)
        elif running:
            now = _tokens(running, now, decode)
    return everyone


def _prompts(
    filling: list[Sequence_], running: list[Sequence_], now: int, prefill: Prefill, chunk: int
) -> int:  # fmt: skip
    """One step over parts of prompts; the time after it."""
    room, parts, pairs = chunk, [], 0.0
    for one in filling:
        part = min(room, one.prompt - one.computed)
        if part <= 0:
            break
        parts.append((one, part))
        pairs += part * (one.computed + part / 2)
        room -= part
    now += round(prefill(chunk - room, max(1.0, pairs / (chunk - room))))
    for one, part in parts:
        one.computed += part
        if one.computed == one.prompt:
            filling.remove(one)
            one.made, one.first, one.last = 1, now, now
            one.tokens.append(now)
            if one.output > 1:
                running.append(one)
    return now


def _tokens(running: list[Sequence_], now: int, decode: Decode) -> int:
    """One step in which every sequence makes a token; the time after it."""
    now += round(decode(len(running), sum(one.context + 1 for one in running) / len(running)))
    for one in list(running):
        one.made += 1
        one.last = now
        one.tokens.append(now)
        if one.made == one.output:
            running.remove(one)
    return now
