"""Which kind of launch file a file is; what is none is a line."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.scenario.launchers import reasons
from sim.scenario.launchers.machine import Hosts, Machine, cluster
from tests.sim.scenario.launchers.launched import DENSE, FIXTURES, imported

KINDS = {
    "llama3_70b.sh": "Megatron-LM arguments", "mixture.sh": "Megatron-LM arguments",
    "dense_1b.args": "Megatron-LM arguments", "bridge.yaml": "a Megatron-Bridge or NeMo recipe",
    "nemo.yaml": "a Megatron-Bridge or NeMo recipe", "llama3_70b.toml": "a torchtitan job",
    "deepseek.toml": "a torchtitan job",
}  # fmt: skip

HOSTILE: dict[str, bytes] = {
    "empty": b"", "blank": b"\n \n", "binary": bytes(range(256)), "zeros": b"\0" * 64, "latin": b"--num-layers \xe9",
    "list": b"- 1\n- 2\n", "scalar": b"hello", "python": b"import torch\ncfg = 1\n",
    "yaml in disorder": b"model: {a: 1\ntrain: 2", "tag": b"model: !!python/object:os.system {}\ntrain: {}",
    "aliases": b"a: &a [1]\nmodel: [*a, *a]\ntrain: {}",
    "sections that are lists": b"model: [1]\ntrain: [2]\n",
    "sections of nothing": b"model:\ntrain:\n",
    "deep": b"model: " + b"{a: " * 80 + b"1" + b"}" * 80 + b"\ntrain: {}",
    "toml in disorder": b"[parallelism]\n[model\nx", "toml of lists": b"[[training]]\nx=1\n[[parallelism]]\ny=1\n",
    "toml of numbers": b"[training]\nseq_len = 1e400\n[parallelism]\n", "toml deep": b"[training]\na = " + b"[" * 5000,
    "a scenario": b"cluster: {node: h100x8, nodes: 1}\nbatch: {sequences: 1}\n",
    "a config.json": b'{"architectures": ["LlamaForCausalLM"], "hidden_size": 1}',
    "quotes": b"pretrain.py --num-layers 8 --hidden-size '",
    "loops": b"while true; do --num-layers --hidden-size; done",
    "growth": b"A=--num-layers\n" + b"A=$A$A\n" * 40 + b"x.py $A --hidden-size 1\n",
    "flags without values": b"x.py --num-layers --hidden-size --micro-batch-size\n",
    "inside": b"bash -c \"bash -c 'bash -c \\\"python x.py --num-layers\\\"'\"",
    "brackets": b"x.py --num-layers $((((((1)))))) --hidden-size $((1/0))\n", "bom": b"\xef\xbb\xbf--num-layers",
    "minus": b"--num-layers -8 --hidden-size -1 --seq-length 5", "long": b"#" * (1 << 19),
    "numbers": DENSE.replace("1024", "1" * 5000).encode(),
    "nan": DENSE.replace("--hidden-dropout 0", "--hidden-dropout nan").encode(),
    "null heads": b"model: {hidden_size: 8, num_attention_heads: null, num_layers: 2}\ntrain: {micro_batch_size: 1}",
    "null layers": b"model: {hidden_size: 8, num_attention_heads: 2, num_layers: null}\ntrain: {micro_batch_size: 1}",
    "one moment": (DENSE + "--use-precision-aware-optimizer --exp-avg-dtype bf16").encode(),
    "a value of lines": (DENSE + "--tensor-model-parallel-size ${\n  :-8}").encode(),
    "no heads": DENSE.replace("attention-heads 16", "attention-heads 99999").encode(),
    "wide": DENSE.replace("hidden-size 1024", "hidden-size 2147483648").encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(KINDS))
def test_content_says_the_kind(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"  # without an ending
    path.write_bytes((FIXTURES / name).read_bytes())
    assert imported(path, nodes=8).kind == KINDS[name]


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_files_are_a_line_or_a_scenario(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(HOSTILE[name])
    try:
        found = imported(path, nodes=4)
    except Refused as refused:
        assert "\n" not in str(refused) and str(path) in str(refused)
    else:
        assert found.scenario["cluster"] == {"node": "h100x8", "nodes": 4}


@given(st.text(st.sampled_from("--num-layers 8\n hidden_size:=[]{}()$\"'#&!*|<>model train.toml"), max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_line_or_a_scenario(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8")
    try:
        imported(path, nodes=4)
    except Refused as refused:
        assert str(refused).startswith(str(path))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_line_less_is_a_line_or_a_scenario(name: str, tmp_path: Path) -> None:
    """Whatever line of a launch file is missing."""
    lines = (FIXTURES / name).read_text().splitlines()
    path = tmp_path / "file"
    for i in range(0, len(lines), 2):
        path.write_text("\n".join(lines[:i] + lines[i + 1 :]), encoding="utf-8")
        try:
            imported(path, nodes=8)
        except Refused as refused:
            assert str(path) in str(refused)


def test_a_folder_and_a_missing_file_are_a_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(Refused, match="cannot be read"):
            imported(path)


@pytest.mark.parametrize(
    ("machine", "hosts", "world", "keys", "gpus"),
    [
        (Machine("h100x8"), Hosts(4, 8), 0, {"node": "h100x8", "nodes": 4}, 32),
        (Machine("h100x8"), Hosts(4), 0, {"node": "h100x8", "nodes": 4}, 32),
        (Machine("h100x8"), Hosts(2, 4), 0, {"node": {"base": "h100x8", "gpus": 4}, "nodes": 2}, 8),
        (Machine("h100x8", 16, "ndr"), Hosts(4, 4), 0, {"node": "h100x8", "nodes": 16, "fabric": "ndr"}, 128),
        (Machine("h100x8"), Hosts(), 12, {"node": {"base": "h100x8", "gpus": 6}, "nodes": 2}, 12),
        (Machine("gb200x72"), Hosts(64, 4), 0, {"node": {"base": "gb200x72", "gpus": 64}, "nodes": 4}, 256),
        (Machine("gb200x72"), Hosts(16, 4), 0, {"node": {"base": "gb200x72", "gpus": 64}, "nodes": 1}, 64),
    ],
)
def test_hosts_become_nodes(machine: Machine, hosts: Hosts, world: int, keys: dict[str, object], gpus: int) -> None:
    assert cluster(machine, hosts, world, "file") == (keys, gpus)


@pytest.mark.parametrize(
    ("around", "hosts", "gpus"),
    [
        ("torchrun --nproc_per_node 8 --nnodes 4 x.py", 4, 8),
        ("torchrun --nproc-per-node=8 x.py", 1, 8),
        ("torchrun x.py", 1, 1),
        ("python -m torch.distributed.launch --nproc_per_node=4 --nnodes=2 x.py", 2, 4),
        ("srun -N 4 --ntasks-per-node=1 torchrun --nproc_per_node 8 x.py", 4, 8),
        ("srun -n 4 torchrun --nproc_per_node 8 x.py", 4, 8),
        ("srun -n 64 --ntasks-per-node=8 python x.py", 8, 8),
        ("srun --nodes=2 --gpus-per-node=h100:8 python x.py", 2, 8),
        ("mpirun -np 32 python x.py", 4, 8),
        ("srun -N 2 --ntasks-per-node 4 bash -c 'python x.py {}'", 2, 4),
    ],
)
def test_launchers_say_where_a_job_runs(around: str, hosts: int, gpus: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(around.format(DENSE) if "{}" in around else f"{around} {DENSE}", encoding="utf-8")
    node = "h100x8" if gpus == 8 else {"base": "h100x8", "gpus": gpus}
    assert imported(path).scenario["cluster"] == {"node": node, "nodes": hosts}


def test_directives_of_slurm_count_where_commands_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(f"#SBATCH --nodes=6\n#SBATCH --gres=gpu:h100:8\nsrun python x.py {DENSE}", encoding="utf-8")
    assert imported(path).scenario["cluster"] == {"node": "h100x8", "nodes": 6}


@pytest.mark.parametrize(
    ("machine", "hosts", "line"),
    [
        (Machine(""), Hosts(4, 8), "says no machine; add --node NAME, one of"),
        (Machine("h100"), Hosts(4, 8), "--node: unknown node 'h100', did you mean"),
        (Machine("h100x8", fabric="ndrr"), Hosts(4, 8), "--fabric: unknown fabric 'ndrr', did you mean 'ndr'?"),
        (Machine("h100x8"), Hosts(0, 8), "does not say on how many nodes it runs; add --nodes N, of h100x8"),
        (Machine("h100x8"), Hosts(0, 8, "$N"), "does not say on how many nodes it runs ($N is not set in it)"),
        (Machine("h100x8"), Hosts(1, 16), "runs on 16 GPUs a node; h100x8 has 8"),
        (Machine("gb200x72"), Hosts(4), "does not say on how many nodes it runs"),
    ],
)
def test_a_machine_that_is_not_said_is_a_line(machine: Machine, hosts: Hosts, line: str) -> None:
    with pytest.raises(Refused) as refused:
        cluster(machine, hosts, 0, "file")
    assert line in str(refused.value)


def test_reasons_are_one_each() -> None:
    """No name stands in two places, so that none is told twice in different words."""
    names = [name for _, text in reasons.IDLE for name in text.split()]
    assert len(names) == len(set(names)) and not set(names) & set(reasons.MUTE)
    assert reasons.why("hiden_dropout", ["hidden_dropout"], "--{}").startswith(
        "is not known, did you mean --hidden-dropout?"
    )
