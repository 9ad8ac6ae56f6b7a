"""What models keep of a token: kinds, elements, bytes, the page, and what a rank has room for."""

import pytest

from hwmodels.units import GIGA
from sim.models.family import family
from sim.scenario.shelves import models
from sim.serving.cache import held, token_bytes, weight_bytes
from sim.serving.cache_page import PAGE, page, shape
from tests.sim.serving.instances import model, stepper


def test_the_page_is_what_the_program_writes() -> None:
    """`python -m sim cache --write`; every model that ships is on it."""
    assert PAGE.read_text(encoding="utf-8") == page()
    assert all(f"| {shape(name).name} |" in page() for name in models())


@pytest.mark.parametrize("name", models())
def test_bytes_are_the_familys(name: str) -> None:
    own = shape(name)
    assert held(own).bytes("bf16") == family(own.family).cache(own)


@pytest.mark.parametrize(
    "name, kind, elements",
    [
        ("deepseek_v3", "MLA", 61 * (512 + 64)), ("deepseek_v2", "MLA", 34_560), ("deepseek_67b", "GQA", 194_560),
        ("gpt3_175b", "MHA", 96 * 2 * 12288), ("llama3_70b", "GQA", 80 * 2 * 8 * 128),
    ],
)  # fmt: skip
def test_kinds_by_hand(name: str, kind: str, elements: int) -> None:
    own = held(shape(name))
    assert (own.kind, own.elements) == (kind, elements) and (own.less == 0) == (kind == "MHA")


def test_v2_beside_67b_by_elements_and_by_bytes() -> None:
    """82.2 % by elements; 93.3 %, as published, only by bytes with V2's in 6 bits (KV-V2-D)."""
    latent, grouped = held(shape("deepseek_v2")), held(shape("deepseek_67b"))
    assert 1 - latent.elements / grouped.elements == pytest.approx(0.822, abs=5e-4)
    assert 1 - latent.bytes("fp6") / grouped.bytes("bf16") == pytest.approx(0.9334, abs=5e-5)


def test_a_latent_is_on_every_rank_and_heads_are_not() -> None:
    """Keys of 8 heads over 8 ranks are one head's each; a latent is kept 8 times."""
    latent, grouped = stepper("h200x8", 8, 1), stepper("h100x8", 8, 1, name="llama3_70b")
    whole = held(model("deepseek_v3")).bytes("bf16"), held(model("llama3_70b")).bytes("bf16")
    assert token_bytes(latent.units, 2.0) == whole[0] and token_bytes(grouped.units, 2.0) == whole[1] / 8


def test_weights_of_v3_fit_eight_h200_and_no_eight_h100() -> None:
    """671 B parameters of a byte, embedding, head and gates of two: 84 GB and more a rank of eight."""
    for tensor, expert in ((8, 1), (8, 8)):
        rank = stepper("h200x8", tensor, expert).rank
        assert 80 * GIGA < 671 * GIGA / 8 < weight_bytes(rank, 0) < 1.06 * 671 * GIGA / 8
    wide = stepper("h100x8", 1, 72).rank
    spread = weight_bytes(wide, 32)
    assert 2 * GIGA + 11.7 * GIGA < spread < 30 * GIGA and spread > weight_bytes(wide._replace(expert=144), 32)


def test_copies_of_experts_take_room() -> None:
    """32 copies over 32 ranks are an expert more a rank in each of V3's 58 layers with experts."""
    rank = stepper("h800x8", 1, 32).rank
    more = weight_bytes(rank, 32) - weight_bytes(rank, 0)
    assert more == pytest.approx(58 * 3 * 7168 * 2048 * rank.weight)
