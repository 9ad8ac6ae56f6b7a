"""What torch's own autograd keeps of a plain model on the meta device, beside what its stack says of memory."""

import pytest

from sim import assembly
from sim.layout.plan import lay_out
from sim.scenario import from_mapping

torch = pytest.importorskip("torch")

H, FFN, HEADS, KV, WIDTH, V, LAYERS, T = 256, 768, 8, 2, 32, 1024, 3, 128


class Attention(torch.autograd.Function):
    """Keeps q, k, v, its output and a log-sum-exp a head and token, as fused kernels do; on this device torch has
    none."""

    @staticmethod
    def forward(ctx, q, k, v):  # type: ignore[no-untyped-def]
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out


class Norm(torch.autograd.Function):
    """Keeps its input and inverse deviations, likewise."""

    @staticmethod
    def forward(ctx, x, weight):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)


def kept_by_torch() -> int:
    """Bytes of storages that the forward of one micro-batch keeps, parameters apart."""
    from numerics.card.plain import Size, Transformer, loss

    sizes: dict[int, int] = {}
    alive = []

    def pack(tensor):  # type: ignore[no-untyped-def]
        alive.append(tensor)
        sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.functional.scaled_dot_product_attention", lambda q, k, v, **_: Attention.apply(q, k, v))
        patch.setattr("torch.nn.functional.rms_norm", lambda x, _, weight, eps: Norm.apply(x, weight))
        model = Transformer(Size(H, FFN, HEADS, KV, WIDTH, V, LAYERS, T, 1)).to(torch.bfloat16)
        tokens = torch.empty(1, T, dtype=torch.int64)
        own = {each.untyped_storage()._cdata for each in (*model.parameters(), *model.buffers())}
        with hooks:
            loss(model(tokens), tokens)
    return sum(size for storage, size in sizes.items() if storage not in own)


def test_torch_keeps_what_its_stack_says() -> None:
    """Norms, products, attention, the network, the embedding and the head, to 3 %: numbers of a token (deviations, the
    loss's) are counted one way or the other."""
    model = {
        "family": "transformer", "name": "tiny", "vocabulary": V, "hidden": H, "layers": LAYERS, "heads": HEADS,
        "kv_heads": KV, "head_width": WIDTH, "tied": False, "pattern": "attention+dense", "activation": "swiglu",
        "intermediate": FFN, "source": "a test",
    }  # fmt: skip
    machine = assembly.machine(lay_out(from_mapping({
        "cluster": {"node": {"base": "h100x8", "gpus": 1}, "nodes": 1}, "model": model, "precision": "bf16",
        "stack": "torch", "batch": {"sequences": 1, "sequence_length": T}, "outputs": ["result"],
    })))  # fmt: skip
    ours = sum(machine.lowering.kept(machine.site, unit).at(machine.site) for unit in machine.units)
    assert ours == pytest.approx(kept_by_torch(), rel=0.03)
