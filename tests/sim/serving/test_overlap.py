"""Two halves over two lanes: bounds that any order keeps, and what the orders of DeepSeek's profile come to by hand."""

from hypothesis import given
from hypothesis import strategies as st

from sim.serving.overlap import Parts, overlapped_ns

part = st.integers(0, 1000)
parts = st.lists(
    st.builds(lambda a, b, d, s, e, c: Parts(a, b, d, s, e, c, (d // 2, c // 3)), part, part, part, part, part, part),
    min_size=1,
    max_size=6,
)


@given(parts, st.booleans())
def test_two_halves_take_no_longer_than_in_turn_and_no_less_than_a_lane(one: list[Parts], prefill: bool) -> None:
    whole = overlapped_ns(one, one, prefill)
    assert whole <= 2 * sum(each.total for each in one)
    packed, sent = sum(sum(p.packing) for p in one), sum(p.dispatch + p.combine for p in one)
    compute = sum(p.prepare + p.core + p.shared + p.experts for p in one)
    assert whole >= 2 * max(compute + packed, sent - packed)
    assert whole >= sum(each.total for each in one) - sum(each.shared for each in one)


def test_decoding_hides_each_exchange_under_what_the_profile_has_there() -> None:
    """A dispatch of 50 under 20 + 20 of shared experts and the other's projections; a combine of 80 under 60 of its
    core; experts of 30 under nothing: half a layer takes 50 + 30 + 80."""
    layer, count = Parts(20, 60, 50, 20, 30, 80), 8
    assert overlapped_ns([layer] * count, [layer] * count, False) == 20 + 60 + 2 * count * (50 + 30 + 80)
    hidden = Parts(40, 90, 50, 20, 30, 80)
    assert overlapped_ns([hidden] * count, [hidden] * count, False) == 40 + 90 + (2 * count - 1) * (60 + 30 + 90) + 160


def test_prompts_hide_exchanges_under_all_of_the_other_half() -> None:
    """Compute bounds: exchanges of 50 and 80 under attention of 100, experts of 90 and shared ones of 20; of the last
    combine 40 are left."""
    layer, count = Parts(20, 80, 50, 20, 90, 80), 8
    assert overlapped_ns([layer] * count, [layer] * count, True) == 2 * count * (100 + 90 + 20) + 40


def test_packing_holds_compute() -> None:
    """What an exchange packs runs on the SMs: no other half's compute hides it."""
    free = [Parts(20, 80, 50, 20, 80, 50)] * 4
    held = [each._replace(packing=(10, 10)) for each in free]
    for prefill in (False, True):
        assert overlapped_ns(held, held, prefill) >= 2 * 4 * (200 + 20) > overlapped_ns(free, free, prefill) - 60
