"""What `python -m numerics calibrate --node` runs."""

from pathlib import Path

from numerics.card import node_runs, node_traffic


def test_steps_are_timed_over_each_power_of_two_and_the_rest_over_all() -> None:
    lines = [" ".join(words[3:]) for words in node_runs.programs(Path("out"), 8)]
    assert [line.split()[1] for line in lines if "node_steps" in line] == ["2", "4", "8"]
    others = [line for line in lines if "node_steps" not in line]
    assert len(others) == 4 and all(line.startswith("--nproc-per-node 8 ") for line in others)
    (routed,) = (line for line in lines if "node_routed" in line)
    assert "--tokens=v3=out/tokens_v3.json --tokens=qwen3-30b=out/tokens_qwen3-30b.json" in routed


def test_tokens_of_both_shapes_are_drawn_for_as_many_ranks(tmp_path: Path) -> None:
    files = node_runs.tokens(tmp_path, 4)
    assert [node_traffic.read(file, 4).tokens for file in files] == [4096, 8192]
