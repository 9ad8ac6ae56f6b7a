"""A family that the project does not know is one file and one YAML, from other folders: a stack of wide products."""

import sys

import pytest
import yaml

from hwmodels.document import DocumentError
from sim import models, simulation
from sim.models.family import families, family
from sim.scenario import load, schema

STACK = '''
"""A stack of products with nothing between them."""

from dataclasses import dataclass

from sim.models.activations import Kept
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.made import Made
from sim.models.stacks.deepseek.ends import embedding, head, head_kept
from sim.models.stacks.deepseek.linear import dgrad, linear, wgrad
from sim.models.form import Count, ShapeForm
from sim.models.layer import Part, Unit, places
from sim.models.shape import ModelShape
from sim.models.weights import Parameters

PLACES = places((("F", ("embedding", "product", "head")), ("B", ("head", "product", "embedding")),
                 ("W", ("head", "product"))))


@dataclass(frozen=True)
class Shape(ModelShape):
    """width: columns between two products."""

    width: int


class ModelForm(ShapeForm):
    """Its form."""

    width: Count


def mistakes(shape):
    if shape.width < shape.hidden:
        yield "width", f"{shape.width} is narrower than model.hidden {shape.hidden}"


def units(shape):
    return Unit("embedding", -1), *(Unit("product", i, block=True) for i in range(shape.layers)), Unit("head", -1)


def mixture(shape):
    return None


def made(shape, unit):
    end = unit.kind if unit.layer < 0 else ""
    return Made(end, network=Network(shape.width, "relu2"), norm_parameters=shape.hidden)


def parts(site, unit, direction):
    s = site.shape
    pair = (("up", s.width, s.hidden), ("down", s.hidden, s.width))
    rows = {
        "F": [k for name, n, m in pair for k in linear(site, name, n, m)],
        "B": [k for name, n, m in reversed(pair) for k in dgrad(site, name, n, m)],
        "W": [wgrad(site, name, n, m) for name, n, m in pair],
    }[direction]
    kernels = {"embedding": embedding, "head": head}[unit.kind](site, direction) if unit.layer < 0 else rows
    if not kernels:
        return ()
    return (Part(unit.kind, direction, unit.layer, tuple(kernels), place=PLACES[direction, unit.kind]),)


def weights(shape, unit):
    table = shape.vocabulary * shape.hidden
    ends = {"embedding": table, "head": table + shape.hidden}
    return Parameters(other=ends[unit.kind]) if unit.layer < 0 else Parameters(linear=2 * shape.hidden * shape.width)


def flop(shape, length, causal):
    return 6.0 * (shape.layers * 2 * shape.hidden * shape.width + shape.vocabulary * shape.hidden)


def cache(shape):
    return 0.0


def kept(site, unit):
    s, sizes = site.shape, {"embedding": 0.0, "head": head_kept(site)}
    return Kept(sizes.get(unit.kind, 2.0 * site.tokens * (s.hidden + s.width)))


kept_for_weight = kept


def regained(site, unit):
    return Kept()


def workspace(site):
    return 2.0 * site.tokens * site.shape.width
'''

MODEL = {
    "family": "stack", "name": "Stack", "vocabulary": 32000, "hidden": 4096, "layers": 16, "width": 16384,
    "source": "a test",
}  # fmt: skip
SCENARIO = {
    "cluster": {"node": "h200x8", "nodes": 2}, "model": "stack.yaml", "schedule": "zb1p", "precision": "bf16",
    "parallel": {"pipeline": 4}, "batch": {"micro_batches": 8, "sequence_length": 4096}, "outputs": ["result"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The family in a folder beside the shipped ones, its model beside a scenario in another."""
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / "stack.py").write_text(STACK, encoding="utf-8")
    (tmp_path / "stack.yaml").write_text(yaml.safe_dump(MODEL), encoding="utf-8")
    (tmp_path / "scenario.yaml").write_text(yaml.safe_dump(SCENARIO), encoding="utf-8")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path / "families")])
    family.cache_clear()
    yield tmp_path
    family.cache_clear()
    sys.modules.pop("sim.models.stack", None)
    vars(models).pop("stack", None)


def test_it_is_known_by_its_file_alone():
    assert families() == ("deepseek", "stack", "transformer")
    assert any("width" in kind.get("properties", {}) for kind in schema()["properties"]["model"]["anyOf"])


def test_it_runs(folder):
    """Conserving time; its parameters and FLOPs are those of its own formulas."""
    result = simulation.run(load(str(folder / "scenario.yaml")))
    told = result.summary
    assert sum(bar.seconds for bar in result.waterfall) == pytest.approx(told["step_time_s"], rel=1e-6)
    assert sum(stage.parameters for stage in result.stages) == 16 * 2 * 4096 * 16384 + 2 * 32000 * 4096 + 4096
    tokens, gpus = 8 * 4 * 4096, 16
    flop = 6 * (16 * 2 * 4096 * 16384 + 32000 * 4096)
    assert told["tflops_per_gpu"]["causal"] == pytest.approx(flop * tokens / gpus / told["step_time_s"] / 1e12)


def test_its_mistakes_and_keys_are_told(folder):
    path = str(folder / "scenario.yaml")
    with pytest.raises(DocumentError, match=r"model\.width=8: 8 is narrower than model\.hidden 4096"):
        load(path, ["model.width=8"])
    with pytest.raises(DocumentError, match="unknown key 'widht', did you mean 'width'"):
        load(path, ["model.widht=8"])
