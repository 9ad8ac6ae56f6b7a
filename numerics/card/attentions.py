"""Attention of torch by backend, on the card at hand: `python -m numerics.card.attentions --out DIR`.

Causal `scaled_dot_product_attention` with one backend allowed, and its gradient, of 16,384 tokens and more. The GPU
sleeps before each call, so that the host is ahead and no launch is in a time.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from numerics.card import measure

BACKENDS = {"flash2": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
"""Ours for a kernel, and torch's; its flash attention is FlashAttention-2."""
TOKENS, LENGTHS = 16384, (512, 1024, 2048, 4096, 8192, 16384, 32768)
HEADS = ((64, 32, 32), (64, 64, 64), (96, 64, 64), (128, 32, 32), (128, 64, 64), (128, 32, 8), (160, 40, 40))
"""Width, heads of queries, heads of keys."""
SHORT, LONG, LARGE = 9, 5, 8192
"""Repetitions; of sequences longer than the last, fewer."""


def cases() -> Iterator[dict[str, int]]:
    for width, heads, shared in HEADS:
        for length in LENGTHS:
            batch = max(1, TOKENS // length)
            yield {"width": width, "heads": heads, "kv_heads": shared, "sequence": length, "batch": batch}


def timed(case: dict[str, int], repetitions: int) -> dict[str, dict[str, float]]:
    """Direction -> backend -> microseconds."""
    shape = case["batch"], case["sequence"]
    q, k, v = (
        torch.randn(*shape, case[heads], case["width"], device="cuda", dtype=torch.bfloat16)
        .transpose(1, 2)
        .requires_grad_()
        for heads in ("heads", "kv_heads", "kv_heads")
    )
    out: dict[str, dict[str, float]] = {"forward": {}, "backward": {}}

    def attend() -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=case["heads"] != case["kv_heads"])

    for name, backend in BACKENDS.items():
        with sdpa_kernel(backend):
            made = attend()
            down = torch.randn_like(made)
            calls: dict[str, Callable[[], Any]] = {
                "forward": torch.no_grad()(attend),
                "backward": lambda o=made, d=down: torch.autograd.grad(o, (q, k, v), d, retain_graph=True),
            }
            for direction, call in calls.items():
                out[direction][name] = round(measure.time_call(call, repetitions, 2).median_us, 1)
    return out


def main(words: Sequence[str] | None = None) -> None:
    """Time all and write DIR/attentions.json."""
    parser = argparse.ArgumentParser(prog="python -m numerics.card.attentions")
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args(words).out
    measure.require_device()
    rows = [{**case, **timed(case, LONG if case["sequence"] > LARGE else SHORT)} for case in cases()]
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    about = json.dumps(measure.provenance(SHORT) | {"command": "python -m numerics.card.attentions --out DIR"})
    text = f'{{\n "about": {about},\n "rows": [\n  {lines}\n ]\n}}\n'
    (folder / "attentions.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
