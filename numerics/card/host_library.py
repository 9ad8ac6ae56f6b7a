"""What a mixture's layer takes a host in the library's own Python: `python -m numerics.card.host_library`.

Megatron Core's layer of experts runs as it is (router, all-to-all dispatcher, permutes, grouped products of
TransformerEngine) from source trees that the caller has; nothing of them is here. TransformerEngine's compiled
extension and the collectives are stood in for by functions that make the tensors that theirs make, and launch nothing.
The time spent in those, and in waits for the device, is told apart, so that what is left is the Python, autograd and
torch's own operations. Shapes are tiny: a GPU is never in the way. Without a CUDA device the CPU's tensors are used,
by which launches are not measured, but Python is.
"""

import argparse
import contextlib
import dataclasses
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import traceback
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hwmodels.units import US_PER_S
from numerics.card.host_extension import CLOCK, NOW, TOP, Extension, without_device

RANKS, TOKENS, HIDDEN, WIDTH = 8, 64, 256, 128
"""Ranks that share the experts; tokens, hidden size, width of an expert."""
WHOLE = (0, 16)
"""Experts a rank (none: a dense layer) where the whole transformer layer runs, not the layer of experts alone."""
REPEATS = 30
RECIPES = ("bf16", "tensorwise", "mxfp8")


def _stand_in(megatron: Path, engine: Path) -> None:
    """Put both trees on the path with what they need at import; their compiled parts are `Extension`."""
    known = importlib.metadata.version

    def version(distribution_name: str) -> str:
        own = distribution_name.replace("-", "_").startswith("transformer_engine")
        return "2.12.0" if own else known(distribution_name)

    importlib.metadata.version = version
    root = engine / "transformer_engine"
    for name, folder in (("transformer_engine", root), ("transformer_engine.common", root / "common")):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        module.__version__ = "2.12.0"  # type: ignore[attr-defined]
        sys.modules[name] = module
    sys.modules["transformer_engine"].common = sys.modules["transformer_engine.common"]  # type: ignore[attr-defined]
    sys.modules["transformer_engine.common"].load_framework_extension = lambda name: None  # type: ignore[attr-defined]
    sys.modules["transformer_engine_torch"] = Extension()
    pydantic, classes = types.ModuleType("pydantic"), types.ModuleType("pydantic.dataclasses")
    classes.dataclass = dataclasses.dataclass  # type: ignore[attr-defined]
    pydantic.dataclasses = classes  # type: ignore[attr-defined]
    sys.modules.setdefault("pydantic", pydantic)
    sys.modules.setdefault("pydantic.dataclasses", classes)
    absent = ["transformer_engine.pytorch.onnx_extensions"]
    if importlib.util.find_spec("triton") is None:
        absent += ["triton", "triton.language", "triton.language.core"]
    for name in absent:
        sys.modules[name] = mock.MagicMock()
    sys.path[:0] = [str(megatron), str(engine)]
    sys.modules["transformer_engine"].pytorch = import_module("transformer_engine.pytorch")  # type: ignore[attr-defined]


def _groups(device: str) -> Any:
    """Process groups of `RANKS` in this one process; collectives do nothing but are counted, gathers copy."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=RANKS, store=FakeStore())

    def gathered(out: torch.Tensor, x: torch.Tensor, *args: Any, **named: Any) -> None:
        with torch.no_grad():
            out.view(-1, *x.shape).copy_(x.expand(out.numel() // x.numel(), *x.shape))

    for name in ("all_gather_into_tensor", "_all_gather_base"):
        setattr(dist, name, CLOCK.apart("collective all_gather", gathered))
    dist.all_to_all_single = CLOCK.apart("collective all_to_all", lambda *a, **n: None)
    dist.all_reduce = CLOCK.apart("collective all_reduce", lambda *a, **n: None)
    parallel_state, random = (
        import_module("megatron.core.parallel_state"),
        import_module("megatron.core.tensor_parallel.random"),
    )
    parallel_state.initialize_model_parallel(expert_model_parallel_size=RANKS, create_gloo_process_groups=False)
    if device == "cuda":
        random.model_parallel_cuda_manual_seed(1)
    else:
        random.CudaRNGStatesTracker.fork = lambda *args: contextlib.nullcontext()


def _layer(local: int, recipe: str, whole: bool) -> Any:
    """Megatron Core's layer of experts, as Megatron-Bridge's recipes have it. whole: the transformer layer that it is
    in, attention of groups with norms of queries and keys; no experts: a dense one."""
    core = "megatron.core"
    specs = import_module(f"{core}.models.gpt.gpt_layer_specs")
    mixtures = import_module(f"{core}.models.gpt.moe_module_specs")
    build_module = import_module(f"{core}.transformer.spec_utils").build_module
    fp8 = {} if recipe == "bf16" else {"fp8": "hybrid" if recipe == "tensorwise" else "e4m3", "fp8_recipe": recipe}
    mixed: dict[str, Any] = {
        "num_moe_experts": RANKS * local, "moe_ffn_hidden_size": WIDTH, "moe_router_topk": TOP,
        "moe_grouped_gemm": True, "moe_permute_fusion": True, "moe_router_fusion": True, "moe_router_dtype": "fp32",
        "moe_token_dispatcher_type": "alltoall", "moe_router_load_balancing_type": "aux_loss",
        "moe_aux_loss_coeff": 1e-3, "expert_model_parallel_size": RANKS,
    }  # fmt: skip
    config = import_module(f"{core}.transformer.transformer_config").TransformerConfig(
        num_layers=1, hidden_size=HIDDEN, num_attention_heads=4, num_query_groups=2, kv_channels=64,
        ffn_hidden_size=WIDTH, qk_layernorm=True, hidden_dropout=0.0, attention_dropout=0.0, apply_rope_fusion=True,
        bias_dropout_fusion=True, gated_linear_unit=True, add_bias_linear=False, bf16=True, normalization="RMSNorm",
        activation_func=torch.nn.functional.silu, bias_activation_fusion=True, params_dtype=torch.bfloat16,
        gradient_accumulation_fusion=True, perform_initialization=False, **(mixed if local else {}), **fp8,
    )  # fmt: skip
    if whole:
        spec = specs.get_gpt_layer_with_transformer_engine_spec(RANKS * local or None, bool(local), True)
    else:
        spec = mixtures.get_moe_module_spec(use_te=True, num_experts=RANKS * local, moe_grouped_gemm=True)
    layer = build_module(spec, config=config, layer_number=1)
    for weight in layer.parameters():
        weight.main_grad = torch.zeros(weight.shape, device=weight.device)
        weight.grad_added_to_main_grad = False
        _hooked(weight)
    return layer, config


def _hooked(weight: Any) -> None:
    """What Megatron Core's DistributedDataParallel hangs on each parameter: a hook behind its gradient."""
    place = weight.expand_as(weight).grad_fn.next_functions[0][0]

    def hook(*args: Any) -> None:
        if weight.grad is not None and not weight.grad_added_to_main_grad:
            weight.main_grad.add_(weight.grad.data)
        weight.grad = None

    place.register_hook(hook)
    weight.kept = place


class Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """torch's operations by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def _backward(out: torch.Tensor, down: torch.Tensor | None) -> None:
    out.backward(down)  # type: ignore[no-untyped-call]


class Case:
    """A layer, and what one forward and one backward of it take."""

    def __init__(self, local: int, recipe: str, device: str, whole: bool) -> None:
        self.layer, self.config = _layer(local, recipe, whole)
        self.words: dict[str, Any] = {}
        if whole:
            turns = torch.randn(TOKENS, 1, 1, 64, device=device)
            self.words = {"attention_mask": None, "rotary_pos_emb": turns}
        self.recipe, self.device, self.local = recipe, device, local
        self.first = True
        self.x = torch.randn(TOKENS, 1, HIDDEN, device=device, dtype=torch.bfloat16, requires_grad=True)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def context(self) -> Any:
        if self.recipe == "bf16":
            return contextlib.nullcontext()
        return import_module("megatron.core.fp8_utils").get_fp8_context(self.config)

    def forward(self) -> torch.Tensor:
        with self.context():
            out: torch.Tensor = self.layer(self.x, **self.words)[0]
        return out

    def ways(self) -> dict[str, Any]:
        """Microseconds, calls apart and operations, of each way."""
        for module in self.layer.modules():
            if hasattr(module, "is_first_microbatch"):
                module.is_first_microbatch = True
        ways: dict[str, Any] = {}
        spent: dict[str, list[dict[str, float]]] = {"forward": [], "backward": []}
        for _ in range(REPEATS + 5):
            for way in spent:
                self.wait()
                CLOCK.clear()
                start = NOW()
                if way == "forward":
                    out = self.forward()
                    down = None
                else:
                    _backward(out, down)
                whole = NOW() - start
                apart = {name: seconds * US_PER_S for name, seconds in CLOCK.spent.items()}
                spent[way].append({"all": whole * US_PER_S, "own": whole * US_PER_S - sum(apart.values()), **apart})
                ways[way] = {"calls": dict(CLOCK.calls)}
                if way == "forward":
                    down = torch.ones_like(out)
        for way, rows in spent.items():
            rows = rows[5:]
            ways[way]["us"] = {
                name: round(statistics.median(r.get(name, 0.0) for r in rows), 1) for name in sorted(rows[-1])
            }
        with Counted() as counted:
            out = self.forward()
        forward = dict(counted.calls.most_common())
        with Counted() as counted:
            _backward(out, down)
        ways["forward"]["operations"], ways["backward"]["operations"] = forward, dict(counted.calls.most_common())
        ways["forward"]["parts"] = self.parts()
        ways["backward"]["nodes"] = self.nodes()
        if self.device == "cuda":
            ways["launched"] = self.launched()
        return ways

    def parts(self) -> dict[str, float]:
        """Microseconds of the forward by method, what is apart and parts within parts included."""
        rows: dict[str, list[float]] = {}
        places: list[tuple[Any, str, str]] = []
        for label, module in self.layer.named_modules():
            if label:
                places.append((module, "forward", f"{label} ({type(module).__name__})"))
            if hasattr(module, "token_dispatcher"):
                names = "dispatch_preprocess preprocess token_dispatch dispatch_postprocess combine_preprocess "
                for name in (names + "token_combine combine_postprocess").split():
                    places.append((module.token_dispatcher, name, name))

        def wrap(place: Any, name: str, label: str) -> Callable[[], None]:
            call = getattr(place, name)

            def timed(*args: Any, **named: Any) -> Any:
                start, before = NOW(), sum(CLOCK.spent.values())
                out = call(*args, **named)
                own = NOW() - start - (sum(CLOCK.spent.values()) - before)
                rows.setdefault(label, []).append(own * US_PER_S)
                return out

            object.__setattr__(place, name, timed)
            return lambda: object.__delattr__(place, name)

        undo = [wrap(*place) for place in places]
        for _ in range(REPEATS):
            self.wait()
            self.forward()
        for each in undo:
            each()
        return {name: round(statistics.median(times), 1) for name, times in rows.items()}

    def nodes(self) -> dict[str, Any]:
        """Microseconds of each kind of autograd's nodes, what is apart left out, and how many there are."""
        rows: dict[str, list[float]] = {}
        number: Counter[str] = Counter()
        for turn in range(10):
            out = self.forward()
            started: dict[int, tuple[float, float]] = {}
            seen, stack = set(), [out.grad_fn]
            number.clear()
            total: dict[str, float] = defaultdict(float)
            while stack:
                node = stack.pop()
                if node is None or node in seen:
                    continue
                seen.add(node)
                stack += [following for following, _ in node.next_functions]
                name = node.name()
                number[name] += 1
                if name == "torch::autograd::AccumulateGrad":
                    continue

                def before(*args: Any, key: int = id(node), started: Any = started) -> None:
                    started[key] = NOW(), sum(CLOCK.spent.values())

                def after(
                    *args: Any, key: int = id(node), name: str = name, total: Any = total, started: Any = started
                ) -> None:
                    now, apart = NOW(), sum(CLOCK.spent.values())
                    total[name] += now - started[key][0] - (apart - started[key][1])

                node.register_prehook(before)
                node.register_hook(after)
            self.wait()
            _backward(out, torch.ones_like(out))
            if turn:
                for name, seconds in total.items():
                    rows.setdefault(name, []).append(seconds * US_PER_S)
        return {n: [round(statistics.median(t), 1), number[n]] for n, t in sorted(rows.items())} | {
            "torch::autograd::AccumulateGrad": [0.0, number["torch::autograd::AccumulateGrad"]]
        }

    def launched(self) -> dict[str, int]:
        """Calls of the driver in a forward and a backward."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            _backward(self.forward(), torch.ones_like(self.x))
            torch.cuda.synchronize()
        names = Counter(event.name for event in seen.events() if event.name.startswith(("cuda", "cu")))
        return dict(names.most_common(12))


def run(megatron: Path, engine: Path, out: Path, locals_: Sequence[int], recipes: Sequence[str]) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        without_device()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    gc.disable()  # as Megatron-Bridge's recipes do between their own collections
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    about = {"torch": torch.__version__, "python": platform.python_version(), "tensors": device}
    rows: list[dict[str, Any]] = []
    _stand_in(megatron, engine)
    for name in ("utils", "quantization"):  # recipes of a Blackwell, on any device
        module: Any = import_module(f"transformer_engine.pytorch.{name}")
        module.get_device_compute_capability = lambda: (10, 0)
    if device == "cuda":
        torch.cuda.Event.synchronize = CLOCK.apart("wait", torch.cuda.Event.synchronize)  # type: ignore[method-assign]
    _groups(device)
    for recipe in recipes:
        for local in locals_:
            whole = local in WHOLE
            try:
                ways = Case(local, recipe, device, whole).ways()
            except Exception:  # the others are still worth a row
                traceback.print_exc()
                continue
            rows.append({"recipe": recipe, "local": local, "whole": whole, **ways})
            f, b = ways["forward"], ways["backward"]
            print(recipe, local, "forward", f["us"]["all"], f["us"]["own"], "backward", b["us"]["all"],
                  b["us"]["own"], flush=True)  # fmt: skip
            out.mkdir(parents=True, exist_ok=True)
            (out / "host_library.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


def _numbers(text: str) -> Iterator[int]:
    return (int(part) for part in text.split(","))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m numerics.card.host_library")
    parser.add_argument("--megatron", type=Path, required=True, help="a checkout of NVIDIA/Megatron-LM")
    parser.add_argument("--engine", type=Path, required=True, help="a checkout of NVIDIA/TransformerEngine")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--experts", default="1,4,8,16,32", help="experts a rank")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    asked = parser.parse_args(words)
    run(asked.megatron, asked.engine, asked.out, list(_numbers(asked.experts)), asked.recipes.split(","))


if __name__ == "__main__":
    main()
