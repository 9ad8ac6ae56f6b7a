"""The one place with scale factors: SI prefixes, bytes, seconds, and text such as "50 GB/s" both ways.

Times inside the simulator are integer nanoseconds and sizes integer bytes; everything else is SI (seconds, bytes,
bytes/s, FLOP/s, Hz, USD). B is a byte and b a bit; GB is 10^9 bytes and GiB 2^30 (IEC 80000-13).
"""

import math
import re
from difflib import get_close_matches
from functools import cache

from hwmodels.refused import Refused

KILO = 1_000
MEGA = 1_000_000
GIGA = 1_000_000_000
TERA = 1_000_000_000_000
PETA = 1_000_000_000_000_000

PERCENT = 1e-2
MILLI = 1e-3
MICRO = 1e-6
NANO = 1e-9

KB, MB, GB, TB, PB = KILO, MEGA, GIGA, TERA, PETA
KIB, MIB, GIB, TIB, PIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40, 1 << 50
BITS_PER_BYTE = 8

NS_PER_S = 1_000_000_000
US_NS = 1_000
MS_NS = 1_000_000
MS_PER_S = 1_000
US_PER_S = 1_000_000

SECONDS_PER_MINUTE = 60
SECONDS_PER_HOUR = 3_600
SECONDS_PER_DAY = 86_400

ROUNDING_SLACK = 2.0**-50
"""Part of a time that float arithmetic may have added (a few units in the last place) and rounding up must ignore."""

EXAMPLES = {
    "data": "80 GB",
    "time": "2.8 us",
    "data/time": "50 GB/s",
    "FLOP/time": "989 TFLOP/s",
    "frequency": "1.83 GHz",
    "power": "700 W",
    "money": "2 USD",
    "money/time": "2 USD/h",
    "ratio": "80 %",
}
"""The dimensions that `parse` knows, each with a text that is right."""

_PREFIXES = {"": 1, "k": KILO, "K": KILO, "M": MEGA, "G": GIGA, "T": TERA, "P": PETA}
_BINARY = {"Ki": KIB, "Mi": MIB, "Gi": GIB, "Ti": TIB, "Pi": PIB}
_TIMES = {
    "ns": NANO, "us": MICRO, "µs": MICRO, "μs": MICRO, "ms": MILLI, "s": 1.0,
    "min": SECONDS_PER_MINUTE, "h": SECONDS_PER_HOUR, "day": SECONDS_PER_DAY, "days": SECONDS_PER_DAY,
}  # fmt: skip
_PRINTED = {
    "data": ("B", "kB", "MB", "GB", "TB", "PB"),
    "data/time": ("B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s"),
    "FLOP/time": ("FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s"),
    "frequency": ("Hz", "kHz", "MHz", "GHz"),
    "power": ("W", "kW"),
    "time": ("ns", "us", "ms", "s"),
    "money": ("USD",),
    "money/time": ("USD/h",),
    "ratio": ("%",),
}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*\Z")


LONGEST_NS = 1 << 53
"""Upper limit of a time, 104 days: a float tells neighbouring nanoseconds apart so far."""
LARGEST_BYTES = 1 << 60
"""Upper limit of a part of what a rank holds, 1 EB: the sum of all parts still is a whole number of 64 bits."""


def too_large(figure: str) -> Refused:
    """The refusal of a figure that no whole number of nanoseconds or bytes holds. figure: which, and what is legal."""
    return Refused(
        f"a time or a size is too large to count ({figure}): look for a bandwidth that is too small, or a time, a"
        " number of tokens or a dimension of the model that is too large"
    )


def seconds_to_ns(seconds: float) -> int:
    """Whole nanoseconds of a duration in seconds, rounded up (times round up once, when they are made).

    Raises Refused for one that is too long to count.
    """
    if not seconds >= 0:
        raise ValueError(f"a duration is a number of seconds, 0 or more; got {seconds!r}")
    ns = seconds * NS_PER_S
    if ns > LONGEST_NS:
        raise too_large(f"found {seconds:.3g} s; legal: up to {LONGEST_NS // NS_PER_S} s")
    return math.ceil(ns - ns * ROUNDING_SLACK)


def whole_bytes(size: float) -> int:
    """Bytes of a size, rounded to the nearest. Raises Refused for one that is too large to count."""
    if size > LARGEST_BYTES:
        raise too_large(f"found {size:.3g} bytes; legal: up to {LARGEST_BYTES}")
    return round(size)


def ns_to_seconds(ns: float) -> float:
    """Seconds of a time in nanoseconds, rounded to the nearest float."""
    return ns / NS_PER_S


@cache
def units() -> dict[str, tuple[str, float]]:
    """Every unit that `parse` reads: its name -> (dimension, SI value of one)."""
    data = {p + "B": float(v) for p, v in (_PREFIXES | _BINARY).items()}
    data |= {p + b: v / BITS_PER_BYTE for p, v in (_PREFIXES | _BINARY).items() for b in ("b", "bit")}
    table = {name: ("data", value) for name, value in data.items()}
    table |= {f"{name}/s": ("data/time", value) for name, value in data.items()}
    table |= {name: ("time", value) for name, value in _TIMES.items()}
    table |= {p + "FLOP/s": ("FLOP/time", float(v)) for p, v in _PREFIXES.items()}
    table |= {p + "Hz": ("frequency", float(v)) for p, v in _PREFIXES.items()}
    table |= {"W": ("power", 1.0), "kW": ("power", float(KILO))}
    table |= {"USD": ("money", 1.0), "%": ("ratio", PERCENT)}
    return table | {f"USD/{t}": ("money/time", 1 / _TIMES[t]) for t in ("s", "h", "day")}


def parse(text: str | int | float, dimension: str) -> float:
    """The SI value of `text`, a number with a unit of `dimension` (a key of EXAMPLES).

    A bare number is an error unless it is 0 or a ratio. Raises Refused.
    """
    example = EXAMPLES[dimension]
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise Refused(f'{text!r} is not a quantity, expected {dimension} (e.g. "{example}")')
    match = _NUMBER.match(str(text))
    if match is None:
        raise Refused(f'{str(text)!r} is not a number with a unit, expected {dimension} (e.g. "{example}")')
    number, unit = float(match[1]), match[2]
    value = number * _factor(match[1], unit, str(text).strip(), dimension)
    if math.isinf(value):
        raise Refused(f"{str(text)!r} is too large")
    if value < 0:
        raise Refused(f'{str(text)!r} is below zero, expected {dimension} (e.g. "{example}")')
    return value


def _factor(number: str, unit: str, text: str, dimension: str) -> float:
    """What one `unit` is worth in SI, or Refused when it is missing, unknown or of another dimension."""
    if not unit:
        if float(number) == 0 or dimension == "ratio":
            return 1.0
        raise Refused(f'number {number} needs a unit, e.g. "{number} {EXAMPLES[dimension].split()[-1]}"')
    if unit not in units():
        raise Refused(f"unknown unit {unit!r}{_nearest(unit, dimension)}")
    kind, factor = units()[unit]
    if kind != dimension:
        raise Refused(f'{text!r} is {kind}, expected {dimension} (e.g. "{EXAMPLES[dimension]}")')
    return factor


def _nearest(unit: str, dimension: str) -> str:
    """ ", did you mean 'GB/s'?" with the likeliest legal unit, those of the expected dimension first; both where only
    case would tell bits from bytes."""
    same = [name for name, (kind, _) in units().items() if kind == dimension]
    written = unit.replace("ps", "/s")
    for names in (same, list(units())):
        folded = [name for name in names if name.lower() == written.lower() or name.lower() == unit.lower()]
        if written not in folded and len({_bits(name) for name in folded}) > 1:
            bit, byte = (next(name for name in folded if _bits(name) is bits) for bits in (True, False))
            return f", did you mean {bit!r} (bits) or {byte!r} (bytes)?"
        near = [written] if written in folded else folded
        if near := near or get_close_matches(written, names, n=1, cutoff=0.6):
            return f", did you mean {near[0]!r}?"
    return f"; units of {dimension} are like {EXAMPLES[dimension].split()[-1]!r}"


def _bits(unit: str) -> bool:
    """Whether a unit of data is of bits."""
    return unit.removesuffix("/s").endswith(("b", "bit"))


def format_quantity(value: float, dimension: str) -> str:
    """`value` (SI) as people write it, in four digits: "50 GB/s", "129.0 ms", "80 GB", "12.5 %"."""
    names = _PRINTED[dimension]
    scaled = _scaled(value, dimension)
    step = 0
    while step + 1 < len(names) and abs(scaled) >= KILO - 0.05:
        scaled, step = scaled / KILO, step + 1
    if dimension != "time" or not value:
        return f"{scaled:.4g} {names[step]}"
    digits = max(0, 3 - int(math.log10(max(abs(scaled), 1.0))))
    return f"{scaled:.{digits}f} {names[step]}"


def _scaled(value: float, dimension: str) -> float:
    """`value` in the smallest unit that is printed for `dimension`."""
    smallest = {"time": NS_PER_S, "ratio": 1 / PERCENT, "money/time": SECONDS_PER_HOUR}
    return value * smallest.get(dimension, 1)
