"""Served loads that tests share: documents in a few words, and instances with times of their own."""

from typing import Any

import numpy as np

from hwmodels.document import Document
from sim.serving import files
from sim.serving.values import Serve


def document(requests: dict[str, Any], *pools: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A small model on H100s; more: other keys of `serve`."""
    own = {
        "model": "llama3_8b", "node": "h100x8", "fabric": "ndr", "precision": "bf16",
        "pools": list(pools) or [{}], "requests": requests,
    }  # fmt: skip
    return {"name": "test", "serve": own | more}


def poisson(count: int, rate: float, prompt: Any, output: Any) -> dict[str, Any]:
    return {"arrivals": "poisson", "count": count, "rate": rate, "prompt": prompt, "output": output}


def closed(count: int, clients: int, prompt: Any, output: Any) -> dict[str, Any]:
    return {"arrivals": "closed", "count": count, "clients": clients, "prompt": prompt, "output": output}


def loaded(content: dict[str, Any], *overrides: str, **top: Any) -> Serve:
    return files.resolve(Document(content | top, {}), overrides)


def quantile(values: Any, part: float) -> float:
    return float(np.quantile(np.asarray(values), part))
