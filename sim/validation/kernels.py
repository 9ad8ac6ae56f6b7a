"""Single kernels and the chip at shapes nobody fitted: DeepGEMM's published H800 rates, tensor cores, latencies."""

from dataclasses import replace
from math import sqrt

from hwmodels.device import Device
from hwmodels.op import Gemm, GroupedGemm
from hwmodels.price import Pricer
from hwmodels.units import NS_PER_S, TERA
from sim.validation.answer import Answer, timed


def product(pricer: Pricer, m: int, n: int, k: int, groups: int = 1, grouped: bool = False) -> Answer:
    """TFLOP/s of an FP8 forward product on all SMs; `m` rows of each of `groups` groups."""
    alone = replace(pricer, comm_sms=0)
    op = GroupedGemm(groups, groups * m, n, k) if grouped else Gemm(m, n, k)
    return timed(alone.price(op)).inverse.times(op.flop() * NS_PER_S / TERA)


def peak(device: Device, precision: str, sms: int) -> Answer:
    """TFLOP/s of the tensor cores of `sms` SMs at the device's clock."""
    return Answer(device.peak_flops[precision] * sms / device.sms / TERA)


def latency_ratio(device: Device) -> Answer:
    """L2 latency over shared memory's."""
    return Answer(device.l2.latency_s / device.shared_memory.latency_s)


def capacity_root(device: Device) -> Answer:
    """Square root of L2's capacity over an SM's shared memory and L1."""
    return Answer(sqrt(device.l2.capacity_bytes / device.shared_memory.capacity_bytes))
