"""DualPipe: micro-batches enter at both ends, and a forward of one direction overlaps a backward of the other.

Rank r holds stage r for the first half of the micro-batches, which enter at rank 0, and stage PP-1-r for the second
half, which enter at rank PP-1. Ranks and halves mirror each other. A rank's work falls in eight parts, each a pattern
run some number of times; how often depends only on how deep the rank sits between its end and the middle. The middle
ranks do not overlap their first pair: its backward is what the rest of the pipeline waits for.

Source: DeepSeek-V3 report (arXiv:2412.19437), section 3.2.1 and figure 5; eight parts and their names: DualPipe
(github.com/deepseek-ai/DualPipe).
Bubble: (PP/2-1)(F&B+B-3W), for W <= F = B-W and F&B = F+B; where an input gradient is shorter, W <= B-W <= F, it is
longer by (PP/2-1)(F-(B-W)). Activations: PP+1 chunks. Weights: 2 copies of each stage.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, count, repeat

from sim.schedules.program import Misfit, Posts, Program, Shape, Step

Part = tuple[int, str]
"""How often, and what: 0 is the side of the rank's own end, 1 the other; W is the oldest weight gradient put off."""


def stages(shape: Shape) -> int:
    """One stage a rank and direction; each stage is on two ranks."""
    return shape.pipeline


def misfits(shape: Shape) -> Iterator[Misfit]:
    """Ranks mirror each other, halves of the micro-batches too, and each half fills the pipeline."""
    if shape.pipeline % 2:
        yield Misfit("pipeline", "even numbers (its ranks mirror each other)", shape.pipeline + 1)
        return
    least = 2 * shape.pipeline
    if shape.micro_batches % 2 or shape.micro_batches < least:
        yield Misfit("micro_batches", f"even numbers from {least} on", max(least, shape.micro_batches + 1))


def build(shape: Shape) -> Program:
    """An even pipeline and an even number of micro-batches, at least 2 PP."""
    positions, micro_batches = shape.pipeline, shape.micro_batches
    steps = tuple(tuple(_steps(position, positions, micro_batches // 2)) for position in range(positions))
    early, late = shifted([_depth(position, positions) for position in range(positions)], positions // 2)
    return Program("dualpipe", positions, positions, micro_batches, steps, 2, early, late)


def _steps(position: int, positions: int, each_way: int) -> Iterator[Step]:
    near = (position, 0)  # (stage, first micro-batch) of the direction that enters at rank 0
    far = (positions - 1 - position, each_way)
    sides = (near, far) if position < positions // 2 else (far, near)
    return unroll(eight_parts(_depth(position, positions), positions // 2, each_way), sides)


def _depth(position: int, positions: int) -> int:
    """Steps in from the nearer end."""
    return min(position, positions - 1 - position)


def eight_parts(depth: int, half: int, micro_batches: int) -> tuple[Part, ...]:
    """The work of the rank `depth` steps in from an end (0 .. half-1), for `micro_batches` on each side."""
    own = depth + 1
    inner = half - own  # ranks between this one and the middle
    main = micro_batches - 2 * half + own
    odd = own % 2
    return (
        (2 * inner, "F0"),  # 1: fill the own side
        (own, "F0 F1"),  # 2: both sides
        (inner, "B1 W F1"),  # 3: zero bubble
        (1, "F0+BW1 F1+BW0" if inner else "F0 BW1 F1+BW0"),  # 4: the main part
        (main - 1, "F0+BW1 F1+BW0"),
        (inner, "BW1 F1+BW0"),  # 5: the own side has no forwards left
        (own // 2, "BW1 BW0"),  # 6: only backwards; the second half of them puts off W
        (odd, "BW1 B0"),
        (own // 2, "B1 B0"),
        (inner, "W B0"),  # 7: zero bubble
        (own, "W"),  # 8: what was put off
    )


def shifted(depths: Iterable[int], half: int) -> tuple[Posts, Posts]:
    """Inputs that the published program asks for early, and outputs that it hands on late, of positions so many steps
    in from an end. Two sides that meet would otherwise wait for each other.

    Source: `step` of dualpipe.py and dualpipev.py (github.com/deepseek-ai/DualPipe @3da1bbe).
    """
    early, late = dict[tuple[int, int, str], int](), dict[tuple[int, int, str], int]()
    for position, depth in enumerate(depths):
        own, inner = depth + 1, half - depth - 1
        both, zero_bubble = 2 * inner, 2 * (inner + own)  # where parts 2 and 3 begin
        main = zero_bubble + 3 * inner
        near = range(both, zero_bubble, 2)  # forwards of the own side in part 2, each followed by one of the other
        early |= {(position, step, "F"): asked + 1 for step, asked in zip((*near[1:], main), near, strict=True)}
        early |= {(position, step, "F"): step - 1 for step in range(zero_bubble + 2, main, 3)}
        late |= {(position, step, "F"): step + 2 for step in (near if inner else (zero_bubble - 1, main))}
    return early, late


def unroll(parts: Iterable[Part], sides: tuple[tuple[int, int], tuple[int, int]]) -> Iterator[Step]:
    """Steps of the parts; `sides` are (stage, first micro-batch). Each side's forwards and backwards count up."""
    ways = {(letter, str(side)): zip(repeat(stage), count(first), strict=False)
            for letter in "FB" for side, (stage, first) in enumerate(sides)}  # fmt: skip
    put_off: deque[tuple[int, int]] = deque()
    for times, pattern in parts:
        for word in pattern.split() * times:
            if word == "W":
                yield Step("W", *put_off.popleft())
                continue
            at = [next(ways[half[0], half[-1]]) for half in word.split("+")]
            kind = word.replace("0", "").replace("1", "")
            if kind == "B":
                put_off.append(at[0])
            yield Step(kind, *chain.from_iterable(at))
