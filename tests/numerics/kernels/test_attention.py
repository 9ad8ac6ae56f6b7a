import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import attention as kernels  # noqa: E402
from numerics.kernels import flash_backward  # noqa: E402
from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import recorded, variants  # noqa: E402
from numerics.reference import attention as reference  # noqa: E402
from numerics.reference import compare  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()

# B, S, T, (heads of queries, of keys), Dqk, Dv, causal: whole boxes (descriptors), ragged ones, more keys than queries,
# odd widths, one query, heads that share keys
SHAPES = [
    (1, 128, 128, (2, 2), 192, 128, True),
    (2, 70, 100, (1, 1), 24, 16, True),
    (1, 130, 130, (1, 1), 192, 128, True),
    (1, 65, 33, (2, 2), 32, 32, False),
    (1, 1, 65, (1, 1), 64, 64, True),
    (2, 70, 80, (4, 2), 32, 16, True),
]
ROUNDED = 5e-3
"""Relative gate: P and dS are rounded to BF16 (2^-9 of an element at rms 1.7e-3) and each output once more, so sums of
independent errors stay near 2.4e-3 forward and 2.9e-3 backward; lines of 64 values may double that."""


def operands(b, s, t, h, d, dv, seed=0):
    generator = torch.Generator().manual_seed(seed)
    asking, asked = h if isinstance(h, tuple) else (h, h)
    shapes = ((b, s, asking, d), (b, t, asked, d), (b, t, asked, dv), (b, s, asking, dv))
    return [torch.randn(*shape, generator=generator).bfloat16() for shape in shapes]


@pytest.mark.parametrize("b, s, t, h, d, dv, causal", SHAPES)
def test_reference_against_torch(b, s, t, h, d, dv, causal):
    q, k, v, do = (x.double().transpose(1, 2).requires_grad_() for x in operands(b, s, t, h, d, dv))
    seen = torch.ones(s, t, dtype=torch.bool).tril(t - s) if causal else None
    o = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=d**-0.5, enable_gqa=True)
    wanted = torch.autograd.grad(o, (q, k, v), do)
    q, k, v, do = (x.detach().float().transpose(1, 2) for x in (q, k, v, do))
    found, lse = reference.attention(q, k, v, d**-0.5, causal)
    torch.testing.assert_close(found.double(), o.detach().transpose(1, 2), rtol=1e-5, atol=1e-6)
    grads = reference.attention_backward(do, q, k, v, found, lse, d**-0.5, causal)
    for one, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(one.double(), other.transpose(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", kernels.FORWARD)
@pytest.mark.parametrize("b, s, t, h, d, dv, causal", SHAPES)
def test_forward(b, s, t, h, d, dv, causal, form):
    q, k, v, _ = operands(b, s, t, h, d, dv)
    o, lse = kernels.attention(q, k, v, d**-0.5, causal, config=kernels.FORWARD[form])
    wanted, wanted_lse = reference.attention(q.float(), k.float(), v.float(), d**-0.5, causal)
    compare.gate(o, wanted, tolerance=ROUNDED)
    torch.testing.assert_close(lse, wanted_lse, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", kernels.TWINS)
@pytest.mark.parametrize("b, s, t, h, d, dv, causal", SHAPES)
def test_backward(b, s, t, h, d, dv, causal, form):
    q, k, v, do = operands(b, s, t, h, d, dv)
    wide = [x.float() for x in (q, k, v)]
    o, lse = reference.attention(*wide, d**-0.5, causal)
    tiles = {"config": kernels.TWINS[form]}
    delta, _ = reference.backward_prepare(do.float(), o.float(), d)
    given = {} if form == next(iter(kernels.TWINS)) else {"delta": delta}  # which no form makes its own way
    found = kernels.attention_backward(do, q, k, v, o, lse, d**-0.5, causal, **given, **tiles)
    wanted = reference.attention_backward(do.float(), *wide, o, lse, d**-0.5, causal)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.bfloat16
        if one is found[0] and causal and s == t:
            # Query 0 sees one key: its P is 1 whatever q is, and what is left of its gradient is rounding.
            assert one[:, 0].abs().max() < 1e-5
            one, other = one[:, 1:], other[:, 1:]
        compare.gate(one, other, tolerance=ROUNDED)


def test_uniform_attention_is_exact():
    """Equal scores: every query averages the values that it sees; powers of two make that exact."""
    q = torch.zeros(1, 64, 1, 64, dtype=torch.bfloat16)
    v = torch.zeros(1, 64, 1, 64, dtype=torch.bfloat16)
    v[:, 0] = 64.0
    o, lse = kernels.attention(q, q, v, 1.0)
    seen = torch.arange(1, 65).float()
    assert torch.equal(o[0, [0, 1, 3, 63], 0, 0].float(), 64 / seen[[0, 1, 3, 63]])
    torch.testing.assert_close(lse[0, 0], seen.log(), rtol=1e-6, atol=1e-6)


def test_the_future_does_not_matter():
    q, k, v, _ = operands(1, 128, 128, 1, 192, 128)
    o, _ = kernels.attention(q, k, v, 0.1)
    k[:, 100:], v[:, 100:] = 50.0, 1e30  # finite: a tile that holds inf spoils its queries, as 0 * inf is NaN
    changed, _ = kernels.attention(q, k, v, 0.1)
    compare.gate_bitwise(changed[:, :64], o[:, :64])


def test_large_scores_do_not_overflow():
    q, k, v, do = operands(1, 65, 65, 1, 32, 32)
    q = q * 100
    o, lse = kernels.attention(q, k, v, 1.0)
    assert torch.isfinite(o).all()
    for gradient in kernels.attention_backward(do, q, k, v, o, lse, 1.0):
        assert torch.isfinite(gradient).all()


def test_a_wrong_scale_is_caught():
    q, k, v, _ = operands(1, 64, 64, 1, 64, 64)
    found, _ = kernels.attention(q, k, v * 1.03, 0.125)
    with pytest.raises(compare.GateError):
        compare.gate(found, reference.attention(q, k, v, 0.125)[0], tolerance=ROUNDED)


@pytest.mark.parametrize(
    "width, parts", [(192, (128, 64)), (128, (128, 0)), (24, (16, 16)), (8, (16, 0)), (200, (128, 128))]
)
def test_widths_cover_a_head(width, parts):
    assert kernels.widths(width) == parts


def test_wrong_operands_are_refused():
    q, k, v, _ = operands(1, 8, 8, 1, 32, 32)
    with pytest.raises(ValueError, match="all bfloat16 or all float16"):
        kernels.attention(q.float(), k, v, 1.0)
    for module in (kernels, reference):
        with pytest.raises(ValueError, match="as many keys as queries; got 4 for 8"):
            module.attention(q, k[:, :4], v[:, :4], 1.0)
        with pytest.raises(ValueError, match=r"q is \[B,S,H,Dqk\]"):
            module.attention(q, k[..., :16], v, 1.0)


def test_boxes_never_cross_into_the_next_sequence():
    with recorded() as launches:
        for s in (128, 130):
            q, k, v, _ = operands(2, s, s, 1, 192, 128)
            kernels.attention(q, k, v, 1.0)
    assert [launch.constants["DESCRIPTOR"] for launch in launches] == [True, False]


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("kernel, form", [
    *(("forward", form) for form in kernels.FORWARD), *(("backward", form) for form in kernels.TWINS),
])  # fmt: skip
def test_code_for_hopper(kernel, form):
    q, v = (torch.empty(1, 4096, 128, d, dtype=torch.bfloat16, device="meta") for d in (192, 128))
    lse = torch.empty(1, 128, 4096, device="meta")
    calls = {
        "forward": lambda: kernels.attention(q, q, v, 1.0, config=kernels.FORWARD[form]),
        "backward": lambda: kernels.attention_backward(v, q, q, v, v, lse, 1.0, config=kernels.TWINS[form]),
    }
    launches = variants(calls[kernel])
    assert len(launches) == {"forward": 1, "backward": 3}[kernel]
    for launch in launches:
        report = launch.compile()
        assert report.spills == 0
        assert report.instructions("HGMMA") or launch.kernel.__name__ == "_delta"
        assert not report.instructions("HMMA")


@pytest.mark.parametrize("b, s, h, width, d", [(1, 128, 2, 128, 192), (2, 70, 3, 24, 40), (1, 1, 1, 64, 64)])
def test_what_the_backward_pass_starts_with(b, s, h, width, d):
    o, do = (torch.randn(b, s, h, width).bfloat16() for _ in range(2))
    delta, zeros = kernels.backward_prepare(do, o, d)
    expected, cleared = reference.backward_prepare(do, o, d)
    torch.testing.assert_close(delta, expected, rtol=1e-5, atol=1e-4)
    assert zeros.dtype == torch.float32 and torch.equal(zeros, cleared)


@pytest.mark.parametrize("s, d", [(200, 192), (64, 128)])
def test_tiles_of_dq_are_put_back(s, d):
    """A tile is in the order in which a warpgroup holds 64 x 64 sums: thread t of warp w has rows 16 w + t / 4 and the
    one 8 below, columns 2 (t % 4) and the next of every 8; of each thread those four of the first 8 columns, then of
    the next (PTX ISA, wgmma: matrix fragments)."""
    batch, heads = 2, 3
    rows = -(-s // 128) * 128
    sums = torch.arange(batch * heads * rows * d, dtype=torch.float32).remainder(251).reshape(batch * heads, rows, d)
    place = torch.arange(4096)
    thread, four = place // 4 % 128, place % 4
    row = 16 * (thread // 32) + thread % 32 // 4 + 8 * (four // 2)
    column = 8 * (place // 512) + 2 * (thread % 4) + four % 2
    blocks = sums.reshape(batch * heads, rows // 64, 64, d // 64, 64).transpose(2, 3)
    tiles = blocks[..., row, column].contiguous()
    dq = torch.empty(batch, s, heads, d, dtype=torch.bfloat16)
    assert tiles.numel() == flash_backward.room(dq)
    flash_backward._round[(tiles.numel() // flash_backward.TILE,)](tiles, dq, s, heads, 0.5, D=d)
    assert torch.equal(dq, (sums[:, :s] / 2).bfloat16().reshape(batch, heads, s, d).transpose(1, 2))
