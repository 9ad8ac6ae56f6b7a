"""The step of DeepSeek-V3 on 2,048 H800s: time, phases, rates, and what a whole pre-training run of it costs."""

from collections.abc import Mapping
from typing import Any

from hwmodels.units import GIGA, KILO, MEGA, PERCENT, SECONDS_PER_DAY, SECONDS_PER_HOUR, TERA
from sim.validation.answer import Answer, headline

PRETRAINING_TOKENS = 14.8 * TERA
"""DeepSeek-V3 report, arXiv:2412.19437, abstract."""
RENT_USD_PER_GPU_HOUR = 2.0
"""What the report assumes for an H800 (arXiv:2412.19437, table 1)."""
PHASES = ("forward", "backward", "weight", "overlapped", "bubble", "optimizer")


def answers(summary: Mapping[str, Any], gpus: int) -> dict[str, Answer]:
    """Measures of the step by name, from a summary; each in the unit its published row has."""
    hours = headline(summary, "gpu_hours_per_trillion_tokens")
    run = hours.times(PRETRAINING_TOKENS / TERA)
    rates = {
        f"{name} {kind}": headline(summary, key, kind.replace("-", "_")).times(factor)
        for name, key, factor in (("tflops", "tflops_per_gpu", 1.0), ("mfu", "mfu", 1 / PERCENT))
        for kind in ("causal", "non-causal")
    }
    return rates | {f"phase {name}": headline(summary, "phases_s", name) for name in PHASES} | {
        "step": headline(summary, "step_time_s"),
        "tokens a day": headline(summary, "tokens_per_day").times(1 / GIGA),
        "gpu hours": hours.times(1 / KILO),
        "days": hours.times(SECONDS_PER_HOUR / SECONDS_PER_DAY / gpus),
        "run gpu hours": run.times(1 / KILO),
        "run cost": run.times(RENT_USD_PER_GPU_HOUR / MEGA),
    }  # fmt: skip
