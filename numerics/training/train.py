"""One run from a file of settings: progress on stderr, a history and a checkpoint in a folder."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from numerics.training.corpus import Corpus
from numerics.training.run import LOSS, Run
from numerics.training.settings import Settings

CHECKPOINT, HISTORY = "checkpoint.pt", "history.json"
REPORTS = 20
"""Lines of progress of a run that is not told when to save or evaluate."""


def main(settings: Settings, corpus: Corpus, out: Path, save: int = 0) -> Run:
    """Train from the checkpoint in `out` if there is one, else from the start; save every `save` steps."""
    out.mkdir(parents=True, exist_ok=True)
    run = Run(settings, corpus, "cuda" if torch.cuda.is_available() else "cpu")
    if (out / CHECKPOINT).exists():
        run.resume(out / CHECKPOINT)
        print(f"goes on from step {run.done}", file=sys.stderr)
    if run.device.type == "cuda":
        run.capture()
    strides = [each for each in (save, settings.evaluate, max(1, settings.steps // REPORTS)) if each]
    while run.done < settings.steps:
        run.train(min(run.done - run.done % stride + stride for stride in strides))
        print(f"step {run.done}: loss {float(run.history[run.done - 1, LOSS]):.4f}", file=sys.stderr, flush=True)
        if _due(run.done, settings.evaluate, settings.steps):
            run.evaluations.append({"step": run.done, **run.evaluate()})
        if _due(run.done, save, settings.steps):
            run.save(out / CHECKPOINT)
    figures = {"settings": asdict(settings), "corpus": corpus.about, "history": run.history.tolist()}
    figures["held"] = run.evaluations
    (out / HISTORY).write_text(json.dumps(figures), encoding="utf-8")
    return run


def _due(step: int, every: int, steps: int) -> bool:
    return step == steps or bool(every and step % every == 0)
