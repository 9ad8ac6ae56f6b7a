"""GPUs by the name that CUDA gives them, and which device of hwmodels each of them is."""

from hwmodels import device
from hwmodels.refused import Refused

NAMES = {
    "NVIDIA H800": "h800", "NVIDIA H200": "h200", "NVIDIA H100 80GB HBM3": "h100", "NVIDIA A100-SXM4-80GB": "a100",
}  # fmt: skip
"""cudaDeviceProp.name -> name of the device: the H800's as in deepseek-ai/profile-data train.json, the others' as the
drivers of these SXM boards report them (PCIe boards are called otherwise, and are other devices)."""


class UnknownCardError(Refused):
    """A GPU without a device document; its text says what to do, in one line."""


def device_of(name: str) -> str:
    """Name of the device in hwmodels/devices. Raises UnknownCardError."""
    if name not in NAMES:
        known = ", ".join(sorted(NAMES))
        raise UnknownCardError(
            f"no device of hwmodels/devices is known for {name!r} (known: {known}); see numerics.tables.cards"
        )
    return NAMES[name]


def reference(name: str) -> dict[str, float]:
    """What the times of a table belong to: SMs, HBM bandwidth in bytes/s and dense peaks in FLOP/s of a device."""
    card = device.load(name)
    peaks = {f"{format_}_flops": card.peak_flops[format_] for format_ in ("bf16", "fp8") if format_ in card.peak_flops}
    return {"sms": card.sms, "hbm_bytes_per_s": card.hbm.bandwidth_bytes_per_s, **peaks}
