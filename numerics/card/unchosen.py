"""What nothing chooses until a card has run it: products by pairs of programs (numerics/kernels/cluster.py).

    python -m numerics bench --only pairs
times them; no whole bench does.
"""

from collections.abc import Iterator

from hwmodels.op import Gemm
from numerics.card.workload import ROWS, WEIGHTS, Case, Work, codes, row_scales, scales, tiles


def pairs() -> Iterator[Case]:
    """Of V3's six shapes. Their gate: the bits of the form without a pair."""
    rows = ROWS[-1]
    for n, k in WEIGHTS:
        op = Gemm(rows, n, k)
        yield Case("pairs", f"{rows}x{n}x{k}", op.flop(), op.bytes(), lambda d, s=(rows, n, k): _pairs(d, *s))


def _pairs(device: str, m: int, n: int, k: int) -> Work:
    from numerics.kernels import gemm as kernels
    from numerics.kernels import wgmma

    a, b = codes(device, m, k), codes(device, n, k)
    a_s, b_s = row_scales(device, m, tiles(k)), scales(device, tiles(n), tiles(k))
    forms = [form._replace(pair=pair) for form in wgmma.DENSE_FORMS for pair in (False, True)]
    calls = {form.name: lambda c=form: kernels.gemm(a, a_s, b, b_s, config=c) for form in forms}
    return Work(calls, lambda: kernels.gemm(a, a_s, b, b_s), exact=True)
