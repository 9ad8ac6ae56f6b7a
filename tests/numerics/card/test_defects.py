"""Planted defects, each one change to the text of a kernel, and the checks that catch them."""

import importlib.util
import inspect

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from triton.runtime.interpreter import InterpreterBuilder, TensorHandle  # noqa: E402

from numerics.card import sums  # noqa: E402
from numerics.card.bench import differences  # noqa: E402
from numerics.kernels import attention, casts, e5m6, gemm, grouped  # noqa: E402
from numerics.reference import attention as plain_attention  # noqa: E402
from numerics.reference import casts as plain_casts  # noqa: E402
from numerics.reference import hopper  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()
pytestmark = pytest.mark.skipif(
    not interpreter.active(), reason="kernels are changed in the interpreter; this has a GPU"
)

SIZES = {"rows": 128, "columns": 136, "depth": 392}
"""Two tiles of columns, four blocks of K, the last of them short."""
STORED = "tl.store(pointers, tile.to(c.dtype.element_ty), mask=mask)"
PROMOTED = "total += tl.dot(x, tl.trans(y)) * factor[:, None]"
PRODUCTS = {
    "a row of zeros": (gemm, STORED, STORED.replace("tile.to", "tl.where(rows[:, None] == 5, 0.0, tile).to")),
    "a scale 3 % off": (gemm, "factor = scale *", "factor = 1.03 * scale *"),
    "the wrong scale of a in the last block of K": (
        gemm,
        "scale = tl.load(a_scales + block * stride_ask)\n            if COLUMN",
        "scale = tl.load(a_scales + tl.minimum(block, blocks - 2) * stride_ask)\n            if COLUMN",
    ),
    "the wrong scale of b in the last block of N": (gemm, "else col // 128) *", "else tl.minimum(col // 128, 0)) *"),
    "truncation to BF16": (
        gemm,
        STORED,
        STORED.replace("tile.to", "(tile.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True).to"),
    ),
    "no promotion": (
        gemm,
        PROMOTED,
        "total = tl.dot(x, tl.trans(y), total / factor[:, None]) * factor[:, None]",
    ),
    "a row of padding too many": (gemm, "(rows[:, None] < M)", "(rows[:, None] < M - 1)"),
    "an element of K too few": (gemm, "mask=k[None, :] < K,", "mask=k[None, :] < K - 1,"),
    "a row too many of an expert": (grouped, "rows[:, None] < filled", "rows[:, None] <= filled"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Products add as the tensor core does, and memory that nothing wrote holds NaN."""
    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def dot(self, a, b, d, *precision):
    """The interpreter's product of E4M3 operands, with the sums of numerics.reference.hopper."""
    if a.dtype.scalar not in interpreter.FP8:
        return interpreter.dot(self, a, b, d, *precision)
    left, right = (torch.from_numpy(interpreter.decode(x.data, x.dtype.scalar)) for x in (a, b))
    operands = (x.contiguous().to(torch.float8_e4m3fn) for x in (left, right.t()))
    return TensorHandle(hopper.wgmma(*operands, torch.from_numpy(d.data.copy())).numpy(), d.dtype.scalar)


def changed(module, old, new, folder):
    """A copy of a kernel's module with one change."""
    source = inspect.getsource(module)
    assert source.count(old) == 1
    path = folder / f"{module.__name__.rpartition('.')[2]}_changed.py"
    path.write_text(source.replace(old, new))
    specification = importlib.util.spec_from_file_location(path.stem, path)
    copy = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(copy)
    return copy


def test_the_kernels_are_the_model():
    assert {name: why for name, why in sums.differing("cpu", **SIZES) if why} == {}


@pytest.mark.parametrize("defect", PRODUCTS)
def test_a_product(defect, tmp_path, monkeypatch):
    module, old, new = PRODUCTS[defect]
    monkeypatch.setattr(sums, "groups" if module is grouped else "dense", changed(module, old, new, tmp_path))
    found = sums.differing("cpu", **SIZES)
    assert any(why for name, why in found if name.startswith(("masked", "grouped") if module is grouped else "gemm"))


def test_the_gate_alone_does_not_see_sums_that_are_not_promoted(tmp_path):
    """Why there is `sums`: with Gaussian operands the defect hides behind rounding to BF16."""
    copy = changed(*PRODUCTS["no promotion"], tmp_path)
    (a, a_s), (b, b_s) = sums._signed(128, 1024), sums._signed(128, 1024)
    exact = hopper.scaled_gemm(a, a_s, b, b_s[::128])
    assert not differences(copy.gemm(a, a_s, b, b_s[::128].contiguous()), exact, exact=False)


def test_a_cast(tmp_path):
    copy = changed(casts, "code, scale = quantize_tiles(value,", "code, scale = quantize_tiles(1.03 * value,", tmp_path)
    x = torch.randn(40, 300).bfloat16()
    assert not differences(casts.quantize_rows(x), plain_casts.quantize_rows(x), exact=True)
    assert differences(copy.quantize_rows(x), plain_casts.quantize_rows(x), exact=True)


ATTENTION = {
    "a mask off by one": (
        "o",
        "columns[None, :] <= rows[:, None] + T - S",
        "columns[None, :] < rows[:, None] + T - S + (rows[:, None] == 0)",
    ),
    "a sum that is not shrunk": ("o", "total = total * shrink + tl.sum(p, 1)", "total = total + tl.sum(p, 1)"),
    "statistics without their sum": ("lse", "(top + tl.log2(total)) / log2_e", "top / log2_e"),
    "delta 2 % off": ("dk", "tl.sum(x * y, 1)", "1.02 * tl.sum(x * y, 1)"),
    "dK not scaled": ("dk", "_write(dk, d0 * scale,", "_write(dk, d0,"),
    "dV of one head of those that share it": ("dv", "asking = head * SHARED + one", "asking = head * SHARED"),
    "dS without delta": ("dk", "tl.trans(g)) - mean[None, :])", "tl.trans(g)))"),
}


def attended(module, given, part):
    """o, lse or a gradient by a module."""
    q, k, v, do = given
    o, lse = plain_attention.attention(*(x.float() for x in (q, k, v)), 0.2)
    if part in ("o", "lse"):
        return module.attention(q, k, v, 0.2)[part == "lse"]
    found = module.attention_backward(do, q, k, v, o.to(q.dtype), lse, 0.2)
    return found[("dq", "dk", "dv").index(part)]


def wrong(module, part):
    """What a module's part differs by from the reference's."""
    torch.manual_seed(0)
    given = [torch.randn(2, 70, heads, d).bfloat16() for heads, d in ((4, 32), (2, 32), (2, 16), (4, 16))]
    wanted = attended(plain_attention, [x.float() for x in given], part)
    return differences(attended(module, given, part), wanted, exact=False, tolerance=1e-2)


@pytest.mark.parametrize("part", ["o", "lse", "dk", "dv"])
def test_attention_without_a_defect(part):
    assert not wrong(attention, part)


@pytest.mark.parametrize("defect", ATTENTION)
def test_attention(defect, tmp_path):
    part, old, new = ATTENTION[defect]
    assert wrong(changed(attention, old, new, tmp_path), part)


@pytest.mark.parametrize("old, new", [
    ("word // 3 * 4 + word % 3", "word // 3 * 4 + word % 2"),
    ("body + 0xFFFF + ((body >> 17) & 1)", "body + 0x10000"),
    ("(112 << 6)", "(113 << 6)"),
    ("", ""),
], ids=["words out of place", "ties away from zero", "an exponent off by one", "none"])  # fmt: skip
def test_e5m6(old, new, tmp_path):
    x = torch.randn(5, 384).bfloat16()
    module = changed(e5m6, old, new, tmp_path) if old else e5m6
    assert bool(differences(module.store_e5m6(x), plain_casts.store_e5m6(x), exact=True)) == bool(old)
