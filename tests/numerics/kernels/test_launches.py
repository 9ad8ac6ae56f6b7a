import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402
from triton.tools.tensor_descriptor import TensorDescriptor  # noqa: E402

from numerics.kernels.launches import recorded, variants  # noqa: E402


@triton.jit
def _example(x, y, n, one, scale, flag, WIDTH: tl.constexpr):  # noqa: N803
    pass


def launch(n=32, dtype=torch.float32, width=16, **options):
    x = torch.empty(n, dtype=dtype, device="meta")
    _example[(1,)](x, None, n, 1, 0.5, True, WIDTH=width, **options)


def test_arguments_are_typed_as_a_launch_would():
    (found,) = variants(lambda: launch(num_warps=8))
    assert found.signature == {"x": "*fp32:16", "n": "i32:16", "one": "i32:1", "scale": "fp32"}
    assert found.constants == {"y": None, "flag": True, "WIDTH": 16}
    assert found.options == {"num_warps": 8}


def test_numbers_specialise_by_divisibility_and_size():
    found = [variants(lambda n=n: _example[(1,)](None, None, n, 1, 0.5, True, 16))[0].signature["n"] for n in (
        1, 16, 17, 2**31)]  # fmt: skip
    assert found == ["i32:1", "i32:16", "i32", "i64:16"]


def test_descriptors_are_typed_by_their_box():
    x = torch.empty(64, 256, dtype=torch.float8_e4m3fn, device="meta")
    box = TensorDescriptor(x, list(x.shape), list(x.stride()), [32, 128])
    (found,) = variants(lambda: _example[(1,)](box, None, 1, 1, 0.5, True, 16))
    assert found.signature["x"] == "tensordesc<fp8e4nv[32, 128]>"


def test_equal_launches_are_one_variant():
    def calls():
        launch(32)
        launch(64)
        launch(33)
        launch(32, width=8)
        launch(32, num_warps=8)

    with recorded() as every:
        calls()
    assert len(every) == 5 and len(variants(calls)) == 4


def test_what_has_no_type_is_named():
    with pytest.raises(TypeError, match="x: no type for"):
        variants(lambda: _example[(1,)](object(), None, 1, 1, 0.5, True, 16))
