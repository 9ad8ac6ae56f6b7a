"""What each stage of a pipeline holds, as a scenario says it: a layout, or layers spread evenly but for the ends.

Both are Megatron Core's (NVIDIA/Megatron-LM @d98e8a6): `--pipeline-model-parallel-layout`
(megatron/core/transformer/pipeline_parallel_layer_layout.py), `--decoder-first-pipeline-num-layers` and `-last-`, and
`--account-for-embedding-in-pipeline-split` and `-loss-` (megatron/core/transformer/transformer_block.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hwmodels.document import did_you_mean, indivisible, unknown
from hwmodels.refused import Refused

LETTERS = {"E": "embedding", "t": "decoder", "m": "mtp", "L": "loss"}
"""Letter of a layout -> Megatron Core's word: the input embedding, a layer, a multi-token-prediction module up to its
layer, and the head with the loss (and heads of such modules)."""
MOST = 1 << 13
"""Layers and ends of stages that a layout has at most; a model has up to half as many layers (sim.models.form.FEW)."""
LEGAL = "E (embedding), t (layer), m (MTP layer), L (head and loss), | (a stage ends), (...)*n and t*n"


@dataclass(frozen=True)
class Layout:
    """Letters of each stage, in the order of the model: stage = chunk x pipeline + position."""

    stages: tuple[str, ...]

    def __str__(self) -> str:
        return "|".join(self.stages)

    def count(self, letter: str) -> int:
        """How many of a letter there are."""
        return sum(stage.count(letter) for stage in self.stages)


def layout(text: str) -> Layout:
    """The layout that a string describes, e.g. Et*4|(t*4|)*14tmL. Commas and spaces mean nothing. Raises Refused, at a
    character of it."""
    letters = _Reader(text).read()
    whole = Layout(tuple("".join(letters).split("|")))
    _check(whole, repr(text))
    return whole


def of_words(stages: Sequence[Sequence[str]]) -> Layout:
    """The layout of a list of words for each stage, as Megatron Core's YAML has it. Raises Refused."""
    known = {word: letter for letter, word in LETTERS.items()} | dict(zip(LETTERS, LETTERS, strict=True))
    for number, words in enumerate(stages):
        for word in words:
            if word not in known:
                raise Refused(f"stage {number}: {unknown(word, 'word', LETTERS.values())}")
    whole = Layout(tuple("".join(known[word] for word in words) for words in stages))
    _check(whole, "the list")
    return whole


def _check(whole: Layout, named: str) -> None:
    """Refuse what is no model in order: one embedding at its beginning, one head at its end, MTP layers behind all
    others, something on every stage."""
    joined = "".join(whole.stages)
    if "" in whole.stages:
        raise Refused(f"stage {whole.stages.index('')} of {named} holds nothing; legal: something on each stage")
    if joined[0] != "E" or joined[-1] != "L" or (joined.count("E"), joined.count("L")) != (1, 1):
        what = f"{named} begins with {joined[0]}, ends with {joined[-1]}"
        raise Refused(f"{what}, has E {joined.count('E')} and L {joined.count('L')} times; legal: E ... L, each once")
    if "m" in joined and "t" in joined[joined.index("m") :]:
        raise Refused(f"{named} has t behind m; legal: MTP layers behind all others")


class _Reader:
    """Reads a layout string from left to right; a group may stand in a group."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def read(self) -> list[str]:
        """Letters and ends of stages, all written out."""
        letters = self._sequence()
        if self.at < len(self.text):
            raise self._refused(f"')' closes nothing; legal: {LEGAL}")
        return letters

    def _sequence(self) -> list[str]:
        letters: list[str] = []
        while (letter := self._next()) not in ("", ")"):
            begin = self.at
            self.at += 1
            letters += self._times(self._one(letter, begin), begin)
            if len(letters) > MOST:
                raise self._refused(f"more than {MOST} layers and stages", begin)
        return letters

    def _next(self) -> str:
        """What comes next that means something; "" at the end."""
        while self.at < len(self.text) and self.text[self.at] in ", ":
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _one(self, letter: str, begin: int) -> list[str]:
        """A letter, or what is in brackets."""
        if letter == "(":
            inner = self._sequence()
            if self._next() != ")":
                raise self._refused("'(' is not closed; legal: (...)*n", begin)
            self.at += 1
            if self._next() != "*":
                raise self._refused("')' without *n; legal: (...)*n, e.g. (t*4|)*14", self.at - 1)
            return inner
        if letter not in LETTERS and letter != "|":
            raise self._refused(f"{letter!r}; legal: {LEGAL}", begin)
        return [letter]

    def _times(self, what: list[str], begin: int) -> list[str]:
        """It, as many times as a number behind an asterisk says."""
        if self._next() != "*":
            return what
        self.at += 1
        self._next()
        end = self.at
        while end < len(self.text) and self.text[end].isdecimal():
            end += 1
        digits, star, self.at = self.text[self.at : end], self.at - 1, end
        if not digits:
            raise self._refused("'*' without a number; legal: t*n or (...)*n", star)
        if len(what) * int(digits) > MOST:
            raise self._refused(f"more than {MOST} layers and stages", begin)
        return what * int(digits)

    def _refused(self, what: str, at: int | None = None) -> Refused:
        return Refused(f"character {(self.at if at is None else at) + 1} of {self.text!r}: {what}")


@dataclass(frozen=True)
class Spread:
    """Layers spread evenly over positions, then over the stages of each. first, last: layers of the first position and
    of the last, where those differ. embedding, head: whether it counts as a layer, so that its stage has one fewer."""

    first: int | None = None
    last: int | None = None
    embedding: bool = False
    head: bool = False

    @property
    def plain(self) -> dict[str, int | bool]:
        """What it says, as plain values."""
        return {key: value for key, value in vars(self).items() if value}

    def counts(self, layers: int, pipeline: int, chunks: int) -> tuple[int, ...]:
        """Layers of each stage; stage = chunk x pipeline + position."""
        ends = self._ends(pipeline)
        middle = (layers + self.embedding + self.head - sum(ends.values())) // max(1, pipeline - len(ends))
        each = [ends.get(position, middle) for position in range(pipeline)]
        counts = [each[position] // chunks for _ in range(chunks) for position in range(pipeline)]
        counts[0] -= self.embedding
        counts[-1] -= self.head
        return tuple(counts)

    def _ends(self, pipeline: int) -> dict[int, int]:
        """Layers of positions for which that is said."""
        said = ((0, self.first), (pipeline - 1, self.last))
        return {position: layers for position, layers in said if layers is not None}

    def misfit(self, layers: int, pipeline: int, chunks: int) -> str:
        """Why so many layers cannot be spread so, with the nearest that can; "" where they can."""
        if self.first is None and self.last is None:
            total, by = layers + self.embedding + self.head, "parallel.pipeline"
            further = " + ".join(word for word in ("embedding", "head") if getattr(self, word))
            more = " x schedule.chunks" if chunks > 1 else ""
            if total % (pipeline * chunks):
                return indivisible(f"model.layers {layers} + {further} = {total}", total, by + more, pipeline * chunks)
            return ""
        for key in ("last", "first"):
            said = getattr(self, key)
            if said is not None and not self._fits(layers, pipeline, chunks):
                others = {n: self._with(key, n) for n in range(chunks, layers + 1, chunks)}
                near = [n for n, other in others.items() if other._fits(layers, pipeline, chunks)]
                if near or key == "first" or self.first is None:
                    each = f" of {chunks} stages" if chunks > 1 else ""
                    fit = f"nearest legal: {min(near, key=lambda n: abs(n - said))}" if near else "no other fits either"
                    of = f"{layers} layers over {pipeline} positions{each}"
                    return f"{key} {said} leaves {of} uneven where they should be alike; {fit}"
        return ""

    def _with(self, key: str, layers: int) -> "Spread":
        """With so many layers on the first or on the last position."""
        return replace(self, first=layers) if key == "first" else replace(self, last=layers)

    def _fits(self, layers: int, pipeline: int, chunks: int) -> bool:
        """Whether all positions but the ends hold equally many, and so do the stages of each."""
        ends = self._ends(pipeline)
        middle, rest = pipeline - len(ends), layers - sum(ends.values())
        alike = rest > 0 and rest % (middle * chunks) == 0 if middle else rest == 0
        said = (self.first is not None) + (self.last is not None)
        return alike and said <= pipeline and all(n % chunks == 0 for n in ends.values())


RULES = ("balanced", "even")
PLACEMENTS = (
    "balanced, even, a list of layers for each stage, a layout such as Et*4|(t*4|)*14tmL, or a mapping with first and "
    "last or with embedding and head"
)


def placement(value: Any) -> str | tuple[int, ...] | Layout | Spread:
    """A rule, layers of each stage, a layout or a spread, as a scenario says it. Raises ValueError."""
    try:
        return _placement(value)
    except Refused as refused:
        raise ValueError(str(refused)) from None


def _placement(value: Any) -> str | tuple[int, ...] | Layout | Spread:
    listed = list(value) if isinstance(value, list | tuple) and value else []
    if listed and all(type(item) is int and item >= 0 for item in listed):
        return tuple(listed)
    if listed and all(isinstance(item, list | tuple) and all(isinstance(w, str) for w in item) for item in listed):
        return of_words(listed)
    if isinstance(value, Mapping) and value and not any(str(key).isdecimal() for key in value):
        return _spread(value)
    if value in RULES:
        return str(value)
    if isinstance(value, str) and set("|*()EL") & set(value):
        return layout(value)
    near = did_you_mean(value, RULES) if isinstance(value, str) else ""
    raise Refused(f"found {value!r}{near or ';'} legal: {PLACEMENTS}")


def _spread(value: Mapping[str, Any]) -> Spread:
    """A spread; what is null is not written."""
    given = {key: inner for key, inner in value.items() if inner is not None}
    for key, inner in given.items():
        if key not in Spread.__dataclass_fields__:
            raise Refused(unknown(key, "key", Spread.__dataclass_fields__))
        count = key in ("first", "last")
        if (count and not (type(inner) is int and inner > 0)) or (not count and type(inner) is not bool):
            raise Refused(
                f"{key}: expected {'a whole number, 1 or more' if count else 'true or false'}; found {inner!r}"
            )
    spread = Spread(**given)
    if not spread.plain:
        raise Refused(f"found {dict(value)!r}; legal: {PLACEMENTS}")
    if {"first", "last"} & spread.plain.keys() and {"embedding", "head"} & spread.plain.keys():
        raise Refused(f"found {' and '.join(spread.plain)}; legal: first and last, or embedding and head")
    return spread
