"""What the keys of machine documents mean, for the schema of scenarios and docs/REFERENCE.md."""

from collections.abc import Mapping

MEMORY = {
    "capacity": "Bytes",
    "latency": "Time to the first byte of a load",
    "bandwidth": "Bytes a second, streaming,",
}
LEVELS = {
    "registers": "of the registers of an SM",
    "shared_memory": "of the shared memory and L1 cache of an SM",
    "l2": "of the second-level cache, of all dies",
    "l3": "of a third-level cache, which all dies share; left out where there is none",
    "hbm": "of the device's memory",
    "host": "of the host's memory, for one GPU",
}
LINK = {
    "bandwidth": "Nominal bytes a second in one direction,",
    "efficiency": "Part of it that large transfers reach, 0 to 1,",
    "latency": "Time from end to end,",
}
LINKS = {
    "nvlink": "between GPUs of a node, of each GPU",
    "nic": "of each NIC",
    "pcie": "between a GPU and its host",
}

DEVICE: dict[str, str] = {
    "name": "What the GPU is called.",
    "architecture": "Its generation, such as hopper.",
    "tables": "Folder of hwmodels/tables with its measured times.",
    "siblings": "Devices whose tables are carried over, in order, where it has none for a kind of kernel.",
    "dies": "Compute dies; descriptive; left out, one.",
    "sms": "Streaming multiprocessors.",
    "clock": "Boost clock of the SMs.",
    "power": "Power limit, which sets the clock under sustained load; left out: as the card's whose tables price it.",
    "spread": "Relative standard deviation of such cards' speed at products; the slowest counts. Left out: 0.",
    "peak_flops.fp8": "Dense FLOP/s of FP8 tensor cores; left out where there are none.",
    "peak_flops.bf16": "Dense FLOP/s of BF16 tensor cores.",
    "peak_flops.tf32": "Dense FLOP/s of TF32 tensor cores.",
    "peak_flops.mxfp8": "Dense FLOP/s in E4M3 with a scale for 32 elements; left out where tensor cores take none.",
    "peak_flops.nvfp4": "Dense FLOP/s in E2M1 with a scale for 16 elements; left out where there are none.",
    "peak_flops.fp32": "FLOP/s of FP32 lanes.",
    **{f"{level}.{key}": f"{what} {of}." for level, of in LEVELS.items() for key, what in MEMORY.items()},
    "timed_cache": "Bytes of the last cache of the card whose kernels were timed; left out: as that of the base.",
    **{
        f"hierarchy.{level}.{key}": f"{what} of {level}."
        for level in ("shared_memory", "l2", "l3")
        for key, what in (
            ("technology", "What if: sram, edram or stt_mram (docs/HIERARCHY.md), instead of the SRAM"),
            ("capacity", "What if: bytes, with latency and bandwidth that follow,"),
        )
    },
}
"""Dotted key of a device -> a sentence."""

NODE: dict[str, str] = {
    "name": "What the server is called.",
    "device": "Its GPU: a name in hwmodels/devices, or {base: name, ...} with what differs.",
    "gpus": "GPUs of a node, which is an NVLink domain.",
    "nics_per_gpu": "NICs of each GPU.",
    **{f"{link}.{key}": f"{what} {of}." for link, of in LINKS.items() for key, what in LINK.items()},
    "launch.forward": "Time of the host for an operation that launches one elementwise kernel, forward.",
    "launch.backward": "The same backward; left out, both are as on an H200's host.",
    "nvlink.name": "What its maker calls it; left out: NVLink.",
    "nvlink.peers": "GPUs that share its bandwidth, each by a link of its own (a full mesh); left out: a switch.",
}
"""Dotted key of a node -> a sentence."""

FABRIC: dict[str, str] = {
    "name": "What the network is called.",
    "kind": "fat-tree, slim-fly or dragonfly: how a plane is wired, and which of the keys below it has.",
    "planes": "Equal networks side by side; NIC number p of a node is on plane p, or all are on one.",
    "nics_per_leaf": "NICs of a node on the same leaf switch.",
    "radix": "Ports of a switch.",
    "link.bandwidth": "Nominal bytes a second of a port in one direction.",
    "link.efficiency": "Part of that which large transfers reach, 0 to 1.",
    "latency_same_leaf": "Time from NIC to NIC through one leaf switch, NICs included.",
    "latency_cross_leaf": "Time from NIC to NIC through a spine switch, NICs included.",
    "cost.switch": "US dollars for a switch; cost may be left out.",
    "cost.link": "US dollars for a cable between switches.",
    "cost.endpoint": "US dollars for the cable and NIC of an endpoint.",
    "layers": "Layers of switches of a fat tree.",
    "oversubscription": "Ports of a fat tree's leaf that look at endpoints over those that look up; left out: 1.",
    "sharp": "Part of the NICs' rate at which switches reduce all-reduces (SHARP), 0 to 1; left out: they do not.",
    "order": "Order of a slim fly: a prime power.",
    "hosts_per_switch": "Endpoints of each switch of a slim fly or dragonfly.",
    "groups": "Groups of switches of a dragonfly.",
    "switches_per_group": "Switches of a group of a dragonfly.",
    "global_ports": "Ports of a dragonfly's switch that lead to other groups.",
}
"""Dotted key of a fabric -> a sentence."""


def properties(described: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """Dotted keys as `properties` of a JSON Schema, keys inside others as theirs."""
    tree: dict[str, dict[str, object]] = {}
    for key, text in described.items():
        outer, _, inner = key.partition(".")
        if inner:
            nested = tree.setdefault(outer, {"type": "object", "properties": {}})["properties"]
            assert isinstance(nested, dict)
            nested[inner] = {"description": text}
        else:
            tree[outer] = {"description": text}
    return tree
