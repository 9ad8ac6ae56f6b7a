"""What prices of library kernels are worth on cards that were not measured here (docs/PRICES.md), from their tables."""

import json
from collections.abc import Iterator
from typing import Any

from hwmodels.kernels import FILE
from hwmodels.tables import FOLDER
from numerics.accuracy.markdown import percent, prose, table

ELSEWHERE = """
On other cards a library's kernels are those that were published of the card (`python -m numerics tables`, from public
tables of single kernels; each file says the sources with their versions and licences). A product takes the least over
seven tiles of its rounds of tiles on the SMs, or its bytes, after a fixed cost: six numbers a card and format. *rows*:
published ones of 1,024 rows and more; *median*, *95 %*: what comes back of products whose weights (all their rows) had
no say in the fit, by sixths. Casts are taken out of FP8 rows. An input's gradient is the product of the transposed
weights; a weight's gradient that of its sides over the tokens, and its FP32 sums are read and written at {accumulate}
times the time that bandwidth allows (TransformerEngine's grouped products on a B200 and an A100). Grouped products fill
tiles group by group, at 0.95 of a dense product's rate.

Published rows are bursts. *clock*: how many times as long the SMs take without a pause under the card's power limit as
rested: what metered products took, of a second and more (B200, GB200; FP8's without their casts), those of
TransformerEngine's guide (B300), or those as they draw on the same chip under another limit (GB300, by the law of
hwmodels/power.py). A training step of Megatron or torch has a clock of its own between a rested card's and that, by
what its kernels draw (hwmodels/pace.py). A low state that TransformerEngine's products had on one B200 is 1.46 times a
rested card's time, so the *spread* of a price has an interval of 1 to 1.35 (FP8 1.15) in it besides what left-out rows
show (*alone*: the least that covers nine of ten of them). *covered*: the part of them that it does. MXFP8 and NVFP4
take 1.040 and 0.536 times as long as FP8, as TransformerEngine's products did on a B300, all twelve of a layer
together, without the kernels that order their scales: their spreads are judgements, as are MI300X's in BF16. Azure's
products in NVFP4 are no input: half their operands were zeros (numerics/tables/product_formats.py).
"""
CARRIED = """
Attention is the H200's, carried over by peaks, times a ratio that published forward kernels of 8,192 tokens and more
give for a pair of widths along a parabola of the work's logarithm (shorter ones were timed in serving's paged form,
which is slower than training's). Those are bursts, of served kernels; no clock is put on them: on the H200 itself they
take {served} of the price, which has training's clock. Where training's own forward kernels were published, the ratio
takes their level: {trained}. What is left out is all rows of as many heads. *backward*: how many times its share of the
forward it takes over the H200's, by TransformerEngine's kernels of a B200 and an A100. SimuMax published those, with
its steps, so these steps are no test of them.

Memory-bound kernels are the H200's, whose bytes come at the part of HBM's bandwidth that published kernels reach: casts
to FP8 of 64 MB and more, and all others by what bytes cost from one size to the next in Triton's norms, softmax and
rotations, and a copy. Casts reach little on Blackwell (0.9 on Hopper); above 400 MB they reach 0.7 to 0.8. What comes
back there is the H200's cast of the same size, carried over.
"""


def elsewhere() -> str:
    """The section on other cards."""
    made = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob(f"*/*/{FILE}"))]
    products = "card | format | rows | median | 95 % | alone | covered | clock | part of peak | spread | beyond"
    others = "card | kernel | rows | median | 95 % | alone | covered | spread"
    accumulate = {each["fit"]["accumulate"] for each in made}
    return "\n\n".join((
        prose(ELSEWHERE, accumulate=", ".join(f"{each:.2f}" for each in sorted(accumulate))),
        table(products, [line for each in made for line in _products(each)]),
        prose(CARRIED, served=f"{made[0]['fit']['served']:.2f}", trained=_trained(made)),
        table(others, [line for each in made for line in _carried(each)]),
    ))  # fmt: skip


def _trained(made: list[dict[str, Any]]) -> str:
    levels = [(each["device"], each["fit"]["trained"]) for each in made if each["fit"]["trained"] != 1]
    return ", ".join(f"{device} {level:.2f}" for device, level in levels)


def _products(made: dict[str, Any]) -> Iterator[list[str]]:
    for row in made["rows"]:
        if row["op"] == "product":
            yield [made["device"], row["precision"].upper(), *_left_out(row), f"{row['clock']:.2f}",
                   f"{row['tiles']['part']:.2f}", percent(row["spread"]), percent(row["held"])]  # fmt: skip


def _carried(made: dict[str, Any]) -> Iterator[list[str]]:
    for row in made["rows"]:
        if row["op"] == "attention":
            name = f"attention {row['qk']}" + (f", {row['v']}" if row["v"] != row["qk"] else "")
            name += f", {row['times']:.2f} of the H200's, backward {made['fit']['backward']:.2f}"
            yield [made["device"], name, *_left_out(row), percent(row["spread"])]
        elif row["op"] == "memory":
            name = f"{row['kind']}, {row['part']:.2f} of HBM"
            yield [made["device"], name, *_left_out(row), percent(row["spread"])]


def _left_out(row: dict[str, Any]) -> list[str]:
    """Rows, median, 95th percentile, spread alone, covered."""
    errors = row.get("errors")
    if not errors:
        return ["", "", "", "", ""]
    alone = percent(errors["alone"]) if "alone" in errors else percent(row["spread"])
    return [str(errors["rows"]), percent(errors["median"]), percent(errors["p95"]), alone, percent(errors["covered"])]
