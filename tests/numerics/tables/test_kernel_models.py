"""Tables of library kernels on other cards: made of kernels' times alone, the same every time."""

import json
import math
from pathlib import Path

import pytest

from hwmodels import kernels
from hwmodels.op import Attention
from hwmodels.tables import FOLDER
from hwmodels.tiles import Tiles
from numerics import __main__ as cli
from numerics.tables import kernel_models, provenance, published
from numerics.tables.attention_models import carried_us, parabola
from numerics.tables.left_out import apart, covering, errors
from numerics.tables.product_models import clock
from numerics.tables.published import Card
from numerics.tables.tile_fit import Burst, times_us
from tests.numerics.tables.test_published import folder

DATA = cli.ROOT / cli.DATA
A100, B200 = (next(card for card in published.CARDS if card.name == name) for name in ("A100", "B200"))
TILES = Tiles(3.0, 0.7, 0.05, 0.5, 0.4, 0.6)
SIDES = [(m, n, k) for m in (1024, 4096, 16384) for n in (1024, 2048, 8192) for k in (1024, 4096, 8192)]


def gemm(card: Card, metered: float = 0.0) -> list[str]:
    """Products of a card, a metered one so many times as long."""
    rows = published.times([(*each, 1.0) for each in SIDES], "bf16")
    us = times_us(TILES, rows, card.used("bf16"))
    return [
        f"{card.name},bf16,{m},{n},{k},{one:.4f},,{one * metered if metered else ''},,a"
        for (m, n, k), one in zip(SIDES, us, strict=True)
    ]


def small(path: Path) -> Path:
    """A folder of what two cards do."""
    heads = [
        f"A100,fwd,{heads},{heads},128,128,1,{length},1,{1.2 * carried(heads, length):.4f},t00"
        for heads in (8, 16, 32) for length in (8192, 16384)
    ]  # fmt: skip
    h200 = [line.replace("A100", "H200") for line in heads]
    back = "B200,grouped,8,1024,4096,4096,100,100,{},"
    size = 8 * 4096 * 4096 * 8 / 8e12 * 1e6
    srcs = ["a,A100,bf16,sglang,1,linear,dev,p,c,Apache-2.0", "t00,A100,bf16,sglang,1,fa,dev,p,c,Apache-2.0",
            "l0,A100,,Liger,1,triton,dev,p,c,BSD-2-Clause"]  # fmt: skip
    memory = [f"A100,rope,fwd,liger 0.2,{rows},8192,bf16,{rows / 100 + 5},,l0,{0.8 * (rows / 100) / (rows / 100 + 5)},"
              for rows in (8192, 16384)]  # fmt: skip
    return folder(path, gemm=gemm(A100), attention=[*heads, *h200], gemm_backward=[back.format(100 + 0.5 * size)],
                  memory=memory, sources=srcs)  # fmt: skip


def carried(heads: int, length: int) -> float:
    return carried_us(A100.device, Attention("forward", 1, heads, length, 128, 128))


def test_a_table_says_what_made_the_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only kernels' files are there: no training run, no step."""
    monkeypatch.setattr(kernel_models, "CARDS", (A100,))
    table = kernel_models.made(small(tmp_path))["a100"]
    own = kernels.read(table)
    assert own.products["bf16"].clock == 1.0 and table["rows"][0]["errors"]["median"] < 0.02
    assert own.heads[0].times == pytest.approx(1.2, rel=0.01) and abs(own.heads[0].slope) < 0.01
    assert own.accumulate == pytest.approx(0.5, rel=0.01) and own.streams["others"].part == pytest.approx(0.8, rel=0.01)
    assert own.devices == ("A100 SXM 80 GB", "A100 SXM 40 GB")
    said = table["provenance"]
    assert said["inputs"] == {name: provenance.digest_of(tmp_path / name) for name in published.FILES}
    assert any("Apache-2.0" in source for source in said["sources"])
    assert kernel_models.made(tmp_path)["a100"] == table
    assert not any(file.startswith("sim/") for file in said["program"]["files"])


def test_metered_products_say_the_clock(tmp_path: Path) -> None:
    rows = published.lines(folder(tmp_path, gemm=gemm(B200, 1.2)))
    assert clock(rows, B200, "bf16", TILES, Burst(0.3, 500.0)) == pytest.approx(1.2, rel=0.01)
    other = Card(("b300",), "another")
    assert clock(rows, other, "bf16", TILES, Burst(0.3, 500.0)) == pytest.approx(1.3)
    assert clock(rows, A100, "bf16", TILES, Burst(0.3, 500.0)) == 1.0


def test_a_spread_covers_nine_of_ten() -> None:
    offs = [x / 100 for x in range(-50, 50)]
    spread = covering(offs)
    found = errors(offs, spread)
    assert 0.9 <= found["covered"] <= 0.92 and found["rows"] == 100
    assert apart(1.0, math.exp(2 * 1.645 * 0.1)) == pytest.approx(0.1)
    assert parabola([(x, 1 + 2 * x + 3 * x * x) for x in (-1.0, 0.0, 1.0, 2.0)]) == pytest.approx((1, 2, 3))


def test_the_command_writes_a_table_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tables", "--data", str(tmp_path)]) == cli.WRONG
    error = capsys.readouterr().err.strip()
    assert "has no gemm.csv and no" in error and "\n" not in error


@pytest.mark.parametrize("file", sorted(FOLDER.glob(f"*/*/{kernels.FILE}")), ids=lambda file: file.parent.parent.name)
def test_committed_tables_say_where_they_come_from_and_how_far_they_are_off(file: Path) -> None:
    """Products at most 5 % in the median, 7 % in FP8; attention 8 %; or a spread that covers nine of ten."""
    table = json.loads(file.read_text())
    assert table["provenance"]["sources"] and set(table["provenance"]["inputs"]) == set(published.FILES)
    for row in table["rows"]:
        errors = row.get("errors")
        if errors and errors["rows"] >= 100:
            most = 0.08 if row["op"] == "attention" else 0.07 if row["precision"] == "fp8" else 0.05
            assert errors["median"] <= most, row
        assert not errors or errors["covered"] >= 0.875, row
        assert errors or row["spread"] >= 0.15, row


@pytest.mark.skipif(not DATA.is_dir(), reason="the published tables are not part of the project")
def test_committed_tables_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two cards that are quickest to fit; byte for byte, but for the program's own digests."""
    monkeypatch.setattr(kernel_models, "CARDS", tuple(card for card in published.CARDS if card.name in ("H20", "A100")))
    for device, table in kernel_models.made(DATA).items():
        there = json.loads((FOLDER / device / "torch" / kernels.FILE).read_text())
        assert json.loads(json.dumps(table["rows"])) == there["rows"] and table["fit"] == there["fit"]
