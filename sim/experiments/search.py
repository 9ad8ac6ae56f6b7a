"""A search as its file has it: a scenario, a space around it, what must hold, and what is to be best.

name: DeepSeek-V3 on 2,048 H800
scenario: ../v3_2048gpu.yaml        # relative to this file
overrides: [comm.waits=none]        # of every point (default: none)
space:                              # axes as a sweep has them; combinations that are illegal are never built
  parallel.pipeline: [8, 16, 32]
  schedule: [dualpipe, zb1p]
  network: {as built: [], doubled: cluster.node.nic.bandwidth=100GB/s}
constraints: {memory: 76 GB, gpus: 2048, step_time: 30 s, budget: 6000000 USD, days: 60}
prices: {gpu_hour: 2 USD}           # of a GPU, for dollars
tokens: 14.8e12                     # of the whole training, for days and a budget
objectives: [tokens_per_day, gpus]  # the most important first (default: tokens_per_day)
cheap: [comm.exchange=closed]       # overrides with which points are ranked (default: none)
best: 10                            # so many are run again as they are, with intervals
exhaustive: 50000                   # up to so many legal points all are looked at; beyond, a sampler chooses
sampler: {kind: tpe, trials: 500, seed: 0}      # tpe or nsga2 (Optuna)

Where the scenario is a campaign, a served load or of any other kind, objectives and constraints are words of its
figures (days, dollars, goodput ...; ttft, tpot, tokens ...: `sim.experiments.kind.Measure`), of which one that is
better the more there is has its constraint from below. It states its own prices and tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwmodels.document import Document, DocumentError, Place, Problem, did_you_mean, dotted, unknown
from hwmodels.refused import Refused
from hwmodels.units import parse
from sim.experiments import kinds, space
from sim.experiments.kind import MAX, NEITHER, Kind, Measure
from sim.experiments.objectives import OBJECTIVES, Facts, Figures, Limits, Objective, Prices, missed, of_measure
from sim.experiments.space import ALWAYS_LAST, Product, Space
from sim.scenario import shelves
from sim.scenario.divides import Rule
from sim.scenario.fits import Finding
from sim.scenario.values import Scenario
from sim.schedules import program

SEARCHES = shelves.SCENARIOS / "searches"
"""Where the searches are that ship."""
KEYS = (
    "name", "scenario", "overrides", "space", "constraints", "prices", "tokens", "objectives", "cheap", "best",
    "exhaustive", "sampler",
)  # fmt: skip
BEST, EXHAUSTIVE, MOST = 10, 50_000, 1 << 31
TPE, NSGA2 = "tpe", "nsga2"
NO_LIMITS, NO_PRICES = Limits(), Prices()


@dataclass(frozen=True)
class Sampler:
    """Who chooses points where not all are looked at. kind: tpe or nsga2. trials: points. seed: of its draws."""

    kind: str = TPE
    trials: int = 500
    seed: int = 0


@dataclass(frozen=True)
class Search:
    """A search as read. path: of its file. cheap: overrides of points as they are ranked. best: how many are run in
    full. exhaustive: legal points up to which all are looked at. kind: key of the kind of scenario, "": training steps.
    bounds: word of a figure of that kind -> its limit."""

    path: str
    name: str
    space: Space
    objectives: tuple[str, ...] = ("tokens_per_day",)
    limits: Limits = NO_LIMITS
    prices: Prices = NO_PRICES
    cheap: tuple[str, ...] = ()
    best: int = BEST
    exhaustive: int = EXHAUSTIVE
    sampler: Sampler = Sampler()
    kind: str = ""
    bounds: Mapping[str, float] = field(default_factory=dict)

    @property
    def own(self) -> Kind | None:
        """The kind beside the training step that it is of."""
        return kinds.KINDS.get(self.kind)

    def objective(self, name: str) -> Objective:
        """By its word."""
        return OBJECTIVES[name] if self.own is None else of_measure(self.own.measure(name))

    def figure(self, name: str, facts: Facts | Figures) -> float:
        """An objective of a point. Raises Refused where the point has no such figure."""
        if isinstance(facts, Figures) and name not in facts.values:
            raise Refused(f"has no {name}; does the scenario say all that it needs?")
        return self.objective(name).figure(facts, self.prices)

    def scores(self, facts: Facts | Figures) -> tuple[float, ...]:
        """Of the objectives in their order, turned so that less is better."""
        return tuple(self.figure(n, facts) * (-1 if self.objective(n).best == MAX else 1) for n in self.objectives)

    def missed(self, facts: Facts | Figures) -> str:
        """The limit (its word) that a point misses; "" where it keeps them."""
        if isinstance(facts, Facts):
            return missed(facts, self.limits, self.prices)
        for word, limit in self.bounds.items():
            value = self.figure(word, facts)
            if value < limit if self.objective(word).best == MAX else value > limit:
                return word
        return ""

    def head(self, facts: Facts | Figures) -> float:
        """What a point is told by beside its objectives: its step, or the first of them."""
        return facts.step_s if isinstance(facts, Facts) else self.figure(self.objectives[0], facts)

    @property
    def head_key(self) -> str:
        """The same as a key of result.json."""
        return "step_time_s" if self.own is None else self.own.measure(self.objectives[0]).key


def read_search(path: Path, extra: Sequence[str] = ()) -> Search:
    """The search in a YAML file, or one that ships by its name; `extra` overrides come last at every point.

    Raises DocumentError with all that is wrong with it.
    """
    shown, path = str(path), shelves.place(str(path), SEARCHES)
    return of_document(shelves.document(shown, SEARCHES), shown, path.parent, extra)


def of_document(document: Document, shown: str, folder: Path, extra: Sequence[str] = ()) -> Search:
    """The search that a document describes; its scenario is a path relative to a folder. Raises DocumentError."""
    reader = _Reader(document)
    content = reader.mapping((), "keys and values, e.g. scenario: ../v3_2048gpu.yaml", KEYS)
    if "scenario" not in content and ("batch" in content or "schedule" in content):
        what = "is a scenario, not a search; a search names one (scenario: FILE) and a space, see scenarios/searches"
        raise DocumentError([Problem(Place(document.place(()).file), "", what)])
    own = kinds.of(shelves.beside(str(content.get("scenario")), folder))
    if own is None:
        limits, prices, bounds = _limits(reader), _prices(reader), dict[str, float]()
        objectives = _objectives(reader, prices)
    else:
        limits, prices, bounds = NO_LIMITS, NO_PRICES, _bounds(reader, own)
        objectives = _measures(reader, own)
    built = _space(reader, folder, extra, limits, own)
    if own is not None and not reader.problems:
        reader.problems += _unpriced(built, document, own, (*objectives, *bounds))
    search = Search(
        shown, str(content.get("name", Path(shown).stem)), built, objectives, limits, prices,
        reader.words("cheap"), reader.count(("best",), BEST), reader.count(("exhaustive",), EXHAUSTIVE),
        _sampler(reader), own.key if own else "", bounds,
    )  # fmt: skip
    if isinstance(content.get("scenario"), str):
        reader.problems += _wrong_stops(search.space, document, search.cheap, own)
    if reader.problems:
        raise DocumentError(reader.problems)
    return search


class _Reader:
    """Reads a document part by part and collects what is wrong."""

    def __init__(self, document: Document) -> None:
        self.document, self.problems = document, list[Problem]()

    def wrong(self, message: str, *key: str | int) -> None:
        self.problems.append(Problem(self.document.place(key), dotted(key), message))

    def mapping(self, key: tuple[str, ...], expected: str, legal: Sequence[str]) -> Mapping[str, Any]:
        """The mapping at a key, none where it is not written; keys that are not legal are told."""
        value = self.document.value(*key)
        if value is None and key:
            return {}
        if not isinstance(value, Mapping):
            self.wrong(f"expected {expected}; found {value!r}", *key)
            if not key:
                raise DocumentError(self.problems)
            return {}
        for word in value:
            if legal and word not in legal:
                self.wrong(unknown(word, "key", legal), *key, word)
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """A list of overrides."""
        value = self.document.value(key)
        if value is None or space.words(value):
            return tuple(value or ())
        self.wrong(f"expected a list of key=value; found {value!r}", key)
        return ()

    def count(self, key: tuple[str, ...], default: Any, least: int = 1) -> Any:
        """A whole number at a key; the default where it is not written."""
        value = self.document.value(*key)
        if value is None:
            return default
        if type(value) is not int or value < least:
            self.wrong(f"expected a whole number, {least} or more; found {value!r}", *key)
            return default
        if value > MOST:
            self.wrong(f"found {value}; legal: up to {MOST}", *key)
            return default
        return value

    def quantity(self, dimension: str, *key: str) -> float | None:
        """A number with its unit in SI; None where it is not written."""
        value = self.document.value(*key)
        try:
            return None if value is None else parse(value, dimension)
        except Refused as refused:
            self.wrong(str(refused), *key)
            return None


def _limits(reader: _Reader) -> Limits:
    reader.mapping(("constraints",), "a mapping, e.g. {memory: 76 GB, gpus: 2048}", Limits._fields)
    memory, step = (reader.quantity(of, "constraints", key) for key, of in (("memory", "data"), ("step_time", "time")))
    gpus = reader.count(("constraints", "gpus"), None)
    days = reader.document.value("constraints", "days")
    if days is not None and not (isinstance(days, int | float) and not isinstance(days, bool) and days > 0):
        reader.wrong(f"expected a number of days above zero; found {days!r}", "constraints", "days")
        days = None
    budget = reader.quantity("money", "constraints", "budget")
    return Limits(None if memory is None else round(memory), gpus, step, budget, days)


def _prices(reader: _Reader) -> Prices:
    reader.mapping(("prices",), "a mapping, e.g. {gpu_hour: 2 USD}", ("gpu_hour",))
    tokens = reader.document.value("tokens")
    if tokens is not None and not (isinstance(tokens, int | float) and not isinstance(tokens, bool) and tokens > 0):
        reader.wrong(f"expected the tokens of the whole training, e.g. 14.8e12; found {tokens!r}", "tokens")
        tokens = None
    return Prices(reader.quantity("money", "prices", "gpu_hour"), tokens)


def _objectives(reader: _Reader, prices: Prices) -> tuple[str, ...]:
    listed = _listed(reader, list(OBJECTIVES), "tokens_per_day")
    wanted: list[tuple[str, tuple[str, ...]]] = [(name, ("objectives",)) for name in listed if name in OBJECTIVES]
    wanted += [(of, ("constraints", word)) for word, of in (("budget", "dollars"), ("days", "days"))
               if reader.document.value("constraints", word) is not None]  # fmt: skip
    places = {"gpu_hour": "prices.gpu_hour, e.g. 2 USD", "tokens": "tokens, of the whole training, e.g. 14.8e12"}
    for name, key in wanted:
        for lacking in (each for each in OBJECTIVES[name].needs if getattr(prices, each) is None):
            reader.wrong(f"{key[-1] if key[0] == 'constraints' else name} needs {places[lacking]}", *key)
    return listed


def _bounds(reader: _Reader, own: Kind) -> dict[str, float]:
    """Limits of a kind's figures."""
    for key in (key for key in OF_STEPS if reader.document.value(key) is not None):
        reader.wrong(f"is of training steps; {own.called} states its own", key)
    legal = {each.word: each for each in own.measures if each.best != NEITHER}
    given = reader.mapping(("constraints",), f"a mapping, e.g. {{{next(iter(legal))}: 60}}", sorted(legal))
    bounds = {word: _bound(reader, legal[word]) for word in given if word in legal}
    return {word: bound for word, bound in bounds.items() if bound is not None}


OF_STEPS = ("prices", "tokens")


def _bound(reader: _Reader, of: Measure) -> float | None:
    key = ("constraints", of.word)
    if of.dimension:
        return reader.quantity(of.dimension, *key)
    value = reader.document.value(*key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        reader.wrong(f"expected a number above zero; found {value!r}", *key)
        return None
    return float(value)


def _measures(reader: _Reader, own: Kind) -> tuple[str, ...]:
    """Objectives among a kind's figures; the first figure unless some are said."""
    legal = [each.word for each in own.measures if each.best != NEITHER]
    return _listed(reader, legal, legal[0])


def _unpriced(built: Space, document: Document, own: Kind, words: Sequence[str]) -> Iterator[Problem]:
    """Figures that need a key which neither the scenario nor an axis has, each laid to the line that asks for it."""
    axes = {key for each in built.product.axes for key in each.keys}
    try:
        content = Document(kinds.content(built.place, (*built.product.shared, *built.product.last)), {})
    except DocumentError:
        return  # told with all else that is wrong with it
    for measure in (own.measure(word) for word in dict.fromkeys(words)):
        key = measure.needs[0]
        if key and key not in axes and content.value(*key.split(".")) is None:
            listed = measure.word in (document.value("constraints") or ())
            at = ("constraints", measure.word) if listed else ("objectives",)
            yield Problem(document.place(at), dotted(at), measure.lacking)


def _listed(reader: _Reader, legal: Sequence[str], default: str) -> tuple[str, ...]:
    """Words of objectives, each legal and once."""
    given = reader.document.value("objectives")
    listed = [default] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not listed:
        reader.wrong(f"expected a list; found {given!r}; legal: {', '.join(legal)}", "objectives")
        return ()
    for number, name in enumerate(listed):
        if name not in legal:
            reader.wrong(unknown(name, "objective", legal), "objectives", number)
        elif name in listed[:number]:
            reader.wrong(f"{name} stands there twice", "objectives", number)
    return tuple(listed)


def _sampler(reader: _Reader) -> Sampler:
    given = reader.mapping(("sampler",), "a mapping, e.g. {kind: tpe, trials: 500}", ("kind", "trials", "seed"))
    kind = given.get("kind", TPE)
    if kind not in (TPE, NSGA2):
        near = did_you_mean(kind, (TPE, NSGA2)) or ";"
        reader.wrong(f"found {kind!r}{near} legal: {TPE}, {NSGA2}", "sampler", "kind")
    trials = reader.count(("sampler", "trials"), Sampler.trials)
    return Sampler(kind, trials, reader.count(("sampler", "seed"), Sampler.seed, least=0))


def _space(reader: _Reader, folder: Path, extra: Sequence[str], limits: Limits, own: Kind | None) -> Space:
    content = reader.document.content
    scenario = content.get("scenario")
    if not isinstance(scenario, str):
        what = "missing; expected a scenario file, e.g. ../v3_2048gpu.yaml"
        reader.wrong(what if scenario is None else f"expected a scenario file; found {scenario!r}", "scenario")
    axes = reader.mapping(("space",), "axes, e.g. {schedule: [dualpipe, zb1p]}", ())
    if not axes and reader.document.value("space") in (None, {}):
        reader.wrong("missing; expected axes, e.g. {schedule: [dualpipe, zb1p]}", "space")
    right = []
    for name, values in axes.items():
        if message := space.mistake(name, values):
            reader.wrong(message, "space", name)
        else:
            right.append(space.axis(name, values))
    product = Product(tuple(right), reader.words("overrides"), (*extra, *ALWAYS_LAST))
    rules = [] if limits.gpus is None else [_few_enough(limits.gpus)]
    path = shelves.beside(str(scenario), folder)
    return Space(path, product, tuple(rules)) if own is None else Space(path, product, (), ())


def _few_enough(most: int) -> Rule:
    def findings(scenario: Scenario) -> Iterator[Finding]:
        if scenario.cluster and scenario.cluster.gpus > most:
            yield ("cluster.nodes",), f"{scenario.cluster.gpus} GPUs; constraints.gpus {most}"

    return Rule("constraints.gpus", ("cluster.nodes", "cluster.node"), findings)


def _wrong_stops(built: Space, document: Document, cheap: Sequence[str], own: Kind | None) -> Iterator[Problem]:
    """What is wrong with the scenario by itself, or else with single stops of axes, each laid to its line."""
    if wrong := _mistakes(built, cheap, own):
        yield from (_at_words(problem, document) for problem in wrong)
        return
    if own is None and built.described(()).model is None:
        yield Problem(document.place(("scenario",)), "scenario", "a search needs a model on a cluster, not chunk_times")
        return
    for each in built.product.axes:
        listed = isinstance(document.value("space", each.name), list)
        for number, stop in enumerate(each.stops):
            key = ("space", each.name, number if listed else stop.label)
            for problem in _mistakes(built, stop.overrides, own):
                said = f"{problem.key}: " if problem.key and problem.key != each.name else ""
                yield Problem(document.place(key), dotted(key), f"{said}{problem.message}")


def _mistakes(built: Space, overrides: Sequence[str], own: Kind | None) -> Sequence[Problem]:
    """What is wrong in itself with the scenario under overrides; of another kind whose rules nobody knows beforehand,
    keys that there are not."""
    words = (*overrides, *built.product.last)
    try:
        if own is not None:
            kinds.load(built.place, (*built.product.shared, *words))
        elif (name := built.described(words).schedule.name) and name not in program.names():
            return [Problem(Place(built.path), "schedule", unknown(name, "schedule", program.names()))]
    except DocumentError as error:
        return [each for each in error.problems if own is None or each.message.startswith(NO_KEY)]
    return ()


NO_KEY = ("unknown key", "cannot be read")
"""What lines on keys that there are not, and on files, begin with."""


def _at_words(problem: Problem, document: Document) -> Problem:
    """The problem of an override is laid to its line, where the file has it, and that of no file to who names it."""
    if problem.message.startswith(NO_KEY[1]):
        return Problem(document.place(("scenario",)), "scenario", f"{problem.place.file} {problem.message}")
    word = problem.place.file.removeprefix("<command line> ")
    for key in ("overrides", "cheap"):
        if word in (listed := document.value(key) or []):
            return Problem(document.place((key, listed.index(word))), problem.key, problem.message)
    return problem
