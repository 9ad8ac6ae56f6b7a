# ruff: noqa: N803, N806, RUF059 - M, N, K and constants are capitals; roles unpack what they share
"""How a program of numerics/kernels/wgmma.py walks tiles and slots: what its loader and its consumers must agree on."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

DENSE = gl.constexpr(0)
GROUPED = gl.constexpr(1)
MASKED = gl.constexpr(2)
WEIGHT = gl.constexpr(3)


@gluon.jit
def place(
    tile, table, sizes, MODE: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BAND: gl.constexpr,
    PAIR: gl.constexpr,
):  # fmt: skip
    """Where a tile lies: row of a and C, column, group, and rows that count.

    Tiles are walked in bands of BAND tile rows, down each band column by column: programs that run together share
    operands in L2. A pair of programs has neighbouring columns.
    """
    M, N, K, tiles_m, tiles_n, group_rows = sizes
    if PAIR:
        tiles_n = tiles_n // 2
    band = tile // (BAND * tiles_n)
    height = gl.minimum(tiles_m - band * BAND, BAND)
    within = tile % (BAND * tiles_n)
    tile_m = band * BAND + within % height
    tile_n = within // height
    if PAIR:
        tile_n = 2 * tile_n + gl.program_id(0) % 2
    row = tile_m * BLOCK_M
    group = 0
    filled = BLOCK_M
    if MODE == GROUPED:
        group = gl.load(table + row // 128)
        filled = gl.where(group >= 0, BLOCK_M, 0)
        group = gl.maximum(group, 0)
    elif MODE == MASKED:
        tiles_a_group = gl.cdiv(group_rows, BLOCK_M)
        group = tile_m // tiles_a_group
        first = tile_m % tiles_a_group * BLOCK_M
        row = group * group_rows + first
        filled = gl.load(table + group) - first
    return row, tile_n * BLOCK_N, group, filled


@gluon.jit
def walk(sizes, PAIR: gl.constexpr):
    """First tile of a program, number of tiles, and step from one to the next; of pairs of tiles for a pair."""
    M, N, K, tiles_m, tiles_n, group_rows = sizes
    blocks: gl.constexpr = 2 if PAIR else 1
    return gl.program_id(0) // blocks, tiles_m * tiles_n // blocks, gl.num_programs(0) // blocks


@gluon.jit
def advance(slot, phase, STAGES: gl.constexpr):
    """The slot after this one, and the phase of its barriers."""
    phase = gl.where(slot == STAGES - 1, phase ^ 1, phase)
    return gl.where(slot == STAGES - 1, 0, slot + 1), phase
