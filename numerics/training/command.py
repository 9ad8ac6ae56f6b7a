"""`python -m numerics study | train | corpus`: their options, and what they do."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from hwmodels.refused import Refused

STUDIES = ("accumulation", "training")
RUNS = Path(__file__).parent / "runs"
"""Settings that ship, and the study's rows."""
ROWS, KEPT = "rows.jsonl", "study.jsonl"


def _count(word: str) -> int:
    """A whole number, 0 or more. Raises ArgumentTypeError."""
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more; found {word!r}")
    return int(word)


def add(commands: Any) -> None:
    """The three commands."""
    study = commands.add_parser("study", help="write a study's page and figures")
    study.add_argument("name", choices=STUDIES)
    study.add_argument("--out", type=Path, metavar="DIR", help="default: out/<name>")
    study.add_argument("--corpus", type=Path, metavar="DIR", help="training: what the command corpus wrote")
    study.add_argument("--seconds", type=float, default=1e9, help="training: begin no run that would end later")
    parts = study.add_mutually_exclusive_group()
    parts.add_argument("--behind", action="store_true", help="training: main arms from the end of one BF16 run")
    parts.add_argument("--times", action="store_true", help="training: times of a step alone, again")
    study.add_argument("--afresh", action="store_true", help="training: also what rows are kept of")
    study.add_argument("--write", action="store_true", help="training: docs/TRAINING.md from kept rows")
    study.set_defaults(run=_study)
    train = commands.add_parser("train", help="train a model of the DeepSeek family on a corpus")
    train.add_argument("config", type=Path, metavar="CONFIG.yaml", help="settings; numerics/training/runs has some")
    train.add_argument("--corpus", type=Path, metavar="DIR", required=True, help="what the command corpus wrote")
    train.add_argument("--out", type=Path, metavar="DIR", default=Path("out/train"), help="default: out/train")
    train.add_argument("--save", type=_count, metavar="STEPS", default=0, help="steps between checkpoints")
    train.set_defaults(run=_train)
    corpus = commands.add_parser("corpus", help="tokenise a folder of text for training")
    corpus.add_argument("folder", type=Path)
    corpus.add_argument("--out", type=Path, metavar="DIR", required=True)
    corpus.add_argument("--pattern", default="*.c", help="names of files; default: *.c")
    corpus.add_argument("--vocabulary", type=_count, default=4096)
    corpus.add_argument("--tokens", type=_count, default=60_100_000, help="to train on, at most")
    corpus.add_argument("--source", default="", help="where the text comes from, for the record")
    corpus.set_defaults(run=_corpus)


def _needed(what: str, error: ImportError) -> Refused:
    return Refused(f"{what} needs {error.name}; pip install trainyard[numerics]")


def _study(asked: argparse.Namespace) -> int:
    folder = asked.out or Path("out", asked.name)
    if asked.name == "accumulation":
        try:
            from numerics.training import accumulation
        except ImportError as error:
            raise _needed(f"study {asked.name}", error) from None
        accumulation.main(folder)
    elif asked.write:
        from numerics.training import page

        page.write()
        folder = page.PAGE
    else:
        return _training(asked, folder)
    print(f"written to {folder}", file=sys.stderr)
    return 0


def _training(asked: argparse.Namespace, folder: Path) -> int:
    if asked.corpus is None:
        raise Refused("study training needs --corpus DIR, made by python -m numerics corpus FOLDER --out DIR")
    try:
        from numerics.training import corpus, settings, study
    except ImportError as error:
        raise _needed("study training", error) from None
    start = time.monotonic()
    say = lambda text: print(f"[{time.monotonic() - start:6.1f} s] {text}", file=sys.stderr, flush=True)
    small, wide = (settings.load(RUNS / f"{name}.yaml") for name in ("study", "wide"))
    words = corpus.load(asked.corpus)
    what = study.BEHIND if asked.behind else study.TIMES if asked.times else study.ALL
    kept = [] if asked.afresh else study.read(RUNS / KEPT)
    whole = study.main(small, wide, words, folder / ROWS, asked.seconds, say, what, kept)
    print(f"written to {folder / ROWS}{'' if whole else '; run again for what is missing'}", file=sys.stderr)
    return 0


def _train(asked: argparse.Namespace) -> int:
    try:
        from numerics.training import corpus, settings, train
    except ImportError as error:
        raise _needed("train", error) from None
    train.main(settings.load(asked.config), corpus.load(asked.corpus), asked.out, asked.save)
    print(f"written to {asked.out}", file=sys.stderr)
    return 0


def _corpus(asked: argparse.Namespace) -> int:
    try:
        import tokenizers  # noqa: F401

        from numerics.training import corpus
    except ImportError as error:
        raise Refused(f"corpus needs {error.name}; pip install trainyard[training]") from None
    made = corpus.build(asked.folder, asked.out, asked.pattern, asked.vocabulary, asked.tokens, source=asked.source)
    print(f"{len(made.train)} tokens to train on, {len(made.held)} held out, written to {asked.out}", file=sys.stderr)
    return 0
