"""Kernels by the nearest measured ones: rows give themselves back, others come within what is said."""

import math
import statistics

import pytest

from hwmodels import library
from hwmodels.op import Collective, GroupedGemm
from sim.serving import measured
from sim.serving.cached import Cached
from sim.serving.measured import bound_us, card, lines, read_us

FILES = ("h800", "h20", "h100")


@pytest.mark.parametrize("name, limit", [("h800", 0.10), ("h20", 0.06), ("h100", 0.16)])
def test_a_row_left_out_is_found_by_its_neighbours(name: str, limit: float) -> None:
    """Median error of each kind; H20's grouped queries are the worst (their rows lack the first lines)."""
    kinds: dict[str, list[float]] = {}
    rows = [(op, us, measured._kind(op), measured._place(op)) for op, us in lines(name)]
    for op, us, kind, place in rows:
        others = [
            library.Row(at, math.log(t / bound_us(o, card(name))), {})
            for o, t, k, at in rows if k == kind and o is not op
        ]  # fmt: skip
        told, _ = library.between(others, place, bound_us(op, card(name)))
        kinds.setdefault(kind, []).append(abs(math.log(told / us)))
    for kind, errors in kinds.items():
        assert statistics.median(errors) < (0.2 if (name, kind) == ("h20", "gqa") else limit), kind


@pytest.mark.parametrize("name", FILES)
def test_times_are_those_of_the_library_of_training(name: str) -> None:
    """The same weights of the same neighbours as `hwmodels.library.between`."""
    kinds: dict[str, list[library.Row]] = {}
    for op, us in lines(name):
        kinds.setdefault(measured._kind(op), []).append(
            library.Row(measured._place(op), math.log(us / bound_us(op, card(name))), {})
        )
    for op, _ in lines(name)[::17]:
        there, _ = library.between(kinds[measured._kind(op)], measured._place(op), bound_us(op, card(name)))
        assert read_us(op, card(name)).us == pytest.approx(there, rel=1e-9)


def test_other_cards_hold_the_part_of_their_own_bounds() -> None:
    op = GroupedGemm(32, 32 * 32, 4096, 7168)
    ratios = {name: read_us(op, card(name)).us / bound_us(op, card(name)) for name in ("h800", "h200", "b200")}
    assert ratios["h800"] == pytest.approx(ratios["h200"]) == pytest.approx(ratios["b200"])
    assert read_us(op, card("h200")).us < read_us(op, card("h800")).us and read_us(op, card("h200")).card == "h800"


def test_bounds_by_hand() -> None:
    """512 new tokens of one head's latent: 128 heads are two tiles; 576 elements of 2 bytes are read once."""
    op = Cached(4, 1000.0, 1, 128, 1, 576, 512, latent=True)
    assert op.tiles == 2 and op.flop() == 2 * 4 * 128 * 1000 * (576 + 512)
    assert op.bytes() == 4 * 1000 * 576 * 2 + 2 * 4 * 128 * (576 + 512)
    apart = Cached(4, 1000.0, 1, 32, 8, 128, 128)
    assert apart.flop() == 2 * 4 * 8 * 64 * 1000 * 256 and apart.bytes() == 4 * 1000 * 8 * 256 * 2 + 2 * 4 * 32 * 256
    assert Cached(1, 100.0, 3, 32, 8, 128, 128).seen == 99
    reduction = Collective("all_reduce", 8e6, 8, 1)
    wire = card("h100").links.nvlink.between(8)
    assert bound_us(reduction, card("h100")) == pytest.approx(3.0 + 2 * 8e6 * 7 / 8 / wire * 1e6)
