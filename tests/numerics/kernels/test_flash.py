"""Hopper's forms of attention: their code, cross-compiled, which operands they take, how tiles are dealt. `check` and
`bench` run them on a card."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.card.check import SPILLS  # noqa: E402
from numerics.kernels import attention, flash, flash_backward  # noqa: E402
from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import recorded, variants  # noqa: E402


def operands(b=1, s=4096, t=4096, heads=128, shared=128, d=192, dv=128):
    shapes = ((b, s, heads, d), (b, t, shared, d), (b, t, shared, dv), (b, s, heads, dv))
    return [torch.empty(*shape, dtype=torch.bfloat16, device="meta") for shape in shapes]


def forward(**sizes):
    q, k, v, _ = operands(**sizes)
    return lambda: attention.attention(q, k, v, 0.1)


def backward(form=None, **sizes):
    q, k, v, do = operands(**sizes)
    lse = torch.empty(q.shape[0], q.shape[2], q.shape[1], device="meta")
    return lambda: attention.attention_backward(do, q, k, v, do, lse, 0.1, config=form)


def kernels(call):
    with recorded() as launches:
        call()
    return [f"{x.kernel.fn.__module__.rpartition('.')[2]}.{x.kernel.__name__}" for x in launches]


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("d, dv, products", [(192, 128, 80), (64, 64, 48)])
def test_code_of_forward(d, dv, products):
    """As few products as there can be: scores of the first block, then scores and P V of the next, then the last P V,
    of two warpgroups; each waited for once, none one by one."""
    (launch,) = variants(forward(d=d, dv=dv))
    report = launch.compile()
    assert report.instructions("HGMMA") == products
    assert report.instructions("WARPGROUP.DEPBAR") == 8
    assert report.spills <= SPILLS["flash._forward"]
    assert report.shared <= 227 * 1024


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("ordered, d, products", [(True, 192, 200), (False, 128, 144)])
def test_code_of_backward(ordered, d, products):
    """A pair of blocks of queries: two times scores (12), dP (8), dV, dK of two parts (4 each) and dQ (8), dQ's third
    part once (8); then the last block's; of two warpgroups, of which one has no third part at the end. Of 128 columns:
    scores (8), one part of dK and no third of dQ. None waited for one by one. In order, the first to come stores."""
    assert 2 * (2 * (12 + 8 + 4 + 4 + 4 + 8) + 8 + 8) + 8 == 200
    assert 2 * (2 * (8 + 8 + 4 + 4 + 8) + 8) == 144
    prepare, launch, rounding = variants(backward(flash_backward.Form(ordered=ordered), d=d))
    report = launch.compile()
    assert (prepare.kernel.__name__, rounding.kernel.__name__) == ("_delta", "_round")
    assert report.instructions("HGMMA") == products
    assert report.instructions("WARPGROUP.DEPBAR") <= 17
    assert report.instructions("UTMAREDG") > 0
    assert bool(report.instructions("UTMASTG")) == ordered
    assert report.spills <= SPILLS["flash_backward._backward"]
    assert report.shared <= 227 * 1024


def test_what_suits_goes_to_hopper():
    assert kernels(forward()) == ["flash._forward"]
    assert kernels(forward(s=1001, t=1003, d=128)) == ["attention._forward"]
    assert kernels(forward(s=1000, t=1003, heads=64, shared=8, d=128)) == ["flash._forward"]
    assert kernels(backward()) == ["attention._delta", "flash_backward._backward", "flash_backward._round"]


@pytest.mark.parametrize("change", [{"d": 96}, {"b": 2, "s": 1000}, {"s": 4094}, {"dv": 64}])
def test_what_does_not_suit_goes_to_the_twins(change):
    assert kernels(forward(**change)) == ["attention._forward"]
    assert kernels(backward(**change)) == ["attention._delta", "attention._queries", "attention._keys"]


def test_bits_repeat_unless_asked_otherwise():
    assert variants(backward())[1].constants["ORDERED"]
    assert not variants(backward(flash_backward.Form(ordered=False)))[1].constants["ORDERED"]


def abreast(causal=True, **sizes):
    q, k, v, _ = operands(**sizes)
    return flash_backward.abreast(q, k, v, causal, flash_backward.DEFAULT)


def test_programs_go_abreast_where_l2_cannot_keep_what_two_waves_visit():
    """Heads of their own and pairs that no mask cuts go at one speed as they are."""
    eight = {"heads": 64, "shared": 8, "d": 128}
    assert abreast(**eight) and abreast(**eight, b=4)
    assert not abreast(**eight, causal=False) and not abreast(**eight, s=2048)
    assert not abreast(heads=64, shared=8, d=64, dv=64) and not abreast(heads=32, shared=8, d=128)
    assert abreast(heads=32, shared=8, d=128, s=8192) and not abreast(s=65536)


@pytest.mark.parametrize("blocks, heads, sms", [(32, 128, 132), (1, 3, 132), (8, 1, 4), (5, 7, 11)])
def test_every_tile_is_dealt_once_and_evenly(blocks, heads, sms):
    s = blocks * flash.ROWS
    programs, rounds, turns = flash.dealt(blocks, heads, s, s, True, flash.DEFAULT, sms)
    assert sorted(tile for tile in turns if tile >= 0) == list(range(blocks * heads))
    assert len(turns) == programs * rounds and programs == min(sms, blocks * heads)
    hands = [[tile for tile in turns[i : i + rounds] if tile >= 0] for i in range(0, len(turns), rounds)]
    work = [sum(tile % blocks + 1 + flash.START for tile in hand) for hand in hands]
    assert max(work) <= sum(work) / programs + blocks + flash.START
