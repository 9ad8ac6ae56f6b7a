"""One thread for torch, and Triton's interpreter (to be set before triton is imported), also where there is a GPU.

The tests of kernels make CPU tensors, which a kernel compiled for a GPU cannot take. `python -m numerics check` runs
what needs the card, with TRAINYARD_CARD=1.
"""

import os

try:
    import torch
except ImportError:
    torch = None

if torch is not None:
    torch.set_num_threads(1)
    if os.environ.get("TRAINYARD_CARD") != "1":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["TRITON_INTERPRET"] = "1"
