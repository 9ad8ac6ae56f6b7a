"""Tables of library kernels on cards that were not measured here (`hwmodels.kernels`), from published times of theirs.

Nothing here knows of a training step: a folder of kernels' times goes in, one file a card comes out, the same every
time.
"""

from pathlib import Path

from numerics.tables import attention_models, calibrate, product_models, provenance, published, stream_models
from numerics.tables.calibrate import Table, rounded
from numerics.tables.published import CARDS, LIBRARY, OF, Card

ENTRIES = ("numerics.tables.kernel_models:made",)


def made(folder: Path) -> dict[str, Table]:
    """Device -> its table, from a folder of published kernels. Raises Refused."""
    rows = published.lines(folder)
    files = {name: provenance.digest_of(folder / name) for name in published.FILES}
    program = {"entries": list(ENTRIES), "files": provenance.program(ENTRIES)}
    accumulated = product_models.accumulate(rows)
    out = {}
    for card in CARDS:
        heads = attention_models.models(rows, card)
        level = attention_models.trained(rows, card)
        heads = [part._replace(row=part.row | {"times": rounded(part.row["times"] * level)}) for part in heads]
        parts = [*product_models.models(rows, card), *heads, *stream_models.models(rows, card)]
        used = set().union(*(part.sources for part in parts))
        out[card.devices[0]] = {
            "device": card.devices[0], "library": LIBRARY, "of": OF,
            "devices": [Card((name,), "").device.name for name in card.devices],
            "source": "published times of single kernels, thinned; figures only",
            "fit": {
                "accumulate": rounded(accumulated), "backward": rounded(attention_models.backward(rows, card)),
                "served": rounded(attention_models.served(rows)), "trained": rounded(level),
            },
            "rows": [part.row for part in parts],
            "provenance": {
                "command": "python -m numerics tables --data DIR", "measured": "published, collected 2026-11-29",
                "inputs": files, "sources": published.sources(rows, used), "program": program,
            },
        }  # fmt: skip
    return out


def write(data: Path, out: Path) -> list[str]:
    """Make the tables of a folder of published kernels below another; the names of those that were written. Raises
    Refused."""
    tables = made(data)
    for device, table in tables.items():
        calibrate.write({"kernels": table}, out / device / LIBRARY)
    return [f"{device}/{LIBRARY}" for device in tables]
