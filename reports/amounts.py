"""Figures of any unit as text."""

from hwmodels.units import GIGA, KILO, MEGA, SECONDS_PER_HOUR, TERA, format_quantity
from reports.headline import percent, seconds

JOULES_PER_MWH = MEGA * SECONDS_PER_HOUR


def amount(each: float | None, unit: str) -> str:
    """A figure as text."""
    if each is None:
        return "-"
    if unit == "seconds":
        return seconds(each)
    if unit == "share":
        return percent(each)
    if unit == "bytes":
        return format_quantity(each, "data")
    if unit == "tokens":
        return f"{each / TERA:.4g} trillion" if abs(each) >= TERA else f"{each / GIGA:.4g} billion"
    if unit == "days":
        return f"{each:.4g} days"
    if unit == "dollars":
        return f"{each / MEGA:.4g} M USD" if abs(each) >= MEGA else f"{_plain(each)} USD"
    if unit == "joules":
        return f"{_plain(each / JOULES_PER_MWH)} MWh"
    return _plain(each)


def _plain(each: float) -> str:
    return f"{each:.4g}" if abs(each) < KILO else f"{each:,.0f}"
