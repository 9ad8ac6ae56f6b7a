"""FP8 products whose every bit is known: our kernels against the model of the tensor core, on numbers of both signs and
on non-negative ones, where what is cut adds up.

A sum that is never promoted differs from one that is in nearly every bit, but with Gaussian operands by less than
rounding to BF16 hides (numerics.reference.compare). So these are compared bit for bit, and held to a bias.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from hwmodels.formats import TILE
from numerics.kernels import gemm as dense
from numerics.kernels import grouped as groups
from numerics.kernels import wgmma, wgrad
from numerics.reference import compare, hopper

BIAS = 1e-3
"""Largest bias on non-negative data: sums promoted every 128 lose 5e-4 (numerics.reference.hopper, uniform [0, 1)),
unpromoted ones 1.3 % at K = 1024."""


def differing(device: str, rows: int = 256, columns: int = 320, depth: int = 1024) -> Iterator[tuple[str, str]]:
    """Each product by name, and what its output differs in, "" for nothing. rows: a multiple of 128."""
    for sign, draw in (("both signs", _signed), ("non-negative", _positive)):
        (a, a_s), (b, b_s) = draw(rows, depth), draw(columns, depth)
        blocks = b_s[::TILE].contiguous()
        fused = device != "cpu"  # the interpreter rounds the product before the sum
        exact, weights = (hopper.scaled_gemm(a, a_s, b, scales, fused=fused) for scales in (blocks, b_s))
        outputs = _outputs(*(x.to(device) for x in (a, a_s, b, b_s, blocks)))
        for name, output in outputs:
            wanted = {
                "masked": _some(exact), "gemm 77 rows": exact[:77], "grouped, blocks without a group": _odd(exact)
            }.get(name, exact)  # fmt: skip
            wanted = weights if name.startswith("wgrad") else wanted
            yield f"{name} {sign}", _said(output, wanted, sign)


def _some(exact: Tensor) -> Tensor:
    """What the masked product gives: of the first half all rows but three, of the second one, and zeros."""
    half, some = len(exact) // 2, torch.zeros_like(exact)
    some[: half - 3], some[half] = exact[: half - 3], exact[half]
    return some


def _odd(exact: Tensor) -> Tensor:
    """The rows of every second block of 128, and zeros."""
    odd = torch.arange(len(exact)) // TILE % 2 == 1
    return torch.where(odd[:, None], exact, 0.0)


def _outputs(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, blocks: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same product by every kernel; of the masked one the rows that count, which leaves zeros elsewhere."""
    yield "gemm", dense.gemm(a, a_s, b, blocks)
    yield "gemm FP32", dense.gemm(a, a_s, b, blocks, torch.float32)
    yield "gemm 77 rows", dense.gemm(a[:77], a_s[:77].t().contiguous().t(), b, blocks)
    if a.is_cuda:
        for form in (*wgmma.DENSE_FORMS, dense.VARIANTS["flat"]):
            yield f"gemm {form.name}", dense.gemm(a, a_s, b, blocks, config=form)
            # several tiles a program, whose stores lie beside the products of the next
            yield f"gemm {form.name} 2 SMs", dense.gemm(a, a_s, b, blocks, config=form, sms=2)
    stacked, both = torch.stack([b.view(torch.uint8)] * 2).view(b.dtype), torch.stack([blocks] * 2)
    table = torch.arange(len(a) // TILE, device=a.device).int() % 2
    yield "grouped", groups.grouped_gemm(a, a_s, stacked, both, table)
    yield "grouped, blocks without a group", groups.grouped_gemm(a, a_s, stacked, both, table - 1)
    for name, sms in {"wgrad": None, **({"wgrad 2 SMs": 2} if a.is_cuda else {})}.items():
        out = torch.zeros(len(a), len(b), device=a.device)
        yield name, wgrad.wgrad_gemm(a, a_s, b, b_s, out, sms=sms)
    half = len(a) // 2
    counts = torch.tensor([half - 3, 1], dtype=torch.int32, device=a.device)
    parts = a.view(2, half, -1), a_s.unflatten(0, (2, half))
    yield "masked", groups.masked_gemm(*parts, stacked, both, counts).flatten(0, 1)


def _said(output: Tensor, exact: Tensor, sign: str) -> str:
    """Failures of one output."""
    output, exact = output.cpu(), exact.to(output.dtype)
    failures = list(compare.gate_bitwise(output, exact, raises=False).failures)
    if sign == "non-negative":
        failures += compare.gate(output, exact, bias=BIAS, raises=False).failures
    return "; ".join(failures)


def _signed(rows: int, depth: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, depth).to(torch.float8_e4m3fn), _scales(rows, depth)


def _positive(rows: int, depth: int) -> tuple[Tensor, Tensor]:
    return torch.rand(rows, depth).to(torch.float8_e4m3fn), _scales(rows, depth)


def _scales(rows: int, depth: int) -> Tensor:
    """float32 [rows, depth / 128], rows next to each other as the casts store them."""
    return (torch.rand(-(-depth // TILE), rows) + 0.5).t()
