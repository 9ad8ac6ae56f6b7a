"""Timing on a GPU: CUDA events around single calls with a cold L2, what the card did meanwhile, and its ceilings.

Nothing here imports triton; torch is imported where a call needs it. Every figure keeps its repetitions and spread.
"""

import hashlib
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hwmodels.units import GIB, MS_PER_S, US_PER_S

FLUSH_BYTES = GIB // 4
"""Written before every call: four times the 60 MB of an H200's L2 (NVIDIA H200 as torch reports it)."""
AHEAD_CYCLES = 1_000_000
"""GPU clock cycles of sleep before every call, about half a millisecond: the host has then enqueued all of it, and the
events enclose work on the GPU and no waiting for launches."""
SPIN_CYCLES, IN_A_ROW = 20_000, 100
"""Clock cycles of a kernel of known work, about 10 microseconds, and how many of it follow each other."""
SAMPLE_MS = 50
"""Period of nvidia-smi's readings."""
QUERY = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")

REASONS = {
    0x2: "application clocks", 0x4: "software power cap", 0x8: "hardware slowdown", 0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown", 0x80: "hardware power brake",
}  # fmt: skip
"""Bits of nvidia-smi's reasons for clocks below the highest (NVML API reference, nvmlClocksEventReasons). Idle (0x1)
and the display's (0x100) say nothing of a kernel."""
REASON_FIELDS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""What nvidia-smi calls them, since and before driver 535."""


class NoDevice(RuntimeError):  # noqa: N818 - it names what is missing
    """There is no CUDA device, so nothing can be measured; its text says so in one line."""


@dataclass(frozen=True)
class Timing:
    """Microseconds of one call: median, 10 % and 90 % quantiles, of `repetitions` calls."""

    median_us: float
    low_us: float
    high_us: float
    repetitions: int

    def less(self, us: float) -> "Timing":
        """Without something that was timed along with every call."""
        return Timing(self.median_us - us, self.low_us - us, self.high_us - us, self.repetitions)


def require_device() -> None:
    """Raise NoDevice unless torch sees a CUDA device."""
    try:
        import torch
    except ImportError:
        hint = "pip install trainyard[numerics]"
        raise NoDevice(f"nothing can be measured here: torch is not installed ({hint})") from None
    if not torch.cuda.is_available():
        raise NoDevice("nothing can be measured here: torch sees no CUDA device")


def time_call(call: Callable[[], Any], repetitions: int = 50, warmup: int = 5) -> Timing:
    """Time `call` on the current CUDA device, L2 flushed before each repetition.

    The first calls (compilation, allocation) are not counted. Raises what the call raises.
    """
    import torch

    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for _ in range(warmup):
        call()
    torch.cuda.synchronize()
    pairs = []
    for _ in range(repetitions):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(AHEAD_CYCLES)
        flush.zero_()
        start.record()
        call()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return summary([start.elapsed_time(end) * US_PER_S / MS_PER_S for start, end in pairs])


def events_us() -> float:
    """Microseconds by which a kernel between two events takes longer than one of many in a row, launch gap included."""
    import torch

    def spin() -> None:
        torch.cuda._sleep(SPIN_CYCLES)

    def row() -> None:
        for _ in range(IN_A_ROW):
            spin()

    return time_call(spin).median_us - time_call(row).median_us / IN_A_ROW


def summary(us: list[float]) -> Timing:
    """Median and 10 % and 90 % quantiles of some times."""
    if len(us) == 1:
        return Timing(us[0], us[0], us[0], 1)
    tenths = statistics.quantiles(us, n=10, method="inclusive")
    return Timing(statistics.median(us), tenths[0], tenths[-1], len(us))


# --- ceilings ---------------------------------------------------------------------------------------------------------


def ceilings(repetitions: int = 20) -> dict[str, float]:
    """What this card reaches now: bytes/s of a 1 GiB copy (read and written), and FLOP/s of BF16 and FP8 products.

    The products are torch's of 8192^3 on random data (zeros draw less power and run faster); fp8 is one scale a tensor
    with the tensor core's own accumulation, the fastest that the library has.
    """
    import torch

    source = torch.empty(GIB, dtype=torch.uint8, device="cuda").random_(0, 256)
    target = torch.empty_like(source)
    copy = time_call(lambda: target.copy_(source), repetitions)
    rates = {"copy_bytes_per_s": 2 * GIB / copy.median_us * US_PER_S}
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    one = torch.ones((), device="cuda")
    x, y = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn)
    calls: dict[str, Callable[[], Any]] = {
        "bf16_flop_per_s": lambda: a @ b.t(),
        "fp8_flop_per_s": lambda: torch._scaled_mm(x, y.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True),
    }
    for name, call in calls.items():
        rates[name] = 2 * n**3 / time_call(call, repetitions).median_us * US_PER_S
    return rates


# --- the card meanwhile -----------------------------------------------------------------------------------------------


class Monitor:
    """Reads clocks, power and temperature through nvidia-smi while its `with` block runs; without nvidia-smi, nothing.

    `between(start, end)` (time.monotonic seconds) gives the means of the readings inside, {} where there are none.
    """

    def __init__(self) -> None:
        self.readings: list[tuple[float, list[float]]] = []
        self.reasons: list[tuple[float, int]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Monitor":
        if tool := shutil.which("nvidia-smi"):
            fields = [*QUERY, *reasons_field(tool)]
            query = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "-i", "0"]
            command = [*query, "-lms", str(SAMPLE_MS)]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()

    def _read(self) -> None:
        assert self._process and self._process.stdout
        for line in self._process.stdout:
            figures, bits = split(line)
            if bits is not None:
                self.reasons.append((time.monotonic(), bits))
            if (values := parsed(figures)) is not None:
                self.readings.append((time.monotonic(), values))

    def between(self, start: float, end: float) -> dict[str, float]:
        inside = [values for at, values in self.readings if start <= at <= end]
        return {name: statistics.fmean(column) for name, column in zip(QUERY, zip(*inside, strict=True), strict=False)}

    def slowed(self, start: float, end: float) -> dict[str, float]:
        """Reason -> share of the readings between two times in which it held the clocks back."""
        inside = [bits for at, bits in self.reasons if start <= at <= end]
        shares = {
            name: sum(bool(bits & bit) for bits in inside) / len(inside) for bit, name in REASONS.items() if inside
        }
        return {name: share for name, share in shares.items() if share}


def reasons_field(tool: str) -> tuple[str, ...]:
    """What this nvidia-smi calls the reasons, as one field, or none when it knows them by no name."""
    for field in REASON_FIELDS:
        command = [tool, f"--query-gpu={field}", "--format=csv,noheader", "-i", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.returncode and done.stdout.strip().startswith("0x"):
            return (field,)
    return ()


def split(line: str) -> tuple[str, int | None]:
    """A line of figures, and the bits of its last column where that is hexadecimal."""
    figures, _, last = line.strip().rpartition(",")
    return (figures, int(last, 16)) if last.strip().startswith("0x") else (line, None)


def parsed(line: str) -> list[float] | None:
    """One line of nvidia-smi's CSV, or None where it says something else (such as [N/A])."""
    try:
        values = [float(word) for word in line.split(",")]
    except ValueError:
        return None
    return values if len(values) == len(QUERY) else None


# --- provenance -------------------------------------------------------------------------------------------------------


def provenance(repetitions: int) -> dict[str, Any]:
    """Where figures come from: device, driver, versions, hashes of the kernels' sources, command, date."""
    import torch
    import triton

    device = torch.cuda.get_device_properties(0)
    return {
        "device": device.name, "sms": device.multi_processor_count, "memory_bytes": device.total_memory,
        "compute_capability": f"{device.major}.{device.minor}", "driver": driver(), "cuda": torch.version.cuda,
        "torch": torch.__version__, "triton": triton.__version__, "python": platform.python_version(),
        "sources": sources(), "command": "python -m numerics " + " ".join(sys.argv[1:]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "repetitions": repetitions,
        "method": f"CUDA events, median; {FLUSH_BYTES} bytes written before each call; random operands",
    }  # fmt: skip


def driver() -> str:
    """The driver's version, or "unknown"."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return "unknown"
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader", "-i", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def sources(folder: Path = Path(__file__).parents[1] / "kernels") -> Mapping[str, str]:
    """File name -> first 16 digits of the SHA-256 of each kernel source."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(folder.glob("*.py"))}
