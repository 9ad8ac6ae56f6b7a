"""Goes through the space of a search: what is legal, what can be among the best, what fits, and runs of the rest.

Points are ranked by the least step that each can have. The first of them are weighed: laid out, which tells whether
they fit and gives a nearer bound, by which they are ranked again; those that are still first are run. A point is left
out once so many better ones were run that it can neither be among the best nor on the front of the objectives. That is
exact: what is left out could not have changed the answer (tests/sim/experiments/test_search.py compares with every
point run). A batch is chosen by what was known before it, so the answer is the same however many workers there are.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice, takewhile
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.refused import Refused
from hwmodels.units import format_quantity
from sim.experiments import kinds
from sim.experiments.answer import Answer, Beside, Row
from sim.experiments.executors import Executor
from sim.experiments.kind import value
from sim.experiments.objectives import LIMITED, Facts, Figures, beats, front, rank_correlation, shown
from sim.experiments.record import Book, Record, record, stamp
from sim.experiments.sampler import sampled
from sim.experiments.screen import MEMORY, Ask, Screened, Tried, screened, tried, weighed
from sim.experiments.search import Search
from sim.experiments.space import Census, Choice, legal, neighbours

CHUNK, BATCH = 48, 8
"""Points that are screened, and tried, before the next are chosen. As many are weighed at first, then twice as many
each time: what is sorted as neighbours shares more, and all that could still be best must be weighed anyway."""
KEY = "point"
"""Of a line in the file of points."""
DIGEST_BYTES = 16
Hear = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is, and of how much (0: nobody knows)."""


def silent(what: str, done: int, of: int) -> None:
    """Hears nothing."""


class Candidate(NamedTuple):
    """A legal point with the scores of the least that it can have. weighed: by all that is known before it runs."""

    choice: Choice
    scores: tuple[float, ...]
    weighed: bool = False


class Explorer:
    """One search on its way. points: the book that what is tried goes to."""

    def __init__(self, search: Search, executor: Executor, points: Book, hear: Hear = silent) -> None:
        self.search, self.executor, self.points, self.hear = search, executor, points, hear
        self.census = Census(len(search.space.product))
        self.refused, self.pruned, self.done = dict[str, tuple[int, str]](), Counter[str](), Counter[str]()
        self.outcomes, self.illegal, self.least_bytes = dict[Choice, Tried](), set[Choice](), list[int]()
        self.nearest = dict[str, float]()
        self.base = "" if search.kind else search.space.described(()).scenario_hash

    # --- what may be good ---------------------------------------------------------------------------------------------

    def choices(self) -> list[Choice]:
        """All legal points; of more than are looked at, that many and one."""
        each = legal(self.search.space, self.census, lambda number: self.hear("legal", number, 0))
        return list(islice(each, self.search.exhaustive + 1))

    def candidates(self, choices: Sequence[Choice]) -> list[Candidate]:
        """Legal points that can keep the limits, those first that can be best."""
        choices = sorted(choices, key=neighbours(self.search.space.product))
        chunks = [choices[at : at + CHUNK] for at in range(0, len(choices), CHUNK)]
        asks = ([self.ask(choice) for choice in chunk] for chunk in chunks)
        each: dict[Choice, Screened] = {}
        for number, answers in self.executor.results(screened, asks):
            each.update(zip(chunks[number], answers, strict=True))
            self.hear("screened", len(each), len(choices))
        out = [self._candidate(choice, each[choice]) for choice in choices]
        return sorted((one for one in out if one), key=lambda one: one.scores[0])  # a stable sort: neighbours stay so

    def ask(self, choice: Choice) -> Ask:
        """A question about a point as points are ranked."""
        space = self.search.space
        overrides = (*space.product.point(choice).overrides, *self.search.cheap)
        return Ask(str(space.place), overrides, self.search.limits.memory)

    def _candidate(self, choice: Choice, seen: Screened, weighed: bool = False) -> Candidate | None:
        if seen.refused:
            self._refuse(choice, seen.refused)
            return None
        if seen.least is None:
            return Candidate(choice, (-inf,) * len(self.search.objectives), True)
        if word := seen.lacks or self._missed(seen.least):
            self.pruned[word] += 1
            self.least_bytes += [seen.least.peak_bytes] if word == MEMORY else []
            return None
        return Candidate(choice, self.scores(seen.least), weighed)

    def _refuse(self, choice: Choice, why: str) -> None:
        """Count a point that is refused when it is looked at as a whole, once: no rule of the space has its keys."""
        if choice in self.illegal:
            return
        self.illegal.add(choice)
        self.census.legal -= 1
        count, first = self.refused.get(_reason(why), (0, why))
        self.refused[_reason(why)] = count + 1, first

    def scores(self, facts: Facts | Figures) -> tuple[float, ...]:
        """Less is better."""
        return self.search.scores(facts)

    # --- what is ------------------------------------------------------------------------------------------------------

    def best_of(self, candidates: Sequence[Candidate]) -> None:
        """Weigh and try candidates, those first that may be best, until no other can be among the best, or on the
        front."""
        order, left, some_more = neighbours(self.search.space.product), list(candidates), CHUNK
        while left:
            hopeful = self._hopeful(left)
            self.pruned["beaten"] += len(left) - len(hopeful)
            ready = [*takewhile(lambda one: one.weighed, hopeful[:BATCH])]
            if ready or not hopeful:
                self.try_all(sorted((one.choice for one in ready), key=order))
                left = hopeful[len(ready) :]
                continue
            some = [*takewhile(lambda one: not one.weighed, hopeful[:some_more])]
            some_more *= 2
            left = self.weigh(sorted((one.choice for one in some), key=order)) + hopeful[len(some) :]
            left.sort(key=lambda one: one.scores[0])

    def good(self) -> list[tuple[float, ...]]:
        """Scores of what ran and keeps the limits."""
        return [self.scores(each.facts) for each in self.outcomes.values() if each.facts and not each.lacks]

    def _hopeful(self, left: Sequence[Candidate]) -> list[Candidate]:
        """Candidates that may be among the best by the first objective, or on the front."""
        kept, best = self.good(), self.search.best
        bar = sorted(scores[0] for scores in kept)[best - 1] if len(kept) >= best else inf
        rivals = [kept[number] for number in front(kept)]
        return [one for one in left if one.scores[0] <= bar or not any(beats(other, one.scores) for other in rivals)]

    def weigh(self, choices: Sequence[Choice]) -> list[Candidate]:
        """Candidates of points as they are laid out, but those that surely lack something."""
        entries = self._answers("weighed", weighed, choices)
        seen = (Screened(**{**each, "least": each["least"] and Facts(*each["least"])}) for each in entries)
        each = (self._candidate(choice, one, True) for choice, one in zip(choices, seen, strict=True))
        return [one for one in each if one]

    def try_all(self, choices: Sequence[Choice]) -> None:
        """Try points, those of the book from it."""
        for choice, plain in zip(choices, self._answers("run", tried, choices), strict=True):
            self.outcomes[choice] = self._limited(self._outcome(plain))
            if why := self.outcomes[choice].refused:
                self._refuse(choice, why)

    def _answers(self, what: str, question: Callable[[Ask], Any], choices: Sequence[Choice]) -> list[Record]:
        """What a question says of points, as plain values: from the book, or else asked now and kept there."""
        keys = {choice: self.key(choice, what) for choice in choices}
        fresh = [choice for choice in choices if keys[choice] not in self.points]
        asks = (self.ask(choice) for choice in fresh)
        for number, answer in self.executor.results(question, asks):
            self.points.add(_entry(keys[fresh[number]], what, self.ask(fresh[number]).overrides, answer))
            self.done[what] += 1
            self.hear(what, self.done[what], 0)
        return [self.points[keys[choice]]["outcome"] for choice in choices]

    def _limited(self, outcome: Tried) -> Tried:
        """The outcome, by the limits that only a run tells."""
        if outcome.facts is None or outcome.lacks:
            return outcome
        try:
            self.scores(outcome.facts)
            return outcome._replace(lacks=self._missed(outcome.facts))
        except Refused as refused:
            return Tried(refused=str(refused))

    def _missed(self, facts: Facts | Figures) -> str:
        """The limit that a point misses; the nearest to each is kept."""
        word = self.search.missed(facts)
        if word in LIMITED and isinstance(facts, Facts):
            figure = self.search.figure(LIMITED[word], facts)
            self.nearest[word] = min(figure, self.nearest.get(word, inf))
        return word

    def _outcome(self, plain: Record) -> Tried:
        """Of a line in the book."""
        kind = Figures if self.search.kind else Facts
        return Tried(**{**plain, "facts": kind(*plain["facts"]) if plain["facts"] else None})

    def key(self, choice: Choice, what: str) -> str:
        """Of what is known of a point in the book: by all that it hangs on."""
        ask = self.ask(choice)
        text = "\0".join((what, self.base or self._own_hash(ask), str(ask.limit), *ask.overrides))
        return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()

    def _own_hash(self, ask: Ask) -> str:
        """Of a point of another kind, by itself."""
        try:
            return kinds.load(ask.path, ask.overrides).scenario_hash
        except Refused as refused:
            return str(refused)


def _reason(why: str) -> str:
    """What points that are refused alike have in common: the key that their lines begin with."""
    parts = why.removeprefix("<command line> ").split(": ")
    return parts[1] if len(parts) > 2 else parts[0]


def _entry(key: str, what: str, overrides: Sequence[str], answer: Any) -> Record:
    plain = {name: list(value) if isinstance(value, Facts | Figures) else value
             for name, value in answer._asdict().items()}  # fmt: skip
    return {KEY: key, "stamp": stamp(), "asked": what, "overrides": list(overrides), "outcome": plain}


def explored(search: Search, executor: Executor, folder: Path | None = None, hear: Hear = silent) -> Answer:
    """The answer of a search. folder: where points and full runs are kept as they come; what it holds already is not
    run again. Raises Refused where no point is legal, or none keeps the limits."""
    points, runs = (folder / name if folder else None for name in ("points.jsonl", "full.jsonl"))
    with closing(Book(points, stamp(), KEY)) as book, closing(Book(runs, stamp())) as full:
        way = Explorer(search, executor, book, hear)
        choices = way.choices()
        if len(choices) > search.exhaustive:
            way.census.whole = False
            sampled(way, folder)
        else:
            candidates = way.candidates(choices)
            if not way.census.legal:
                raise Refused(_empty(way), search.path)
            way.best_of(candidates)
        rows = _ranked(way)
        if not rows:
            raise Refused(_nothing(way) if way.census.legal else _empty(way), search.path)
        best = _full(way, rows, full)
        return Answer(
            search, way.census, way.refused, _pruned(way), sum(1 for o in way.outcomes.values() if o.facts), rows, best,
            _correlation(way.search, best), _beside(way, rows[0]),
        )  # fmt: skip


def _pruned(way: Explorer) -> dict[str, int]:
    """Points by what left them out, or what they lack."""
    lacks = Counter(outcome.lacks for outcome in way.outcomes.values() if outcome.lacks)
    return dict(way.pruned + lacks)


def _ranked(way: Explorer) -> list[Row]:
    """Points that ran and keep the limits, the best first; those that nobody beats are marked."""
    kept = [(choice, each.facts, each.summary or {}) for choice, each in way.outcomes.items()
            if each.facts and not each.lacks]  # fmt: skip
    figures, point = [way.scores(facts) for _, facts, _ in kept], way.search.space.product.point
    on_front = set(front(figures))
    order = sorted(range(len(kept)), key=lambda i: (figures[i], kept[i][0]))
    each = ((i, *kept[i]) for i in order)
    return [Row(choice, point(choice), facts, figures[i], i in on_front, more) for i, choice, facts, more in each]


def _full(way: Explorer, rows: Sequence[Row], book: Book) -> list[tuple[Row, Record]]:
    """The best, and the front as far as that leaves room, run as they are and with intervals."""
    count = way.search.best
    chosen = list(dict.fromkeys((*islice((row for row in rows if row.front), count), *rows)))[:count]
    chosen = [row for row in rows if row in chosen]
    scenarios = [kinds.load(way.search.space.place, row.point.overrides) for row in chosen]
    fresh = [one for one in scenarios if one.scenario_hash not in book]
    for number, entry in way.executor.results(record, fresh):
        book.add(entry | {"stamp": stamp(), "overrides": list(fresh[number].overrides)})
        way.hear("run in full", len(scenarios) - len(fresh) + number + 1, len(scenarios))
    return [(row, book[one.scenario_hash]) for row, one in zip(chosen, scenarios, strict=True)]


def _correlation(search: Search, best: Sequence[tuple[Row, Record]]) -> float | None:
    """Of the order of steps as points were ranked and as they are in full."""
    full = ((row, value(entry["summary"], search.head_key)) for row, entry in best if "summary" in entry)
    pairs = [(search.head(row.facts), figure) for row, figure in full if figure is not None]
    return rank_correlation([a for a, _ in pairs], [b for _, b in pairs])


def _beside(way: Explorer, winner: Row) -> list[Beside]:
    """What each single change of the winner would come to, run where it fits."""
    changes = list(_changed(way, winner))
    unknown = [choice for _, _, choice, why in changes if choice and not why and choice not in way.outcomes]
    way.try_all(sorted(unknown, key=neighbours(way.search.space.product)))
    return [_change(way, winner, *change) for change in changes]


def _changed(way: Explorer, winner: Row) -> Iterator[tuple[str, str, Choice, str]]:
    """Each other stop of each axis: names, the choice, and which rule forbids it."""
    space = way.search.space
    for number, axis in enumerate(space.product.axes):
        for place, stop in enumerate(axis.stops):
            if place != winner.choice[number]:
                choice = (*winner.choice[:number], place, *winner.choice[number + 1 :])
                stops = [choice[at] for at in space.order]
                broken = (space.broken(stops[:depth]) for depth in range(len(stops) + 1))
                yield axis.name, stop.label, choice, next((why for each in broken if each for _, why in [each]), "")


def _change(way: Explorer, winner: Row, axis: str, label: str, choice: Choice, why: str) -> Beside:
    if why:
        return Beside(axis, label, "illegal", why)
    outcome = way.outcomes[choice]
    if outcome.refused:
        return Beside(axis, label, "illegal", outcome.refused)
    if outcome.facts is None:
        return Beside(axis, label, outcome.lacks, "", peak_bytes=outcome.peak_bytes)
    ratio = way.search.head(outcome.facts) / way.search.head(winner.facts)
    return Beside(axis, label, outcome.lacks, "", ratio, outcome.peak_bytes)


def _empty(way: Explorer) -> str:
    """Why no point is legal: who forbids most."""
    rules = [(each.combinations, f"{what} ({each.why})") for what, each in way.census.illegal.items()]
    rules += [(count, why) for count, why in way.refused.values()]
    most, what = max(rules)
    return f"none of {way.census.product} points is legal; {most} are forbidden by: {what}"


def _nothing(way: Explorer) -> str:
    """Why no legal point keeps the limits."""
    lacking, count = max(_pruned(way).items(), key=lambda item: item[1])
    what = {"memory": "memory: the least that one needs is", "beaten": ""}.get(lacking, f"constraints.{lacking}")
    lacking_bytes = (each.peak_bytes for each in way.outcomes.values() if each.lacks == MEMORY)
    least = min((*lacking_bytes, *way.least_bytes), default=0)
    more = f" {format_quantity(least, 'data')}" if lacking == MEMORY else ""
    if lacking in way.nearest:
        name = LIMITED[lacking]
        more = f": none has less than {shown(name, way.nearest[lacking])} {way.search.objective(name).unit}"
    return f"{way.census.legal} points are legal and none keeps what must hold; {count} miss {what}{more}"
