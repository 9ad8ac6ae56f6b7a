"""Every number of every machine that ships: stating another one changes a figure of the run, or a line says it does
not.

Scenarios are small: two stages of two layers, experts over two nodes.
"""

import re
from functools import cache
from pathlib import Path

import pytest

from hwmodels import device, fabric, node
from hwmodels.refused import Refused
from sim import simulation
from sim.analysis.notes import notes
from sim.experiments.unfelt import DESCRIPTIVE, HIERARCHY, UNTOLD, descriptive, unfelt
from sim.scenario import load

LITE = str(Path(__file__).parents[2] / "scenarios" / "v2_lite.yaml")
SMALL = (
    "cluster.nodes=4", "parallel.pipeline=2", "parallel.expert=16", "batch.sequences=64", "model.layers=4",
    "outputs=[result,links]",
)  # fmt: skip
FELT = {
    "node.device.sms": 0.5, "node.device.clock": 0.5, "node.device.peak_flops.bf16": 0.5, "node.device.hbm.latency": 20,
    "node.device.hbm.capacity": 0.01, "node.device.hbm.bandwidth": 0.5, "node.device.l2.capacity": 1e-4,
    "node.device.l2.bandwidth": 0.2, "node.device.l3.capacity": 1e-4, "node.device.l3.bandwidth": 0.2,
    "node.device.host.latency": 1e4, "node.device.host.bandwidth": 0.05,
    "node.nvlink.bandwidth": 0.2, "node.nvlink.efficiency": 0.2, "node.nvlink.latency": 100, "node.nic.bandwidth": 0.5,
    "node.nic.efficiency": 0.5, "node.nic.latency": 100, "node.pcie.bandwidth": 0.5, "node.pcie.efficiency": 0.5,
    "node.pcie.latency": 1e4, "fabric.link.bandwidth": 0.2, "fabric.link.efficiency": 0.5,
    "fabric.latency_same_leaf": 100, "fabric.latency_cross_leaf": 100,
}  # fmt: skip
"""What a run must feel, and by how many times it is changed for that."""


def few(chip):
    """Communication on so few SMs that half of a chip of few large cores has them too."""
    return () if chip.sms > 40 else ("comm.sms=8",)


def leaves():
    """Words that choose a machine that ships, a key of it, and the figure there."""
    for name in device.available():
        for key, figure in device.load(name).figures.items():
            # links, which take half of the time, know nothing of a chip
            yield (
                (f"cluster.node.device={name}", "outputs=[result]", *few(device.load(name))),
                f"node.device.{key}",
                figure,
            )
    for name in node.available():
        eight = () if node.load(name).gpus == 8 else ("cluster.node.gpus=8",)
        for key, figure in node.load(name).figures.items():
            yield (f"cluster.node={name}", *eight, *few(node.load(name).device)), f"node.{key}", figure
    for name in fabric.available():
        routed = () if name == "slimfly" else ("cluster.routing=static",)
        for key, figure in fabric.load(name).figures.items():
            yield (f"cluster.fabric={name}", *routed), f"fabric.{key}", figure


LEAVES = list(leaves())


def stated(key, figure):
    """The word that states another number."""
    number, unit = re.fullmatch(r"([\d.e+-]+)\s*(.*)", figure.text).groups()
    changed = float(number) * FELT.get(key, 0.5)
    whole = not unit and float(number) >= 1
    return f"cluster.{key}={max(1, int(changed)) if whole else f'{changed:g} {unit}'.strip()}"


def figures(scenario):
    summary = simulation.run(scenario, False).summary
    return {key: value for key, value in summary.items() if key not in UNTOLD}


@cache
def unchanged(*words):
    return figures(load(LITE, [*SMALL, *words]))


@cache
def described(words):
    """Lines of a machine whose descriptive numbers are all other ones, where its figures are as before; None where they
    are not, and each number is to be asked by itself."""
    all_of = [stated(key, figure) for machine, key, figure in LEAVES if machine == words]
    scenario = load(LITE, [*SMALL, *words, *(word for word in all_of if any(descriptive([word.split("=")[0]])))])
    return list(unfelt(scenario, further=False)) if figures(scenario) == unchanged(*words) else None


@pytest.mark.parametrize(("words", "key", "figure"), LEAVES, ids=[f"{w[0]}-{k}" for w, k, _ in LEAVES])
def test_a_number_of_a_machine_is_felt_or_told(words, key, figure):
    word = stated(key, figure)
    if any(descriptive([f"cluster.{key}"])) and (lines := described(words)) is not None:
        assert key not in FELT
        assert any(line.startswith(f"cluster.{key} changes nothing") for line in lines), lines
        return
    try:
        scenario = load(LITE, [*SMALL, *words, word])
    except Refused:  # in a line: a shape that cannot be wired
        assert key not in FELT
        return
    if figures(scenario) != unchanged(*words):
        return
    behind = key.startswith("node.device.l2") and scenario.cluster.node.device.l3  # which whole kernels share
    assert key not in FELT or behind
    lines = [*unfelt(scenario), *notes(scenario, {}, [*SMALL, *words, word])]
    assert any(line.startswith(f"cluster.{key} changes nothing") and "\n" not in line for line in lines), lines


def test_what_is_known_to_be_unfelt_is_of_machines_that_ship():
    keys = {f"cluster.{key}" for _, key, _ in LEAVES}
    assert all(
        any(key == name or key.startswith(f"{name}.") for key in keys)
        for name in DESCRIPTIVE
        if not name.startswith(HIERARCHY)
    )


def test_what_a_run_feels_has_no_line():
    overrides = [*SMALL, "cluster.node.device.clock=1 GHz"]
    assert list(unfelt(load(LITE, overrides))) == []


def test_a_figure_of_a_file_is_told_too(tmp_path):
    """Not only what the command line states; and what ranks that differ do not feel is found as among alike ones."""
    text = Path(LITE).read_text().replace("node: h800x8", "node: {base: h800x8, device: {l2: {latency: 1 us}}}")
    file = tmp_path / "lite.yaml"
    file.write_text(text.replace("fabric: mpft", "fabric: {base: mpft, radix: 32}"))
    overrides = [*SMALL, "routing=sampled"]
    lines = list(unfelt(load(str(file), overrides)))
    assert [line.split()[0] for line in lines] == ["cluster.node.device.l2.latency", "cluster.fabric.radix"]
