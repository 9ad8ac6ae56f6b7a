"""Copies beside compute, on two CPU processes; where all ranks may write a rank's memory, also into the next one's."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from numerics.card import node_copies  # noqa: E402
from tests.numerics.card import ranks  # noqa: E402


def test_a_copy_to_the_next_rank_lands_in_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 of two: the next is 0. Its memory is longer than the copy."""
    memories = [torch.full((4,), -1) for _ in range(2)]
    monkeypatch.setattr(node_copies, "dist", SimpleNamespace(get_rank=lambda: 1, get_world_size=lambda: 2))
    window = SimpleNamespace(of=memories.__getitem__)
    copies = dict(node_copies.copies(16, "cpu", window))  # type: ignore[arg-type]
    assert list(copies) == ["to_next", "to_host", "from_host", "within"]
    copies["to_next"]()
    assert [each.tolist() for each in memories] == [[0, 0, -1, -1], [-1] * 4]


def test_two_processes_copy_alone_and_beside_a_kernel(tmp_path: Path) -> None:
    ranks.run(2, "numerics.card.node_copies", "--device", "cpu", "--out", str(tmp_path), said=tmp_path / "said")
    told = json.loads((tmp_path / "node_copies.json").read_text())
    assert [row["copy"] for row in told["alone"]] == ["to_host", "from_host", "within"]
    assert [row["kernel"] for row in told["beside"]] == ["fprop"] * 3 and told["about"]["world"] == 2
