"""What the host does for mixtures in Megatron Core and TransformerEngine, in work of an elementwise operation.

Numbers are of single operations on an H200's host (Intel Xeon, two processes, torch 2.11, 2026-11-30): tensors of
64 x 64, chains of 60, host's clock, nothing waited for, median of 25 (`numerics.card.host` runs the loops). How many of
them a module does is counted in its source: TransformerEngine 2.9, pytorch/module/grouped_linear.py,
csrc/extensions/gemm.cpp and cast.cpp, common/gemm/cublaslt_gemm.cu; Megatron Core, transformer/moe/router.py,
moe_utils.py, token_dispatcher.py and fused_a2a.py; HybridEP's csrc/hybrid_ep/executor/executor.cu (94a9f8f). Of the
Python between them only what each expert asks for is in, timed in the libraries' own; so it is the least that a host
does.
"""

from typing import NamedTuple

from hwmodels.node import Launch
from hwmodels.units import MICRO

UNIT = {"F": Launch().forward_s / MICRO, "B": Launch().backward_s / MICRO}
"""Microseconds of the operation that `Kernel.host` counts in, on the same host."""
OPERATION, VIEW, EMPTY, TRITON = 10.7, 2.9, 4.6, 23.5
"""An operation of torch that records no gradient; a view; an empty tensor; a launch of a Triton kernel of 16 values."""
FUNCTION = {"F": 6.9, "B": 15.6}
"""torch.autograd.Function, less the operation in it (17.6 and 26.3)."""
ARGUMENT, PIECE = 1.2, 1.5
"""A tensor more that it is given and keeps; a piece of torch.split."""
PRODUCT = 21.0
"""cublasLtMatmul behind its search for an algorithm, which TransformerEngine asks anew for each product: as
torch._scaled_mm (27.7), less its output and the call."""
LAUNCH = 7.0
"""A kernel launched from C++, its arguments made: as a cast (13.8), less its output and the call."""
STREAMS = 5 * 1.7 + 8 * 1.6
"""Four streams that wait for one, and it for them: events recorded and waited for."""
SENT = {"all_to_all": 45.7, "all_gather": 25.0}
"""Collectives of torch.distributed, sizes of each rank's part given to the first."""
COPIED, SIDE, AWAITED = 7.2, 19.3, 4.5
"""A copy to pinned memory; work put on another stream; an end that is waited for, which is there."""
GRADIENT = 7.1
"""A parameter's gradient, a view made for it, handed to autograd and to a hook of its own: of 33 at once."""
LINEAR = {"F": 60.0, "B": 150.0}
"""TransformerEngine's Linear in BF16, of 2025. Forward 2.7 times torch's own (22.4 here): 99.7 and 37.1 us on a GB200's
host, 90.5 and 33.2 on a GH200's (github.com/NVIDIA/TransformerEngine issue 2053, August 2025). Backward 2.5 times
that: of September 2026 59.2 forward and 252.1 backward on a GB200's (pull request 3523), of which a backward that is
called alone takes 104 to begin (63 here, and that host takes 1.65 times as long). By then both take 0.6 of 2025's."""
LATER = UNIT["F"] / 13.73
"""The time of the host above over that of the one on which the next line was timed, another H200's on the same
day (`numerics.card.host`, rows in numerics/card/hosts/h200.json): of the operation that both timed."""
QUANTISED, STORED = 6.08 * LATER, 2.26 * LATER
"""A tensor of a class of its own made around four others, with a copy of what quantised it; the same as a plain
object."""
BESIDE = 1.755 * LATER
"""The same for a third host without a GPU (AMD EPYC, torch 2.13, rows in numerics/card/hosts/epyc.json, `--compiled`):
the geometric mean over what both of these hosts timed that asks nothing of a GPU, 0.5 to 3.5."""
PART, READ, WAY = 0.29 * BESIDE, 1.3 * BESIDE, 0.42 * BESIDE
"""In TransformerEngine's C++: a tensor made over a part of a buffer, with its object in Python (but for what the driver
is asked about its pointer); the fields of a quantised tensor read, and those of a quantizer."""
HOOKED = 0.4 * BESIDE
"""What a hook of Megatron Core does with the gradient of a weight, but for the hook's call (`GRADIENT`)."""
REPLAYED = 25.0
"""A graph replayed: a function of its own, and a launch (as `Function` and an operation)."""


def work(microseconds: float, direction: str) -> float:
    """What `Kernel.host` says for so much of that host's time. direction: F, or B and W."""
    return microseconds / UNIT["F" if direction == "F" else "B"]


def function(direction: str, operations: float = 1.0, tensors: int = 1) -> float:
    """Microseconds of an autograd function that launches so many kernels from C++ into so many new tensors."""
    return FUNCTION[direction] + LAUNCH * operations + EMPTY * tensors


class Grouped(NamedTuple):
    """Microseconds of TransformerEngine's GroupedLinear of so many experts: forward, and backward to the gradient of
    the input and to those of weights, which autograd is handed one by one."""

    forward: float
    dgrad: float
    wgrad: float


ONE_SCALE, BY_BLOCK = "one scale", "by block"
"""How tensors of experts are quantised: each with one scale, made one by one, or with scales of blocks, in bulk."""


WALKED = {"": (8.5, 9.6), ONE_SCALE: (18.6, 26.3), BY_BLOCK: (19.5, 31.8)}
"""What an expert more takes a product of GroupedLinear in Python and autograd, forward and backward: TransformerEngine
2.12 and Megatron Core 0.16.0 as they are, on an H200's host, from 1 to 32 experts, what is compiled left out
(`numerics.card.host_library`; rows in numerics/card/hosts/h200_library.json). Medians of four runs, each brought to the
host above by the operation that both timed; from run to run they differ by up to 2.5 times either way. Loops over
quantizers, weights found by name, their quantised copies looked up, tensors taken apart, kept and given back,
`main_grad` and its stand-in. What modules take once was timed too and is not here: a loop over experts is warm and goes
with a host's speed, code that a layer runs once is not, and nobody says what it takes on other hosts."""


def grouped(experts: int, quantised: str = "", both: bool = True) -> Grouped:
    """A product an expert and pass, by a loop over cuBLAS on four streams; what each expert asks for beside it.
    quantised: "" where they are not. both: whether a tensor has rows and columns."""
    half, own = LINEAR["B"] / 2 - PRODUCT, _beside(quantised, both)
    return Grouped(
        LINEAR["F"] - PRODUCT + STREAMS + experts * (PRODUCT + own.forward),
        half + STREAMS + experts * (PRODUCT + own.dgrad),
        half - GRADIENT + STREAMS + experts * (PRODUCT + GRADIENT + own.wgrad),
    )


def _beside(quantised: str, both: bool) -> Grouped:
    """Of an expert (TransformerEngine 2.9 to 2.16): Python and autograd, its part of the output made, and its hook.

    Quantised, in C++: what quantises its rows, and its output's gradient, read; rows quantised, data and scales of each
    side parts of a buffer under a plain object (`bulk_allocate_...`), or tensors of their own under one of a class of
    its own (`internal` false), but backward; both sides of each product read."""
    forward, backward = WALKED[quantised]
    if not quantised:
        return Grouped(forward + PART, backward / 2 + PART, backward / 2 + HOOKED)
    sides = 2 if both else 1
    rows, gradient = 2 * sides * PART + STORED, 2 * sides * PART + STORED
    if quantised == ONE_SCALE:
        rows, gradient = (sides + 1) * EMPTY + QUANTISED, (sides + 1) * EMPTY + STORED
    made = WAY + 2 * READ + PART
    return Grouped(forward + made + rows, backward / 2 + made + gradient, backward / 2 + 2 * READ + HOOKED)


ROUTED = {"F": FUNCTION["F"] + PRODUCT + 2 * EMPTY, "B": FUNCTION["B"] + 2 * PRODUCT + 2 * EMPTY + GRADIENT}
"""The router's product, which is a function of its own (`RouterGatingLinearFunction`)."""
SCORED = {"F": function("F", 1, 3), "B": function("B", 1, 1)}
"""Scores and the chosen of them, or scores alone, in a kernel (`moe_router_fusion`)."""
BALANCED = {
    "F": function("F", 1, 2) + FUNCTION["F"] + 3 * OPERATION + 2 * VIEW,
    "B": function("B", 1, 1) + SCORED["B"] + FUNCTION["B"],
}
"""The auxiliary loss in a kernel; tied to the output, divided, and added up to be told; backward the scores' too."""
PERMUTED = {"F": function("F", 0, 5) + 4 * TRITON, "B": function("B", 0, 2) + TRITON}
"""Rows in the order of experts: three kernels of maps, and the permute."""
SORTED = {"F": function("F", 0, 3) + 2 * TRITON, "B": function("B", 0, 2) + TRITON}
"""Chunks of rows in another order: a map, and the copy."""
SELECTED = 2 * OPERATION + 4 * LAUNCH + 3 * EMPTY + 6 * VIEW + COPIED + AWAITED
"""masked_select: the mask's places (counted, which is waited for; prefixed, chosen, written) and what is there."""
PADDED = {"F": function("F", 1, 1), "B": function("B", 1, 1)}
"""Rows of each expert padded for scales of blocks, or unpadded: one kernel over all."""
COUNTED = 9 * OPERATION + 8 * VIEW + SENT["all_gather"] + SIDE + 4 * COPIED + EMPTY
"""Numbers of rows summed, gathered, summed again and copied (`preprocess`, `_maybe_dtoh_and_synchronize`)."""
EXCHANGED = {d: FUNCTION[d] + EMPTY + SENT["all_to_all"] for d in "FB"}
"""An all-to-all of rows, or of their probabilities."""
FUSED = {"F": function("F", 3, 6), "B": function("B", 3, 3)}
"""A dispatch or combine of DeepEP or HybridEP (fused_a2a.py): metadata, the exchange, and a permute, from C++."""
GATHERED = FUNCTION["F"] + EMPTY + SENT["all_gather"]
MAPPED = 10 * EMPTY + 2 * LAUNCH + AWAITED
DISPATCHED = 2 * EMPTY + 2 * LAUNCH
"""HybridEP's dispatch forward: who chose what, gathered; maps and counts, in tensors of their own, by a kernel, and a
small one, whose end is waited for; the exchange, and a permute."""


def chunks(number: int) -> float:
    """Microseconds of so many chunks cut out of a tensor and put together again (torch.split, torch.cat), or of their
    gradients, which is the same the other way round."""
    return 2 * OPERATION + number * (PIECE + ARGUMENT)
