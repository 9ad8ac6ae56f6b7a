"""Served loads as experiments see them: how long a request takes on average, and what the time goes to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hwmodels.document import Document
from hwmodels.figure import Figure
from sim.experiments.kind import MAX, Floats, Kind, Measure, Part, Ran, Summary, value
from sim.serving.values import KIND as KEY
from sim.serving.values import Serve

MEASURES = (
    Measure("end_to_end", "serve.end_to_end_s.mean", "Time of a request, mean", "seconds", dimension="time"),
    Measure("ttft", "serve.ttft_s.p50", "Time to the first token, median", "seconds", dimension="time"),
    Measure("ttft_99", "serve.ttft_s.p99", "Time to the first token, 99 %", "seconds", dimension="time"),
    Measure("tpot", "serve.tpot_s.p50", "Time for a later token, median", "seconds", dimension="time"),
    Measure("tpot_99", "serve.tpot_s.p99", "Time for a later token, 99 %", "seconds", dimension="time"),
    Measure("goodput", "serve.goodput.requests_per_s", "Requests a second in objectives", "number", MAX),
    Measure("kept", "serve.goodput.part", "Requests in objectives", "share", MAX),
    Measure("tokens", "serve.tokens.output_per_s_gpu", "Tokens of answers a second and GPU", "number", MAX),
    Measure("dollars", "serve.tokens.usd_per_million", "Dollars a million tokens", "dollars", dimension="money",
            needs=("serve.gpu_hour", "2 USD/h")),
    Measure("gpus", "serve.gpus", "GPUs", "number"),
)  # fmt: skip
OVERRIDES_OF_STEPS = "outputs="
"""Of overrides that sweeps add, which a served load has no use for."""


def _resolve(document: Document, overrides: Sequence[str], path: Path | None) -> Serve:
    from sim.serving.files import resolve  # pydantic forms: on demand

    return resolve(document, [word for word in overrides if not word.startswith(OVERRIDES_OF_STEPS)], path)


def _run(serve: Serve) -> Ran:
    from sim.serving.answers import answers
    from sim.serving.folder import summary
    from sim.serving.system import run

    return Ran(summary(serve, answers(serve, *run(serve))), serve.resolved)


def _drawn(serve: Serve) -> Mapping[str, Floats]:
    from sim.serving.draws import drawn

    each = [{KEY: answer} for answer in drawn(serve)]
    rows = {of.word: [value(one, of.key) for one in each] for of in MEASURES}
    return {word: np.array(row, dtype=float) for word, row in rows.items() if None not in row}


def _machine(serve: Serve) -> Mapping[str, Figure]:
    parts = {"node.device": serve.node.device.figures, "node": serve.node.figures}
    parts |= {"fabric": serve.fabric.figures} if serve.fabric else {}
    return {f"{KEY}.{part}.{key}": figure for part, own in parts.items() for key, figure in own.items()}


def _parts(summary: Summary) -> list[Part]:
    """Mean seconds of a request by what they go to."""
    own = summary[KEY]
    waits, first, whole = (own[key]["mean"] for key in ("queue_s", "ttft_s", "end_to_end_s"))
    return [
        Part("waiting", "queue", "until its prefill begins", waits),
        Part("prefill", "prefill", "from its beginning to the first token", first - waits),
        Part("decode", "later tokens", "from the first token to the last, the way to whoever decodes in it",
             whole - first),
    ]  # fmt: skip


SERVED = Kind(
    KEY, "a served load", Serve, _resolve, _run, _machine, MEASURES, _parts,
    {"TTFT p50 (s)": "serve.ttft_s.p50", "TTFT p99 (s)": "serve.ttft_s.p99", "TPOT p50 (s)": "serve.tpot_s.p50",
     "goodput (1/s)": "serve.goodput.requests_per_s", "in objectives": "serve.goodput.part",
     "tokens/s a decoding GPU": "serve.tokens.output_per_s_decode_gpu", "CPU (s)": "cost.cpu_s"},
    structure=("model", "instances", "tensor", "expert", "redundant_experts", "gpus", "block", "depth", "count",
               "clients"),
    drawn=_drawn,
)  # fmt: skip
