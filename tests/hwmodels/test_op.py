"""Arithmetic and traffic of operations, by hand for DeepSeek-V3's shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import formats, op
from hwmodels.op import AllToAll, Attention, Collective, Gemm, GroupedGemm, HostCopy, HostUpdate, Memory, Send

SIZES = st.integers(1, 64).map(lambda n: 128 * n)


def test_a_product_counts_multiply_and_add() -> None:
    assert Gemm(4096, 1536, 7168).flop() == 2 * 4096 * 1536 * 7168 == 90_194_313_216


@pytest.mark.parametrize(("gemm", "expected"), [
    (Gemm(4096, 1536, 7168), 4096 * 7168 + 7168 * 1536 + 2 * 4096 * 1536),
    (Gemm(4096, 256, 7168, "fprop", "bf16"), 2 * (4096 * 7168 + 7168 * 256) + 2 * 4096 * 256),
    (Gemm(7168, 2048, 4096, "wgrad"), 7168 * 4096 + 4096 * 2048 + (4 + 4) * 7168 * 2048),
])  # fmt: skip
def test_traffic_of_a_product(gemm: Gemm, expected: int) -> None:
    """Both operands once, the result once; a weight gradient reads and writes FP32."""
    assert gemm.bytes() == expected


@given(SIZES, SIZES, SIZES, st.sampled_from(["fp8", "bf16"]))
def test_one_group_is_a_plain_product(m: int, n: int, k: int, precision: str) -> None:
    grouped, plain = GroupedGemm(1, m, n, k, "fprop", precision), Gemm(m, n, k, "fprop", precision)
    assert (grouped.flop(), grouped.bytes()) == (plain.flop(), plain.bytes())


@given(st.integers(1, 32), SIZES, SIZES, SIZES)
def test_groups_share_rows_but_not_weights(groups: int, rows: int, n: int, k: int) -> None:
    many, one = GroupedGemm(groups, rows, n, k), GroupedGemm(1, rows, n, k)
    assert many.flop() == one.flop()
    assert many.bytes() - one.bytes() == (groups - 1) * n * k


def test_attention_of_v3() -> None:
    """128 heads, 4,096 tokens, causal: half the pairs; 0.687 and 1.787 TFLOP."""
    pairs = 4096 * 4096 // 2
    forward, backward = (Attention(d, 1, 128, 4096, 192, 128) for d in ("forward", "backward"))
    assert forward.flop() == 2 * 128 * pairs * (192 + 128) == 687_194_767_360
    assert backward.flop() == 2 * 128 * pairs * (3 * 192 + 2 * 128) == 1_786_706_395_136
    assert forward.bytes() == 4096 * 128 * 2 * (192 + 192 + 128 + 128)  # q, k, v in; o out


def test_grouped_queries_share_keys_and_values() -> None:
    """As many FLOPs; q, o, their gradients and dQ in FP32 by query heads, k, v and theirs by the 8 they share."""
    for direction, own, shared in (("forward", 2 * 256, 2 * 256), ("backward", 2 * 384 + 4 * 128, 2 * 256 + 2 * 256)):
        whole = Attention(direction, 1, 64, 4096, 128, 128)
        grouped = whole._replace(kv_heads=8)
        assert grouped.flop() == whole.flop()
        assert grouped.bytes() == 4096 * (64 * own + 8 * shared)
        assert whole._replace(kv_heads=64).bytes() == whole.bytes() == 4096 * 64 * (own + shared)


@given(st.integers(1, 8), st.integers(1, 128), st.integers(1, 8192))
def test_full_attention_is_twice_causal(batch: int, heads: int, sequence: int) -> None:
    for direction in ("forward", "backward"):
        causal = Attention(direction, batch, heads, sequence, 192, 128)
        assert causal._replace(causal=False).flop() == 2 * causal.flop()


@pytest.mark.parametrize(("found", "kind", "read", "write"), [
    (op.cast(4096, 7168), "cast", 14336, 7392),
    (op.cast_transpose(4096, 7168), "cast_transpose", 14336, 7392),
    (op.cast_transpose(4096, 7168, formats.PLAIN_E4M3), "recast_transpose", 7168, 7392),
    (op.dequantize(4096, 7168), "dequantize", 7392, 14336),
    (op.dequantize(4096, 16384, formats.E5M6_ROWS), "dequantize_e5m6", 25088, 32768),
    (op.store(4096, 16384, formats.E5M6_ROWS), "store_e5m6", 32768, 25088),
    (op.store(4096, 4096, formats.E4M3_ROWS), "store", 8192, 4224),
    (op.norm(4096, 7168, 2, 2), "norm_forward", 28672, 28672),
    (op.norm(4096, 7168, 5, 1, "backward"), "norm_backward", 71680, 14336),
    (op.elementwise(4096, 7168, 2), "elementwise", 28672, 14336),
    (op.copy(4096, 512), "copy", 1024, 1024), (op.copy(4096, 8192, reads=0), "broadcast", 0, 16384),
    (op.rope(4096, 64), "rope", 128, 128), (op.transpose_scales(4096, 7168), "scale_transpose", 224, 224),
    (op.small("routing_forward", 4096, 1024.0, 37), "routing_forward", 512, 512),
])  # fmt: skip
def test_memory_bound_kernels_of_v3(found: Memory, kind: str, read: float, write: float) -> None:
    assert (found.kind, found.rows, found.read, found.write) == (kind, 4096, read, write)
    assert found.bytes() == 4096 * (read + write)
    assert found.flop() == 0


def test_transposed_weights_move_once_each_way() -> None:
    found = op.transpose_weight(4096, 7168, formats.E4M3_BLOCKS, groups=4)
    assert found.bytes() == 2 * 4 * 4096 * 7168


@given(st.integers(1, 40_000), st.integers(1, 40_000))
def test_permuting_reads_tokens_and_writes_rows(tokens: int, rows: int) -> None:
    assert op.permute(tokens, rows, 7168).bytes() == pytest.approx(7168 * (tokens + rows))
    assert op.unpermute(tokens, rows, 7168).bytes() == pytest.approx(14336 * (rows + tokens))


DISPATCH = AllToAll("dispatch", "dispatch(F)", 4096, 7464.0, 3.96, 7.49, 64, 8)


def test_wire_bytes_leave_the_own_node_out() -> None:
    assert DISPATCH.logical_bytes() == pytest.approx(4096 * 3.96 * 7464)
    assert DISPATCH.wire_bytes() == pytest.approx(DISPATCH.logical_bytes() * 7 / 8)
    assert DISPATCH.nvlink_bytes() == pytest.approx(4096 * 7.49 * 7464 * 7 / 8)
    assert DISPATCH.bytes() == pytest.approx(4096 * 7.49 * 7464)


def test_on_one_node_nothing_is_on_the_wire() -> None:
    inside = DISPATCH._replace(group=8, group_nodes=1, nodes_reached=1.0, ranks_reached=5.3)
    assert inside.wire_bytes() == 0
    assert inside.nvlink_bytes() == pytest.approx(4096 * 5.3 * 7464 * 7 / 8)


def test_alone_a_rank_sends_nothing() -> None:
    alone = DISPATCH._replace(group=1, group_nodes=1, nodes_reached=1.0, ranks_reached=1.0)
    assert (alone.wire_bytes(), alone.nvlink_bytes()) == (0, 0)


@given(st.integers(2, 4096), st.floats(1, 1e12))
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(ranks: int, size: float) -> None:
    each = {k: Collective(k, size, ranks, 1).bytes() for k in ("reduce_scatter", "all_gather", "all_reduce")}
    assert each["all_reduce"] == each["reduce_scatter"] + each["all_gather"]
    assert each["all_gather"] == each["reduce_scatter"] == pytest.approx(size * (ranks - 1) / ranks)


def test_what_does_not_calculate_has_no_flop() -> None:
    others = (DISPATCH, Send(8.0, True, False), Collective("all_gather", 8.0, 2, 1), HostCopy(8.0), HostUpdate(7.0))
    assert [o.flop() for o in others] == [0.0] * 5
    assert [o.bytes() for o in others[1:] if not isinstance(o, Collective)] == [8.0, 8.0, 7.0]


def test_a_window_limits_the_keys_of_a_query():
    """Causal: the first `window` queries see half of them on average, all others all; as wide as the sequence it is
    none, and it never adds work."""
    for direction, widths in (("forward", 128), ("backward", 3 * 64 + 2 * 64)):
        narrow = Attention(direction, 2, 8, 4096, 64, 64, window=128)
        assert narrow.flop() == 2.0 * 2 * 8 * (128 * 4096 - 128 * 128 / 2) * widths
        assert narrow._replace(causal=False).flop() == 2.0 * 2 * 8 * 128 * 4096 * widths
        for window in (0, 4096, 10_000):
            assert narrow._replace(window=window).flop() == 2.0 * 2 * 8 * 4096 * 4096 / 2 * widths


@given(st.integers(1, 6), st.integers(1, 4), st.sampled_from(["forward", "backward"]), st.integers(0, 40))
def test_blocks_of_queries_add_up_to_whole_attention(blocks: int, size: int, direction: str, window: int) -> None:
    """A block sees its own keys and those of all before it; pairs of all blocks are those of the whole sequence."""
    size *= 2
    whole = Attention(direction, 2, 4, blocks * size, 64, 32, window=window)
    parts = [whole._replace(sequence=size, keys=size * (number + 1)) for number in range(blocks)]
    assert sum(part.flop() for part in parts) == pytest.approx(whole.flop())
    assert parts[0].flop() == whole._replace(sequence=size).flop()
    square = [whole._replace(sequence=size, keys=3 * size, causal=False, window=0)._replace(batch=n) for n in (2, 4)]
    assert square[1].flop() == 2 * square[0].flop() == 2 * 3 * square[0]._replace(keys=size).flop()


def test_keys_that_are_not_the_queries_are_read_as_they_are() -> None:
    q, kv, out = 1024 * 8 * 64 * 2, 4096 * 2 * 64 * 2, 1024 * 8 * 64 * 2
    assert Attention("forward", 1, 8, 1024, 64, 64, kv_heads=2, keys=4096).bytes() == q + out + 2 * kv


def test_bytes_over_nvlink_and_over_nics() -> None:
    """A ring of 16 on 2 nodes passes all of it over NVLink, and an eighth a NIC; one rank a node has no NVLink. What
    goes to each rank by itself takes the one or the other."""
    ring = Collective("all_gather", 1600.0, 16, 2)
    assert (ring.nvlink_bytes(), ring.wire_bytes()) == (1500.0, 187.5)
    assert Collective("all_gather", 1600.0, 16, 16).nvlink_bytes() == 0
    each = Collective("all_to_all", 1600.0, 16, 2)
    assert (each.nvlink_bytes(), each.wire_bytes()) == (700.0, 800.0)
    assert [Send(5.0, far, False).nvlink_bytes() for far in (False, True)] == [5.0, 0.0]


def test_no_operation_equals_one_of_another_kind() -> None:
    """Prices are kept by operation, and named tuples of equal values are equal whatever their kind."""
    assert HostCopy(28e6) != HostUpdate(28e6)
