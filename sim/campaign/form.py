"""The YAML form of `campaign:` and of `prices:`: their keys, types and defaults, read by pydantic."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from hwmodels.refused import Refused
from hwmodels.units import KILO, parse
from sim.campaign.values import OPTIMUM
from sim.models.form import Count, Form, Listed, Natural, Size, whole
from sim.scenario.quantity import quantity

MOST_TOKENS = 1 << 60
"""Limit of a phase's tokens: with a step's they are whole numbers that 64 bits hold."""

Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS), BeforeValidator(whole)]
Seconds = Annotated[float, *quantity("time")]
Times = Annotated[float, Field(ge=1, le=KILO, allow_inf_nan=False)]


def _part(value: float) -> float:
    if not value <= 1:
        raise ValueError(f"expected a ratio from 0 to 1; found {value:g}")
    return value


def _above_zero(value: float) -> float:
    if not value > 0:
        raise ValueError("expected a time above 0")
    return value


Part = Annotated[float, *quantity("ratio", _part)]
Mean = Annotated[float, *quantity("time", _above_zero)]


def _every(value: Any) -> Any:
    """A time, or the word for Daly's."""
    if value == OPTIMUM:
        return value
    try:
        return _above_zero(parse(value, "time"))
    except Refused as error:
        raise ValueError(f"{error}, or the word {OPTIMUM}") from None


def _batch(value: Any) -> Any:
    """A number alone is a batch that stays."""
    return value if isinstance(value, Mapping) else {"from": value, "to": value}


def _label(value: Any) -> Any:
    """A number is a label too."""
    return str(value) if isinstance(value, int | float) else value


class GrowingForm(Form):
    """A batch that grows linearly in tokens over a phase."""

    first: Annotated[Size, Field(alias="from")]
    """Sequences of its first step."""
    last: Annotated[Size, Field(alias="to")]
    """Sequences of its last."""
    by: Size | None = None
    """Sequences that it grows by at once; one micro-batch a pipeline unless said."""


class PhaseForm(Form):
    """Steps of one length, layout and kind of batch."""

    name: str
    """What the phase is called."""
    tokens: Tokens | None = None
    """How many tokens it trains on; its last step ends at or after them."""
    steps: Count | None = None
    """Or how many steps it has."""
    samples: Tokens | None = None
    """Or how many sequences."""
    batch: Annotated[GrowingForm, BeforeValidator(_batch)]
    """Sequences of a step, or {from: 3072, to: 15360}: so many at its start and its end, linear in tokens."""
    sequence_length: Size | None = None
    """Tokens of a sequence; the scenario's unless said."""
    step: dict[str, Any] | None = None
    """What its step has otherwise than the scenario: keys of a scenario, dotted ones too, e.g. {schedule: 1f1b}."""
    learning_rate: Annotated[str, BeforeValidator(_label)] = ""
    """A label."""


class CheckpointForm(Form):
    """What is saved, how and how often."""

    kind: Literal["blocking", "asynchronous", "memory"] = "asynchronous"
    """blocking (training waits until it is stored), asynchronous (until it is in the host's memory) or memory (as
    asynchronous, to the memory of other nodes; to storage more seldom)."""
    every: Annotated[Any, BeforeValidator(_every), WithJsonSchema({"type": ["string", "number"]})] = "optimum"
    """Time between two, as whole steps; optimum: Daly's."""
    storage: Annotated[float, *quantity("data/time")]
    """Bytes a second that all nodes together write to storage, and read from it."""
    replicas: Annotated[int, Field(ge=2, le=8), BeforeValidator(whole)] = 2
    """Of kind memory: nodes that hold the states of one, itself included."""
    stored_every: Mean | None = None
    """Of kind memory: time between those that go to storage too."""


class LemonsForm(Form):
    """Nodes that fail more often than others."""

    share: Part
    """Part of the nodes."""
    worse: Times
    """How many times as often as the others; the mean of all stays."""


class NodesForm(Form):
    """Failures of nodes."""

    mtbf: Mean
    """Mean time of one node from its repair to its failure."""
    law: Literal["exponential", "weibull"] = "exponential"
    """How that time is distributed."""
    shape: Annotated[float, Field(ge=0.2, le=5, allow_inf_nan=False)] | None = None
    """Of weibull: below 1 young nodes fail more often."""
    spread: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0
    """Standard deviation of the nodes' own rates over their mean; they are gamma-distributed."""
    lemons: LemonsForm | None = None
    """Some nodes fail more often."""
    repair: Seconds
    """Until a node that failed is a spare."""
    bad_mtbf: Mean | None = None
    """Of one node of the job, which then is a bad one."""


class SwitchesForm(Form):
    """Failures that take all nodes behind a switch."""

    nodes: Count
    """Nodes behind one switch."""
    mtbf: Mean
    """Mean time of one switch from its repair to its failure."""
    repair: Seconds
    """Until its nodes are spares."""


class SoftwareForm(Form):
    """Failures of the job without a broken part."""

    mtbf: Mean
    """Mean time between two, of the job."""


class HiddenForm(Form):
    """What goes wrong now and is found later."""

    mtbf: Mean
    """Mean time between two, of one node."""
    detect: Seconds
    """Until it is found."""


class StragglersForm(HiddenForm):
    """Nodes that become slow and stay so until they are found and replaced."""

    slower: Times
    """How many times as long the node's work takes; the step simulator says what the step then takes."""


class FailuresForm(Form):
    """Kinds of failures."""

    nodes: NodesForm | None = None
    """Failures of nodes."""
    switches: SwitchesForm | None = None
    """Failures of switches."""
    software: SoftwareForm | None = None
    """Failures without a broken part."""
    silent: HiddenForm | None = None
    """Errors that nobody sees at once: the run goes back to before them."""
    stragglers: StragglersForm | None = None
    """Slow nodes."""


class RestartForm(Form):
    """The chain from a failure to the next step; loading and recomputing come on top."""

    detect: Seconds = 0.0
    """Until a failure is seen."""
    hangs: Part = 0.0
    """Part of failures that only a timeout tells."""
    timeout: Seconds = 0.0
    """That timeout."""
    replace: Seconds = 0.0
    """Until a spare stands in for a node."""
    launch: Seconds = 0.0
    """Until all processes run."""
    connect: Seconds = 0.0
    """Until their groups are connected."""
    warm_up: Seconds = 0.0
    """What first steps take longer."""


class EvaluationForm(Form):
    """Pauses."""

    every: Count
    """Steps between two."""
    takes: Seconds
    """How long one takes."""


class PowerForm(Form):
    """Watts of a GPU, and of what is around it."""

    busy: Annotated[float, *quantity("power")] | None = None
    """Of a GPU that trains; the device's limit unless said."""
    idle: Annotated[float, *quantity("power")] | None = None
    """Of a GPU that waits."""
    facility: Annotated[float, Field(ge=1, le=3, allow_inf_nan=False)] = 1.3
    """What the building takes, over what its nodes take (InferenceX's power model: 1.3)."""


class PublishedForm(Form):
    """GPU-hours that somebody published, beside the answer's: nothing goes by them."""

    what: str
    """What they are of, in words."""
    gpu_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """How many."""
    phases: Annotated[tuple[str, ...], Listed]
    """Names of the phases that they are of, whose steps are compared, without failures or pauses."""
    source: str
    """Where they are published, and what is in them."""


class CampaignForm(Form):
    """A whole training run."""

    phases: Annotated[tuple[PhaseForm, ...], Listed, Field(min_length=1)]
    """What is trained, one after another: a list."""
    checkpoint: CheckpointForm
    """What is saved."""
    failures: FailuresForm = FailuresForm()
    """What interrupts the run."""
    restart: RestartForm = RestartForm()
    """What a restart takes."""
    spares: Natural = 0
    """Nodes beside the job that stand in for those that failed."""
    evaluation: EvaluationForm | None = None
    """Pauses in which the model is evaluated."""
    power: PowerForm = PowerForm()
    """What GPUs draw."""
    deadline: Mean | None = None
    """A run that ends later in one of twenty seeds misses it."""
    published: Annotated[tuple[PublishedForm, ...], Listed] = ()
    """Published hours to compare with: a list."""
    seeds: Count = KILO
    """How often chance is drawn; from the scenario's seed on."""


class PricesForm(Form):
    """What things cost."""

    gpu_hour: Annotated[float, *quantity("money")] | None = None
    """An hour of a GPU."""


class WholeForm(Form):
    """Keys of a campaign beside those of a scenario."""

    campaign: CampaignForm
    """The run: phases, checkpoints, failures."""
    prices: PricesForm = PricesForm()
    """What things cost."""
