"""docs/CACHE.md: what every model that ships keeps of a token."""

from collections.abc import Sequence

from hwmodels.document import Document
from hwmodels.units import GIGA, KILO
from sim.models.shape import ModelShape
from sim.scenario import model as models
from sim.scenario.shelves import SCENARIOS
from sim.scenario.shelves import models as names
from sim.serving.cache import Held, held

PAGE = SCENARIOS.parent / "docs" / "CACHE.md"
HEAD = """\
# What models keep of a token

Written by `python -m sim cache --write`. Elements are counted, bytes are those of a format: papers mix the two.
All heads' own: with a key and a value for every query head.

| model | attention | layers | elements a token | all heads' own | less by | kB, BF16 | kB, FP8 | in 40 GB, BF16 |
|---|---|--:|--:|--:|--:|--:|--:|--:|
"""
ROOM = 40 * GIGA
"""Bytes, to compare by."""
PAIR = """
DeepSeek-V2's report (arXiv:2405.04434, abstract) has 93.3 % less cache than DeepSeek 67B. By elements it is
{by_elements:.1%} ({few:,} against {many:,}); V2's cache was deployed in 6 bits an element (sec 3.2.3) and 67B's counted
in BF16, {narrow:.1f} kB against {wide:.1f} kB, which is {by_bytes:.2%}. With a key and a value for each of its heads V2
would keep {whole:,} elements.
"""


def shape(name: str) -> ModelShape:
    """A model that ships."""
    key = ("model",)
    return models.shape(models.document(Document(name), key, None), key)[0]


def page(known: Sequence[str] = ()) -> str:
    """The page, of all models or some."""
    rows = [_row(own.name, held(own)) for own in map(shape, known or names())]
    return HEAD + "\n".join(rows) + "\n" + pair(held(shape("deepseek_v2")), held(shape("deepseek_67b")))


def pair(latent: Held, grouped: Held) -> str:
    """Two models by elements and by bytes, the first in 6 bits."""
    narrow, wide = latent.bytes("fp6"), grouped.bytes("bf16")
    return PAIR.format(
        by_elements=1 - latent.elements / grouped.elements, few=latent.elements, many=grouped.elements,
        narrow=narrow / KILO, wide=wide / KILO, by_bytes=1 - narrow / wide, whole=latent.whole,
    )  # fmt: skip


def _row(name: str, own: Held) -> str:
    wide, narrow = own.bytes("bf16"), own.bytes("fp8")
    fits = f"{ROOM / wide:,.0f}" if wide else ""
    cells = (
        name, own.kind, str(own.layers), f"{own.elements:,}", f"{own.whole:,}", f"{own.less:.1%}",
        f"{wide / KILO:.1f}", f"{narrow / KILO:.1f}", fits,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"
