"""Published rows beside ours: the page, what it must show, and where it is known to be off."""

from functools import cache

import numpy as np
import pytest

from sim.serving import curves
from sim.serving.page import PAGE, page
from sim.serving.rows import Compared, compared, left_out, rows


@cache
def errors() -> dict[str, Compared]:
    """Every row beside ours, by its name: made by the first test that asks, not by every process that lists tests."""
    return {each.row["id"]: each for each in compared()}


def test_the_page_is_what_the_program_writes() -> None:
    """`python -m sim serving --write`."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_row_is_answered_once_and_every_other_has_a_reason() -> None:
    names = [row["id"] for row in rows()]
    assert len(names) == len(set(names)) >= 35 and all(left_out().values())
    assert all(row["source"] in ("sglang", "kimi", "h20", "gb200", "trt", "ix") for row in rows())


def test_errors_as_they_are() -> None:
    """Half of all rows come within 8 %; nothing is fitted, so these limits only notice what moves."""
    off = np.array([abs(each.error) for each in errors().values() if each.row["reading"] != "gain"])
    assert np.median(off) < 0.08 and (off < 0.10).mean() > 0.75 and (off < 0.30).mean() > 0.9


@pytest.mark.parametrize(
    "name",
    [
        "DS-PROF-PF",
        "DS-PROF-DC",
        "SG-PF-EVEN",
        "SG-PF-1024",
        "SG-PF-2048",
        "H20-PF",
        "H20-DC-BASE",
        "H20-DC-PRO",
        "H20-DC-MAX",
        "H20-EP-BS32",
        "SG-DC-2K",
        "SG-DC-2K-off",
        "SG-TBO-MTP",
        "SG-TBO-MTP-off",
        "TRT-MTP-1",
        "TRT-MTP-3",
        "TRT-MTP-5",
        "IX-H200-TRT-1K_1K-c4",
        "IX-H200-TRT-1K_1K-c32",
        "IX-H200-TRT-8K_1K-c8",
        "IX-H200-TRT-8K_1K-c32",
        "IX-H200-D2",
        "IX-MI355X-4",
        "IX-B200-4",
        "IX-GB200-1",
        "IX-GB300-1",
    ],
)
def test_rows_within_ten_per_cent(name: str) -> None:
    assert abs(errors()[name].error) < 0.10


def test_one_set_of_latencies_serves_every_concurrency() -> None:
    """8 H200s, SGLang, 4 to 64 clients, prompts of 1,024 and of 8,192: the time a token within 10 %."""
    off = [each.error for name, each in errors().items() if name.startswith("IX-H200-SG-")]
    assert len(off) == 7 and max(map(abs, off)) < 0.10


def test_answers_that_choose_as_was_counted_take_as_long() -> None:
    """SGLang's decoding, its experts as unalike in a step as its page draws them (`drift`): within 5 %, in two
    micro-batches and in one; without that 4 to 10 % fast."""
    names = "SG-DC-2K", "SG-DC-2K-off", "SG-TBO-MTP", "SG-TBO-MTP-off"
    assert all(-0.01 < errors()[name].error < 0.05 for name in names)


def test_gains_of_two_micro_batches_in_points() -> None:
    """SGLang, EP72 of H100s: +25.5 % at 256 sequences is within 2 points (in six draws of experts' popularity 0.1 to
    0.8 short); -27 % at 32 and prompts' 31 % are not within 5."""
    names = "SG-TBO-DC-256", "SG-TBO-DC-32", "SG-TBO-PF"
    many, few, prompts = (errors()[name].ours - errors()[name].row["value"] for name in names)
    assert abs(many) < 2 and abs(few) < 8.5 and abs(prompts) < 7.5


def test_longer_prompts_of_text_are_further_off() -> None:
    """SGLang's 4,096 tokens a prompt: 9 % fast, where its exchanges bind and ours do not (docs/SERVING.md)."""
    off = [errors()[f"SG-PF-{tokens}"].error for tokens in ("EVEN", 1024, 2048, 4096)]
    assert off == sorted(off) and off[-1] < 0.10


def test_more_drafts_pay_until_they_do_not() -> None:
    """Speed by depth rises to three drafts and falls to five, as TensorRT-LLM's ladder."""
    ladder = [1.0, *(errors()[f"TRT-MTP-{depth}"].ours for depth in (1, 3, 5))]
    assert ladder[0] < ladder[1] < ladder[2] > ladder[3] > ladder[1]


def test_why_two_micro_batches_pay_at_many_sequences() -> None:
    """The gain rises with the batch as the part that half of it takes falls, and is a loss at few."""
    told = list(curves.overlap())
    gains, halves = [each.one / each.two for each in told], [each.half / each.one for each in told]
    assert gains == sorted(gains) and gains[0] < 1 < gains[-1] and halves == sorted(halves, reverse=True)


def test_more_ranks_for_experts_pay_at_few_sequences() -> None:
    """H20s, as Ant Group's page has it: EP32 ahead of EP16 at 8, behind at 32, in falling order once steps are long."""
    ratio = {batch: other / one for batch, one, other in curves.sizes()}
    assert ratio[8] > 1.05 and ratio[32] < 0.96 and ratio[4] > ratio[8] > ratio[16] > ratio[32]


def test_why_a_draft_gives_its_tokens_at_few_sequences_only() -> None:
    gains = [each[0] for _, each in curves.drafts((1,))]
    assert gains == sorted(gains, reverse=True) and gains[0] > 1.7 and gains[-1] < 1.1


def test_copies_pay_more_where_experts_are_liked_unalike() -> None:
    gains = [times for *_, times in curves.copies()]
    assert gains == sorted(gains) and gains[-1] > 1.2


def test_the_smaller_cache_serves_more() -> None:
    latent, grouped = curves.rooms()
    assert latent.sequences > 5 * grouped.sequences and 4 < latent.rate / grouped.rate < 8


def test_errors_are_relative() -> None:
    assert Compared({"value": 4}, 5.0).error == 0.25
