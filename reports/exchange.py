"""Exchanges from inside: lanes of every role of a channel, what each waits for, and rows in flight to its buffers."""

from collections.abc import Sequence
from html import escape
from typing import IO, Any

from hwmodels.units import NS_PER_S
from reports.headline import percent, seconds
from reports.page import whole
from reports.section import Section, legend, plot, table
from sim.result import ChannelLanes

MARK = '<p class="brand">Trainyard</p><h1>Exchanges of '
"""What tells a page of ours from another file of its name."""
WORKS = ("works", "#3d4a8a")
WAITS = {
    "rows": ("waits for rows", "#f2cf8a"),
    "room at forwarders": ("waits for room at forwarders", "#d55e00"),
    "room at receivers": ("waits for room at receivers", "#cc79a7"),
}
"""What a role waits for -> how the page says and colours it."""
LINKS = {"network": "#009e73", "NVLink": "#56b4e9"}
"""Colours of rows in flight."""
MOST = 4_000
"""Bars and points of a figure at most: shorter waits are left out first."""


def render(scenario: str, channels: Sequence[ChannelLanes]) -> str:
    """The page of a scenario's exchanges, as HTML text."""
    parts = [section(place, channel) for place, channel in enumerate(channels)]
    header = (
        f"{MARK}{escape(scenario)}</h1>"
        '<p class="sub">The first channel of the first rank of a group, role by role, alone and with even loads</p>'
    )
    return whole(f"Exchanges of {scenario}", header, parts)


def section(place: int, channel: ChannelLanes) -> Section:
    """One exchange."""
    key = f"channel{place}"
    colours = dict.fromkeys([WORKS, *(WAITS[why] for _, _, _, why in channel.spans if why)])
    links = [(f"rows in flight, {link}", LINKS[link]) for link in channel.flying]
    figures = table(
        ("", ""), [(escape(name), escape(said(value))) for name, value in channel.figures], text_columns=(0,)
    )
    body = (
        f"{legend([*colours, *links])}{plot(key, f'roles of a channel in {channel.exchange}')}"
        f'<div class="two"><div><h3>Roles of the channel</h3>{_spent(channel)}</div>'
        f"<div><h3>The exchange</h3>{figures}</div></div>"
    )
    data: dict[str, Any] = {
        "key": key, "roles": list(channel.roles), "end": channel.end / NS_PER_S, "bars": _bars(channel),
        "flying": [_curve(link, points, LINKS[link]) for link, points in channel.flying.items()],
    }  # fmt: skip
    return Section(key, channel.exchange, "", body, data)


def _bars(channel: ChannelLanes) -> list[list[Any]]:
    """Place of the role, start and length in seconds, what it does, colour; the longest of them."""
    places = {role: place for place, role in enumerate(channel.roles)}
    spans = sorted(channel.spans, key=lambda span: span[1] - span[2])[:MOST]
    looks = {"": WORKS} | WAITS
    return [[places[role], a / NS_PER_S, (b - a) / NS_PER_S, *looks[why]] for role, a, b, why in sorted(spans)]


def _curve(link: str, points: Sequence[tuple[int, int]], colour: str) -> dict[str, Any]:
    step = -(-len(points) // MOST)
    kept = points[::step]
    return {
        "name": link, "colour": colour, "x": [time / NS_PER_S for time, _ in kept], "y": [rows for _, rows in kept],
    }  # fmt: skip


def _spent(channel: ChannelLanes) -> str:
    rows = [(escape(role), escape(what), time, share) for role, what, time, share in spent(channel)]
    return table(("role", "", "time", "share"), rows, text_columns=(0, 1))


def said(value: float | str) -> str:
    """A figure as text; numbers are seconds."""
    return value if isinstance(value, str) else seconds(value)


def spent(channel: ChannelLanes) -> list[tuple[str, str, str, str]]:
    """Role, what it does, for how long, and how much of the exchange that is."""
    looks = {"": WORKS} | WAITS
    return [
        (role, looks[why][0], seconds(ns / NS_PER_S), percent(ns / channel.end)) for role, why, ns in channel.spent()
    ]


def show(channels: Sequence[ChannelLanes], stream: IO[str], width: int) -> None:
    """Print lanes of `width` letters, and what each role spent its time on."""
    for channel in channels:
        stream.write(f"{channel.exchange}: {seconds(channel.end / NS_PER_S)}\n")
        for name, value in channel.figures:
            stream.write(f"  {name}: {said(value)}\n")
        for role in channel.roles:
            stream.write(f"  {role:8} {_lane(channel, role, width)}\n")
        for link in channel.flying:
            stream.write(f"  {link:8} {_flight(channel, link, width)}\n")
        for role, what, time, share in spent(channel):
            stream.write(f"  {role:8} {what:32} {time:>10} {share:>7}\n")
        stream.write("\n")
    stream.write("# works, . waits for rows, f for room at forwarders, r at receivers; 0 to 9: tenths of the\n")
    stream.write("most rows in flight to buffers behind a link, credits on their way back included\n")


LETTERS = {"": "#", "rows": ".", "room at forwarders": "f", "room at receivers": "r"}


def _lane(channel: ChannelLanes, role: str, width: int) -> str:
    """For each of `width` parts of the exchange what the role does for most of it."""
    cells = [dict.fromkeys(LETTERS, 0) for _ in range(width)]
    for name, start, end, why in channel.spans:
        if name == role:
            for cell in range(start * width // channel.end, min(width - 1, (end - 1) * width // channel.end) + 1):
                low, high = cell * channel.end // width, (cell + 1) * channel.end // width
                cells[cell][why] += max(0, min(end, high) - max(start, low))
    return "".join(LETTERS[max(cell, key=cell.__getitem__)] if any(cell.values()) else " " for cell in cells)


def _flight(channel: ChannelLanes, link: str, width: int) -> str:
    points, most, place, rows, text = channel.flying[link], channel.room[link], 0, 0, ""
    for cell in range(width):
        while place < len(points) and points[place][0] * width <= (cell + 0.5) * channel.end:
            rows, place = points[place][1], place + 1
        text += str(min(9, 10 * rows // max(1, most)))
    return text
