"""Products in formats whose tensor cores take a scale for a few elements (MXFP8, NVFP4), which no table has."""

from hwmodels.device import Device
from hwmodels.op import Gemm, GroupedGemm
from hwmodels.transfer import Quote

FP8, BLOCKS = "fp8", ("mxfp8", "nvfp4")
"""The format whose kernels they are priced by; formats without tables."""
HELD = 0.25
"""Relative spread of a part of the peak that is held for another format, as that of BF16 by FP8 (`hwmodels.price`)."""


def at_peak(device: Device, op: Gemm | GroupedGemm, quote: Quote) -> Quote:
    """The quote of an FP8 product for one in another format: the same part of its own peak."""
    faster = device.peak_flops[FP8] / device.peak_flops[op.precision]
    source = f"{quote.source}, FP8's part of the peak held for {op.precision}"
    return quote._replace(us=quote.us * faster, rung="transferred", source=source, spread=max(quote.spread, HELD))
