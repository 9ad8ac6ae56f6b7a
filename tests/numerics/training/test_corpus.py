"""Splits by hash, licence headers, filling in the middle, packing: properties of what a run is fed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.refused import Refused
from numerics.training import corpus
from numerics.training.corpus import BEGIN, END, HOLE, TAIL

IDS = st.lists(st.integers(4, 500), max_size=40)


@given(IDS, st.integers(0, 99))
def test_the_middle_goes_to_the_end_and_nothing_is_lost(ids, seed):
    """PSM: BEGIN prefix HOLE suffix TAIL middle; put back, it is the document."""
    made = corpus.fill_in_middle(ids, np.random.default_rng(seed), 1.0)
    assert made[0] == BEGIN and made.count(HOLE) == made.count(TAIL) == 1
    hole, tail = made.index(HOLE), made.index(TAIL)
    assert hole < tail
    assert made[1:hole] + made[tail + 1 :] + made[hole + 1 : tail] == ids


def test_a_tenth_of_documents_is_turned():
    rng = np.random.default_rng(0)
    turned = sum(corpus.fill_in_middle([9, 9], rng, 0.1)[0] == BEGIN for _ in range(5000))
    assert 0.08 * 5000 < turned < 0.12 * 5000
    assert corpus.fill_in_middle([7, 8], rng, 0.0) == [7, 8]


@settings(max_examples=50)
@given(st.integers(2, 300), st.integers(1, 40), st.integers(1, 3))
def test_packing_predicts_every_token_once(size, length, ahead):
    stream = np.arange(size, dtype=np.uint16)
    if size < length + ahead:
        with pytest.raises(Refused, match="no sequence"):
            corpus.windows(stream, length, ahead)
        return
    rows = corpus.windows(stream, length, ahead)
    targets = rows[:, 1 : length + 1].flatten()
    assert (targets == np.arange(1, len(targets) + 1)).all()
    assert rows.shape[1] == length + ahead and size - len(targets) - ahead < length


def test_a_file_stays_on_its_side_whatever_else_is_there(tmp_path):
    for i in range(300):
        (tmp_path / f"f{i}.c").write_text("x")
    train, held = corpus.files(tmp_path, "*.c")
    assert 0 < len(held) < 30 and not set(train) & set(held)
    (tmp_path / "new.c").write_text("x")
    more, _ = corpus.files(tmp_path, "*.c")
    assert [path for path in more if path.name != "new.c"] == train


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"0 files of \*\.c"):
        corpus.files(tmp_path, "*.c")


@pytest.mark.parametrize("text, kept", [
    ("// SPDX-License-Identifier: GPL-2.0\n/*\n * Copyright\n */\n\nint a; /* stays */\n", "int a; /* stays */\n"),
    ("/* one */ int b;", "int b;"), ("int c; // no header\n", "int c; // no header\n"), ("", ""),
])  # fmt: skip
def test_the_head_comment_goes_and_others_stay(tmp_path, text, kept):
    (tmp_path / "a.c").write_text(text)
    assert corpus.document(tmp_path / "a.c") == kept


def test_a_corpus_is_kept_and_read_again(tmp_path):
    made = corpus.Corpus(np.arange(500, dtype=np.uint16), np.arange(9, dtype=np.uint16), {"vocabulary": 500})
    corpus.save(made, tmp_path)
    again = corpus.load(tmp_path)
    assert (again.train == made.train).all() and (again.held == made.held).all() and again.vocabulary == 500
    with pytest.raises(Refused, match="no corpus"):
        corpus.load(tmp_path / "none")


def test_a_folder_becomes_tokens_and_reads_back(tmp_path):
    pytest.importorskip("tokenizers")
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(200):
        (folder / f"{i}.c").write_text(f"/* licence */\nint f{i}(int x)\n{{\n\treturn x + {i};\n}}\n")
    made = corpus.build(folder, tmp_path / "out", vocabulary=300, tokens=5000, held=500, rate=0.0)
    again = corpus.load(tmp_path / "out")
    assert again.vocabulary <= 300 and (again.train == made.train).all() and made.train.max() < 300
    from tokenizers import Tokenizer

    first = made.train[: list(made.train).index(END)]
    text = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).decode(list(first))
    assert text == corpus.document(corpus.files(folder, "*.c")[0][0]) and "licence" not in text
    again = corpus.build(folder, tmp_path / "again", vocabulary=300, tokens=5000, held=500, rate=0.0)
    assert (again.train == made.train).all()
