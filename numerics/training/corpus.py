"""Text for training: files of a folder, cut in two by their paths' hashes, as tokens of a byte-level BPE.

A file's hash says whether it is held out and where it stands in the order, so neither depends on what else is there.
The comment that a file begins with (licence, authors) is dropped: it is nearly the same in every file. Tokens are kept,
text is not; nothing of a corpus is part of this repository.

    python -m numerics corpus FOLDER --out CORPUS
"""

import hashlib
import json
import lzma
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from hwmodels.refused import Refused

END, BEGIN, HOLE, TAIL = 0, 1, 2, 3
"""Tokens that no text has: the end of a document, and what stands before prefix, suffix and middle (PSM)."""
SPECIAL = ("<|end|>", "<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>")
"""Their names, as in DeepSeek-V3's report (arXiv 2412.19437 sec 4.1)."""
HELD_OUT = 0.02
"""Share of files that nothing trains on (assumed: a million tokens of sixty)."""
SAMPLE = 30_000_000
"""Letters of the training files, first in order, that the tokenizer's merges are learnt from."""
_HEAD = re.compile(r"\A(\s*(/\*.*?\*/|//[^\n]*\n))+\s*", re.DOTALL)


@dataclass(frozen=True)
class Corpus:
    """train, held: uint16 [tokens], documents one after another, each closed by END. about: where they come from."""

    train: np.ndarray
    held: np.ndarray
    about: dict[str, object]

    @property
    def vocabulary(self) -> int:
        return int(self.about["vocabulary"])  # type: ignore[call-overload]


def place(path: str) -> float:
    """Where a file stands among all possible ones, 0 to 1: the first 8 bytes of its path's SHA-256."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") / 2**64


def files(folder: Path, pattern: str) -> tuple[list[Path], list[Path]]:
    """Files to train on and files held out, each in the order of their places. Raises Refused where there are none."""
    ranked = sorted((place(path.relative_to(folder).as_posix()), path) for path in folder.rglob(pattern))
    cut = [path for where, path in ranked if where >= HELD_OUT], [path for where, path in ranked if where < HELD_OUT]
    if not all(cut):
        raise Refused(f"{folder}: {len(ranked)} files of {pattern}; a corpus needs some to train on and some held out")
    return cut


def document(path: Path) -> str:
    """A file's text without the comments it begins with; bytes that are no UTF-8 are left out."""
    return _HEAD.sub("", path.read_text(encoding="utf-8", errors="ignore"), count=1)


def fill_in_middle(ids: Sequence[int], rng: np.random.Generator, rate: float) -> list[int]:
    """A document's tokens, in a share `rate` of documents as BEGIN prefix HOLE suffix TAIL middle (sec 4.1: 0.1, PSM).

    Both cuts are uniform over the places between tokens.
    """
    if rng.random() >= rate:
        return list(ids)
    a, b = sorted(int(cut) for cut in rng.integers(0, len(ids) + 1, 2))
    return [BEGIN, *ids[:a], HOLE, *ids[b:], TAIL, *ids[a:b]]


def learn(paths: Iterable[Path], vocabulary: int, letters: int = SAMPLE) -> "Tokenizer":  # type: ignore[name-defined]  # noqa: F821
    """A byte-level BPE of `vocabulary` tokens, SPECIAL first, from the first `letters` of the files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(_within(map(document, paths), letters), trainer)
    return made


def _within(texts: Iterable[str], letters: int) -> Iterator[str]:
    for text in texts:
        if letters <= 0:
            return
        yield text[:letters]
        letters -= len(text)


def encode(made: "Tokenizer", paths: Iterable[Path], tokens: int, rate: float, seed: int) -> np.ndarray:  # type: ignore[name-defined]  # noqa: F821
    """uint16 [up to `tokens`]: the files as documents, each closed by END, until there are enough."""
    rng, parts, held, ahead = np.random.default_rng(seed), [], 0, iter(paths)
    while held < tokens and (batch := list(islice(ahead, 256))):
        for one in made.encode_batch_fast([document(path) for path in batch], add_special_tokens=False):
            ids = np.array([*fill_in_middle(one.ids, rng, rate), END], dtype=np.uint16)
            parts.append(ids)
            held += len(ids)
    return np.concatenate(parts)[:tokens]


def build(
    folder: Path, out: Path, pattern: str = "*.c", vocabulary: int = 4096, tokens: int = 60_100_000,
    held: int = 1_000_000, rate: float = 0.1, seed: int = 0, source: str = "",
) -> Corpus:  # fmt: skip
    """Learn the tokenizer on the files to train on, encode both sides, and keep them in the folder `out`."""
    train_files, held_files = files(folder, pattern)
    made = learn(train_files, vocabulary)
    train = encode(made, train_files, tokens, rate, seed)
    about = {
        "source": source or folder.name, "pattern": pattern, "files": [len(train_files), len(held_files)],
        "vocabulary": made.get_vocab_size(), "fill_in_middle": rate, "seed": seed,
        "sha256": hashlib.sha256(train.tobytes()).hexdigest(),
    }  # fmt: skip
    corpus = Corpus(train, encode(made, held_files, held, 0.0, seed), about)
    save(corpus, out)
    made.save(str(out / "tokenizer.json"))
    return corpus


def save(corpus: Corpus, out: Path) -> None:
    """Both sides compressed (a third of their size), and what is known of them."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("train", "held"):
        (out / f"{name}.xz").write_bytes(lzma.compress(getattr(corpus, name).astype("<u2").tobytes(), preset=4))
    (out / "about.json").write_text(json.dumps(corpus.about, indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> Corpus:
    """What `save` kept. Raises Refused where a file is missing."""
    try:
        train, held = (
            np.frombuffer(lzma.decompress((folder / f"{name}.xz").read_bytes()), dtype="<u2")
            for name in ("train", "held")
        )
        return Corpus(train, held, json.loads((folder / "about.json").read_text(encoding="utf-8")))
    except OSError as error:
        how = "make one with: python -m numerics corpus FOLDER --out DIR"
        raise Refused(f"{folder}: no corpus ({error.strerror}); {how}") from None


def windows(tokens: np.ndarray, length: int, ahead: int = 1) -> np.ndarray:
    """[W, length + ahead]: a stream packed into sequences without gaps; each begins where the one before ended.

    Documents share sequences and see each other (sec 4.1: packing without cross-sample masking). The last `ahead`
    tokens of a window are targets only, and the first inputs of the next, so every token is predicted once.
    """
    count = (len(tokens) - ahead) // length
    if count < 1:
        raise Refused(f"{len(tokens)} tokens hold no sequence of {length} and {ahead} ahead; use shorter ones")
    return np.lib.stride_tricks.sliding_window_view(tokens, length + ahead)[: count * length : length]
