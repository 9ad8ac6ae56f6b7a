"""What further runs of a card leave for a library's table: calls that torch makes by itself, and updates of zeros."""

import json
from pathlib import Path

import pytest

from numerics.tables import further


def left(folder: Path, name: str, *rows: dict) -> None:
    (folder / name).write_text(json.dumps({"rows": rows}))


def test_nothing_comes_of_a_run_that_left_nothing(tmp_path):
    assert further.files(tmp_path) == [] and further.wider(tmp_path) == [] and list(further.zeros(tmp_path)) == []


def test_calls_of_other_kernels_and_skewed_groups_are_left_out(tmp_path):
    names = ("CUDNN_ATTENTION forward", "FLASH_ATTENTION forward", "_flash_attention_backward")
    left(tmp_path, "heads.json", *({"name": name, "us": 1.0} for name in names), {"name": "CUDNN x", "refused": "no"})
    left(
        tmp_path,
        "experts.json",
        {"name": "_grouped_mm fprop", "us": 2.0},
        {"name": "_grouped_mm fprop skewed", "us": 3.0},
    )
    assert [row["us"] for row in further.wider(tmp_path)] == [1.0, 2.0]
    assert [path.name for path in further.files(tmp_path)] == ["heads.json", "experts.json"]


def test_products_by_block_are_of_a_role_of_their_own(tmp_path):
    """Those that no kernel takes are left out."""
    left(tmp_path, "blocks.json", {"role": "dgrad", "us": 1.0}, {"role": "wgrad_bf16", "refused": "no"})
    assert [row["role"] for row in further.blocks(tmp_path)] == ["dgrad by block"]
    assert [path.name for path in further.files(tmp_path)] == ["blocks.json"]


def test_an_update_of_zeros_is_a_full_launch_between_its_two_states(tmp_path):
    row = {"rows": 4 * further.LAUNCH, "read": 8.0, "write": 6.0, "us": 800.0, "low_us": 780.0, "high_us": 820.0,
           "samples": 7, "after": {"us": 882.0}}  # fmt: skip
    whole, half = (f"AdamW one tensor, fused, 2 bytes, {part} unseen" for part in (1.0, 0.5))
    left(tmp_path, "optimizers.json", row | {"name": whole}, row | {"name": half})
    (made,) = further.zeros(tmp_path)
    assert made["kind"] == "adam_unseen" and made["rows"] == further.LAUNCH
    assert made["us"] == pytest.approx((200 * 220.5) ** 0.5, rel=1e-3) and made["loaded_us"] == 220.5
