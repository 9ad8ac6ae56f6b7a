import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import push as kernels  # noqa: E402
from numerics.kernels.compile import compiler_available  # noqa: E402
from numerics.kernels.launches import variants  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()

BLOCK = 2 * kernels.LANES * kernels.WORDS


def words(blocks):
    return torch.arange(blocks * BLOCK).mul(0x9E3779B97F4A7C15 - (1 << 64))


@pytest.mark.parametrize("blocks, sms", [(1, 1), (1, 4), (7, 3), (8, 2)])
def test_every_word_arrives(blocks, sms):
    source = words(blocks)
    target = torch.full_like(source, -1)
    kernels.push(source, target, sms, rounds=2, warps=2)
    assert torch.equal(target, source)


@pytest.mark.parametrize("source, target", [
    (words(1)[1:], words(1)[1:]), (words(2), words(1)), (words(1).int(), words(1).int()),
])  # fmt: skip
def test_other_than_whole_blocks_of_int64_is_refused(source, target):
    with pytest.raises(ValueError, match=f"int64 in multiples of {BLOCK}"):
        kernels.push(source, target, 1, warps=2)


def on_meta(call):
    source = torch.empty(BLOCK * 64, dtype=torch.int64, device="meta")
    (launch,) = variants(lambda: call(source))
    return launch


@pytest.mark.parametrize("rate", [0.0, 60.0])
def test_only_a_rate_is_paced(rate):
    assert on_meta(lambda x: kernels.push(x, x, 20, gb_per_s=rate)).constants["paced"] == bool(rate)


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
@pytest.mark.parametrize("rate", [0.0, 60.0])
def test_code_moves_16_bytes_a_thread_and_spills_nothing(rate):
    report = on_meta(lambda x: kernels.push(x, x, 20, gb_per_s=rate)).compile()
    assert report.spills == 0
    assert report.sass.count("LDG.E.128") == report.sass.count("STG.E.128") == kernels.WORDS // 2
    assert ("SR_GLOBALTIMERLO" in report.sass) == bool(rate)


@pytest.mark.skipif(not compiler_available(), reason="Triton's assembler and disassembler are not here")
def test_holding_reads_the_clock_in_its_loop():
    out = torch.empty(20, dtype=torch.int32, device="meta")
    (launch,) = variants(lambda: kernels.hold(out, 20, 1000))
    assert launch.compile().sass.count("SR_GLOBALTIMERLO") == 2
