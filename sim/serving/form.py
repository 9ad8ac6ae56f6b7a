"""The YAML form of a serving scenario (pydantic): everything under `serve`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from hwmodels.units import seconds_to_ns
from sim.models.form import Count, Form, Natural, Size, listed
from sim.scenario.form import Document, Seed
from sim.scenario.quantity import quantity

Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PoolForm(Form):
    """Equal instances of the model."""

    does: Literal["prefill", "decode", "both"] = "both"
    """What they do: prefill and decode apart, with the cache sent between, or both in one place."""
    instances: Count = 1
    """How many there are."""
    tensor: Count = 1
    """Ranks that share attention's heads and the columns of networks; 1: each rank attends for its own sequences."""
    expert: Count = 1
    """Ranks that share the experts, a multiple of tensor; 1: all of the tensor group share each expert's columns."""
    redundant_experts: Natural = 0
    """Copies of popular experts in a layer, placed by EPLB."""
    overlap: bool = False
    """Whether a batch runs as two micro-batches, each beside the other's exchanges."""
    chunk: Count = 8192
    """Tokens of prompts in a step of an attention group, at most: longer prompts go in parts."""
    batch: Count = 256
    """Sequences of an attention group, at most."""
    host: Annotated[int, *quantity("time", seconds_to_ns)] = 0
    """Between two steps, while GPUs wait for the host that schedules and samples."""
    neighbours: Literal["nvlink", "nic"] = "nvlink"
    """How a decode step's exchanges reach GPUs of their own node: over NVLink, or through the NIC, as DeepEP's
    low-latency kernels did before its pull request 173 (23 May 2025)."""


class CacheForm(Form):
    """The cache of keys and values."""

    format: Literal["bf16", "fp8", "fp6"] = "bf16"
    """Of its elements."""
    block: Count = 64
    """Tokens that are given out at once."""
    memory: Part = 0.9
    """Part of a GPU's memory for weights and cache; the rest is activations' and the runtime's."""
    prefix: Part = 0.0
    """Part of the cache that keeps prompts of the past for those that begin like them (least recently used goes)."""
    host: Annotated[float, *quantity("data")] = 0.0
    """Host memory for caches, of each GPU: prompts of the past go there before they go, sequences that are swapped."""
    attention: Literal["bf16", "fp8"] = "bf16"
    """Format in which attention on latents multiplies; fp8 needs a cache of it (FlashMLA pull request 82)."""
    preempt: Literal["recompute", "swap"] = "recompute"
    """What a sequence does that gives its cache up: it is computed again, or it waits in host memory."""


class RoutingForm(Form):
    """How tokens choose experts."""

    kind: Literal["balanced", "sampled", "skewed", "recorded"] = "balanced"
    """balanced: all experts are liked alike; sampled: log-normal popularity; skewed: with a stated largest one;
    recorded: as a histogram says."""
    spread: Annotated[float, *quantity("ratio")] | None = None
    """Standard deviation of experts' popularity, of sampled routing."""
    max_vio: Annotated[float, *quantity("ratio")] | None = None
    """How far the most popular expert is above the mean, of skewed routing."""
    histogram: Annotated[Any, WithJsonSchema({"type": ["string", "array"]})] = None
    """Tokens by layer and expert, of recorded routing: a file beside the scenario, or lists."""
    drift: Annotated[float, Field(ge=0, le=3)] = 0.0
    """How unlike the popularity of experts in a step is to the one that copies are placed for: standard deviation of
    the logarithm of their ratio."""


class SpeculationForm(Form):
    """Tokens drafted by prediction heads and checked in one step."""

    depth: Annotated[int, Field(ge=0, le=16)] = 0
    """Drafts of a step; 0: none."""
    acceptance: Part = 0.85
    """Chance that a draft stands where those before it do; a property of the text (DeepSeek-V3 report, sec 5.4.3: 85 to
    90 % of second tokens)."""


class ObjectivesForm(Form):
    """What a request must keep to count as goodput."""

    ttft: Annotated[int, *quantity("time", seconds_to_ns)] = 2_000_000_000
    """Time to the first token, at most."""
    tpot: Annotated[int, *quantity("time", seconds_to_ns)] = 50_000_000
    """Mean time for a later token, at most."""


class FailuresForm(Form):
    """Nodes that fail: their instances lose all caches, and what they had to do goes to others."""

    mtbf: Annotated[int, *quantity("time", seconds_to_ns)]
    """Mean time between failures of a node, exponential."""
    repair: Annotated[int, *quantity("time", seconds_to_ns)] = 600_000_000_000
    """Until its instance serves again: noticed, replaced, weights read."""


class LengthsForm(Form):
    """Tokens of prompts or outputs."""

    most: Size
    """The most."""
    least_part: Part = 1.0
    """The least over the most; lengths are uniform between."""


def _lengths(value: Any) -> Any:
    return {"most": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


Lengths = Annotated[LengthsForm, BeforeValidator(_lengths)]


class RequestsForm(Form):
    """What is asked."""

    arrivals: Literal["poisson", "gamma", "closed", "trace"]
    """poisson, gamma: at a rate; closed: each of so many clients asks again when it is answered; trace: a file's."""
    count: Natural = 0
    """How many; 0: all of a trace."""
    rate: Positive | None = None
    """Requests a second, of poisson and gamma."""
    variation: Positive | None = None
    """Coefficient of variation of the gaps, of gamma; 1 is poisson."""
    clients: Count | None = None
    """Of a closed loop."""
    prompt: Lengths | None = None
    """Tokens of a prompt: a number, or a mapping."""
    output: Lengths | None = None
    """Tokens of an answer."""
    file: str | None = None
    """Of a trace, beside the scenario."""
    format: Literal["csv", "azure", "mooncake", "burstgpt"] | None = None
    """Of that file: csv (arrival_s, prompt, output), Azure 2023 and 2024, Mooncake's lines of JSON (with blocks that
    prompts share), BurstGPT."""
    speed: Positive | None = None
    """How many times as fast a trace's requests come."""


class ServeForm(Form):
    """A deployment and what it is asked."""

    model: Document
    """What is served: a name in scenarios/models, or {base: name, ...}."""
    node: Document
    """The server: a name in hwmodels/nodes, or {base: name, ...}."""
    fabric: Document = None
    """The network between servers: a name in hwmodels/fabrics."""
    precision: Literal["fp8", "bf16"] = "fp8"
    """Format of matrix products and of their weights."""
    engine: Literal["sglang", "sglang_0_4_6", "tensorrt_llm"] = "sglang"
    """Whose kernels run: tensorrt_llm on cards where its own were measured (H200, B200); sglang_0_4_6 is that of April
    2025, which brings latents to and from absorbed attention in kernels of their own."""
    pools: Annotated[tuple[PoolForm, ...], BeforeValidator(listed)]
    """Instances, by what they do."""
    cache: CacheForm = CacheForm()
    """The cache of keys and values."""
    routing: RoutingForm = RoutingForm()
    """How tokens choose experts."""
    router: Literal["round_robin", "least_loaded", "prefix"] = "least_loaded"
    """Where a request goes: in turn, to the fewest tokens waiting, or to whoever keeps most of its prompt."""
    speculation: SpeculationForm = SpeculationForm()
    """Drafted tokens."""
    objectives: ObjectivesForm = ObjectivesForm()
    """Of goodput."""
    requests: RequestsForm
    """What is asked."""
    failures: FailuresForm | None = None
    """Nodes that fail; none do where this is not said."""
    gpu_hour: Annotated[float, *quantity("money/time")] | None = None
    """What a GPU costs, for the price of a million tokens."""
    gpu_power: Annotated[float, *quantity("power")] | None = None
    """What a GPU draws at work, for the joules of a million tokens; its power limit where that is known."""


class ServingForm(Form):
    """A serving scenario."""

    name: str = ""
    """What the answer is called; decides nothing."""
    serve: ServeForm
    """The deployment and what it is asked."""
    seed: Seed = 0
    """Of all that is drawn."""
