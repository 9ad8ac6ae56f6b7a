"""One thread for torch, and Triton's interpreter where there is no GPU (to be set before triton is imported)."""

import os

try:
    import torch
except ImportError:
    torch = None

if torch is not None:
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
