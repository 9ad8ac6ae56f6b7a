"""Whether ranks of a pipeline wait for their messages: `overlap.pipeline`, or `comm.messages` as an older word for it.

Unless a scenario says so, it is as its stack has it. Megatron Core overlaps messages of interleaved stages alone
(`validate_args` of megatron/training/arguments.py, NVIDIA/Megatron-LM @d98e8a6: "non-interleaved schedule does not
support overlapping p2p communication"), and so does torch: Schedule1F1B waits for a send and a receive between two
passes, while what runs schedules with more stages posts them beside compute (torch 2.13,
torch/distributed/pipelining/schedules.py). DeepSeek's report has them hidden.
"""

from collections.abc import Iterator

from hwmodels.document import Document, Problem
from sim.models.stacks.stack import KINDS
from sim.scenario.form import ScenarioForm

WORDS = {True: "hidden", False: "waited"}
"""overlap.pipeline -> comm.messages."""


def word(form: ScenarioForm) -> str:
    """Word of comm.messages that a scenario means."""
    if "messages" in form.comm.model_fields_set:
        return form.comm.messages
    if form.overlap.pipeline is not None:
        return WORDS[form.overlap.pipeline]
    schedule = form.schedule if form.parallel.pipeline > 1 else None
    return WORDS[schedule is None or not waits(schedule.name, schedule.chunks, form.stack.name)]


def waits(schedule: str, chunks: int | None, stack: str) -> bool:
    """Whether ranks of a pipeline wait where nothing else is said."""
    return KINDS[stack].waits and (schedule == "1f1b" or chunks == 1)


def odds(form: ScenarioForm, document: Document) -> Iterator[Problem]:
    """A line where the two words say opposite things."""
    asked = form.overlap.pipeline
    if asked is not None and word(form) != WORDS[asked]:
        key, what = "overlap.pipeline", f"found {str(asked).lower()} beside comm.messages {word(form)}"
        yield Problem(document.place(tuple(key.split("."))), key, f"{what}; legal: either of them, or {WORDS[asked]}")
