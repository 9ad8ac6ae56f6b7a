"""The rival: what a closed form of an afternoon says of a step, so that every table of errors can show both.

Each kernel takes its arithmetic or its bytes over a rate that public kernel tables give for its kind, size and GPU; a
rank's kernels follow one another, a pipeline adds the bubble (p - 1)/(m v), gradients and parameters hide, and an
exchange is exposed unless the scenario says that it is overlapped. No host, no contention, no order of events. Which
kernels a layer has is the simulator's; no price, no table and no rule of time of it is used. All constants are of
single kernels and were set before any step was compared.
"""

from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from hwmodels.op import AllToAll, Attention, Collective, Gemm, GroupedGemm, HostCopy, HostUpdate, Memory, Op
from hwmodels.units import GIGA, MICRO
from sim import assembly
from sim.layout.machine import Machine
from sim.layout.plan import Plan, lay_out
from sim.models.family import weights
from sim.models.layer import Unit
from sim.scenario.values import Scenario

SIZES = tuple(GIGA * size for size in (10, 30, 100, 300, 10 * 100, 3000))
"""FLOPs of a product, the bounds between the columns of what follows."""


class Card(NamedTuple):
    """Rates of a GPU. bf16: part of the dense peak that products of each size reach (BF16 rows of cuBLAS and of
    TensorRT-LLM in NVIDIA's aiconfigurator tables, github.com/ai-dynamo/aiconfigurator, the median of a size).
    attention: of the peak in long sequences; half: the length at which half of that is lost (FlashAttention-3's and
    cuDNN's rows there). memory: of HBM's bandwidth (BabelStream copies; casts and norms of FlashInfer and Liger).
    clock: how many times longer under sustained load (metered rows of B200 and GB200 there). busbw: bytes a second a
    rank over 2, 4 and 8 ranks of an NVLink domain (NCCL, all-gather of half a GiB, there)."""

    bf16: tuple[float, ...]
    attention: float
    half: float
    memory: float
    clock: float
    busbw: tuple[float, float, float]


CARDS = {
    "A100": Card((0.46, 0.60, 0.69, 0.78, 0.78, 0.80, 0.81), 0.65, 271, 0.79, 1.00, (150e9, 192e9, 205e9)),
    "H20": Card((0.85,) * 7, 0.80, 600, 0.87, 1.00, (258e9, 317e9, 336e9)),
    "H200": Card((0.45, 0.60, 0.71, 0.75, 0.74, 0.68, 0.68), 0.63, 603, 0.84, 1.05, (258e9, 317e9, 336e9)),
    "H": Card((0.42, 0.61, 0.71, 0.77, 0.75, 0.70, 0.71), 0.64, 708, 0.87, 1.05, (258e9, 317e9, 336e9)),
    "B200": Card((0.32, 0.51, 0.59, 0.64, 0.68, 0.68, 0.64), 0.58, 781, 0.60, 1.13, (438e9, 567e9, 617e9)),
    "B300": Card((0.31, 0.50, 0.59, 0.65, 0.69, 0.66, 0.57), 0.63, 892, 0.60, 1.13, (438e9, 567e9, 617e9)),
    "GB200": Card((0.30, 0.48, 0.58, 0.64, 0.68, 0.64, 0.56), 0.55, 733, 0.60, 1.13, (438e9, 567e9, 617e9)),
    "GB300": Card((0.31, 0.51, 0.63, 0.70, 0.76, 0.77, 0.69), 0.70, 788, 0.60, 1.13, (438e9, 567e9, 617e9)),
    "MI": Card((0.45,) * 7, 0.45, 700, 0.78, 1.00, (250e9, 280e9, 300e9)),
}
"""How a device's name begins -> its rates; the longest that fits. MI: hipBLASLt's FP8 rows of an MI300X (Azure), the
rest assumed, as the attention of an H20."""
EIGHT_BITS = (0.41, 0.41, 0.55, 0.69, 0.75, 0.76, 0.72), (0.30, 0.30, 0.48, 0.60, 0.64, 0.68, 0.69)
"""The same of FP8 on Hopper and on Blackwell, with the cast taken out (aiconfigurator, as above)."""
EIGHT_BIT_CLOCK = 1.05
"""Of FP8 products under sustained load: 1.04 to 1.09 (metered rows there)."""
FEW_ROWS = ((64, 0.12), (256, 0.39), (1 << 10, 0.58))
"""Rows an expert and the part of the peak that a grouped product of so few reaches; more: as a plain one, a twentieth
less (TensorRT-LLM's and DeepGEMM's rows there and in InferSim)."""
GROUPED = 0.95
ACCUMULATE = 0.8
"""Of the bytes of its sums that a weight gradient adds to a product's time (rows of SimuMax,
github.com/MooreThreads/SimuMax, B200: 0.77 dense, 0.83 grouped)."""
BACKWARD = 0.8
"""Attention's rate backward over that forward (cuDNN's rows of SimuMax, github.com/MooreThreads/SimuMax)."""
EXCHANGE = {"hopper": 322e9, "blackwell": 350e9}
"""Bytes a second that a dispatch moves over NVLink (DeepEP's rows in aiconfigurator); else busbw."""
NIC = 0.9
"""Of a NIC's rate that large messages reach (nccl-tests on 400 Gb/s InfiniBand, published 43 to 48 of 50 GB/s)."""
FIXED = 3.5 * MICRO, 2.0 * MICRO
"""Seconds that a product, and any other kernel, takes at least (intercepts of the rows above)."""
UPDATE = 28.0
"""Bytes that AdamW moves for a parameter: master weight and two moments read and written in FP32, its gradient read."""


def rival(scenario: Scenario) -> float:
    """Seconds of a step."""
    plan = lay_out(scenario)
    machine, parallel = assembly.unshared(plan), scenario.parallel
    held = [[unit for stage in stages for unit in machine.stages[stage]] for stages in plan.holds]
    known = {unit: _unit(plan, machine, unit) for unit in {unit._replace(layer=0) for units in held for unit in units}}
    each = sum(map(len, plan.holds)) / plan.program.stages  # positions that share a stage's micro-batches
    busiest = max(sum(known[unit._replace(layer=0)] for unit in units) for units in held) / each
    copies = scenario.data_parallel if parallel.zero else 1
    update = max(weights(machine.whole, tuple(units)).total for units in held) / parallel.tensor / copies
    chunks = plan.program.stages / plan.program.positions
    rounds = plan.micro_batches + (plan.program.positions - 1) / chunks
    return busiest * rounds + update * UPDATE / (
        _card(machine).memory * machine.pricer.device.hbm.bandwidth_bytes_per_s
    )


def _unit(plan: Plan, machine: Machine, unit: Unit) -> float:
    """Seconds of a unit forward and backward, for a micro-batch."""
    kernels = [kernel for direction in "FBW" for part in machine.parts(unit, direction)
               for kernel in part.kernels]  # fmt: skip
    overlap = plan.scenario.overlap
    hidden = (AllToAll,) * (overlap.expert is True or plan.overlapped) + (Collective,) * (overlap.tensor is True)
    return sum(_seconds(machine, kernel.op) for kernel in kernels if not isinstance(kernel.op, hidden))


def _card(machine: Machine) -> Card:
    return _named(machine.pricer.device.name)


@lru_cache
def _named(device: str) -> Card:
    return CARDS[max((name for name in CARDS if device.startswith(name)), key=len)]


def _seconds(machine: Machine, op: Op) -> float:
    """Of one operation of a rank."""
    if isinstance(op, Gemm | GroupedGemm | Attention):
        return _arithmetic(machine, op)
    if isinstance(op, Memory):
        return FIXED[1] * op.kernels + op.bytes() / (
            _card(machine).memory * machine.pricer.device.hbm.bandwidth_bytes_per_s
        )
    if isinstance(op, HostCopy | HostUpdate):
        return 0.0
    return _moved(machine, op)


def _arithmetic(machine: Machine, op: Gemm | GroupedGemm | Attention) -> float:
    device, card = machine.pricer.device, _card(machine)
    least = op.bytes() / (card.memory * device.hbm.bandwidth_bytes_per_s)
    if isinstance(op, Attention):
        reached = card.attention / (1 + card.half / op.sequence) * (1 if op.direction == "forward" else BACKWARD)
        return FIXED[1] + max(op.flop() / (reached * device.peak_flops["bf16"]), least)
    peak = device.peak_flops.get(op.precision) or device.peak_flops.get("fp8") or device.peak_flops["bf16"]
    narrow = op.precision != "bf16"
    reached = _reached(card, op, device.architecture == "hopper", narrow)
    clock = min(EIGHT_BIT_CLOCK, card.clock) if narrow else card.clock
    added = _accumulated(op) / device.hbm.bandwidth_bytes_per_s
    return FIXED[0] * op.kernels + max(op.flop() * clock / (reached * peak), least) + added


def _accumulated(op: Gemm | GroupedGemm) -> float:
    """Bytes by which a weight gradient takes longer than a product of its shape: FP32 sums read and written."""
    if op.role != "wgrad":
        return 0.0
    outputs = op.m * op.n if isinstance(op, Gemm) else op.groups * op.n * op.k
    return ACCUMULATE * outputs * (8.0 if not isinstance(op, Gemm) or op.result == "fp32" else 2.0)


def _reached(card: Card, op: Gemm | GroupedGemm, hopper: bool, narrow: bool) -> float:
    """Part of the peak."""
    row = EIGHT_BITS[0 if hopper else 1] if narrow else card.bf16
    reached = row[bisect_left(SIZES, op.flop())]
    if isinstance(op, Gemm):
        return reached
    rows = op.rows / max(op.groups, 1)
    return next((few for most, few in FEW_ROWS if rows <= most), GROUPED * reached)


def _moved(machine: Machine, op: Op) -> float:
    """Over NVLink or NICs, whichever takes longer."""
    card, node = _card(machine), machine.cluster.node
    near = card.busbw[min(2, (getattr(op, "ranks", 8) - 1) // 2)]
    near = EXCHANGE.get(node.device.architecture, near) if isinstance(op, AllToAll) else near
    nvlink = op.nvlink_bytes() if isinstance(op, AllToAll | Collective) else 0.0
    wire = op.wire_bytes() if isinstance(op, AllToAll | Collective) else 0.0
    return FIXED[1] * op.kernels + max(nvlink / near, wire / (NIC * node.nic.bandwidth * node.nics_per_gpu))
