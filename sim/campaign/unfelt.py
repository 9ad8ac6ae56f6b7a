"""Keys of a campaign that somebody gave and its run does not feel: a line each."""

from collections.abc import Iterator

from hwmodels.document import Document
from sim.campaign.form import CampaignForm
from sim.campaign.values import MEMORY


def unfelt(form: CampaignForm, document: Document) -> Iterator[str]:
    """Lines such as "campaign.checkpoint.replicas changes nothing: ...". document: as it was changed."""
    for key, why in (*_of_checkpoint(form), *_of_failures(form)):
        yield f"campaign.{key} changes nothing: {why}"
    for key in ("sequences", "micro_batches"):
        if document.value("batch", key) is not None:
            yield f"batch.{key} changes nothing: each phase has its own batch"
    if document.value("batch", "sequence_length") is not None and all(each.sequence_length for each in form.phases):
        yield "batch.sequence_length changes nothing: each phase has its own"
    yield from of_outputs(document, "a campaign")


WRITTEN = ("result", "report")
"""Outputs of what is no single step."""


def of_outputs(document: Document, called: str) -> Iterator[str]:
    """Outputs that somebody asked for and only a training step has."""
    asked = document.value("outputs")
    if lacking := [word for word in asked if word not in WRITTEN] if isinstance(asked, list | tuple) else []:
        verb = "changes" if len(lacking) == 1 else "change"
        yield f"outputs: {', '.join(lacking)} {verb} nothing: {called} has {' and '.join(WRITTEN)} alone"


def _of_checkpoint(form: CampaignForm) -> Iterator[tuple[str, str]]:
    own = form.checkpoint
    for key in ("replicas", "stored_every"):
        if own.kind != MEMORY and key in own.model_fields_set:
            yield f"checkpoint.{key}", f"kind {own.kind} keeps nothing in the memory of other nodes"


def _of_failures(form: CampaignForm) -> Iterator[tuple[str, str]]:
    failures, restart = form.failures, form.restart
    broken = failures.nodes or failures.switches or failures.stragglers
    if not broken and "replace" in restart.model_fields_set:
        yield "restart.replace", "no node ever has to be replaced"
    if not (failures.nodes or failures.switches or failures.software):
        for key in ("detect", "hangs", "timeout"):
            if key in restart.model_fields_set:
                yield f"restart.{key}", "nothing fails that has to be seen"
    elif "timeout" in restart.model_fields_set and not restart.hangs:
        yield "restart.timeout", "restart.hangs says that nothing hangs"
