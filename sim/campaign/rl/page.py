"""docs/RL.md: what a step of reinforcement learning is, and published steps beside ours."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hwmodels.collectives import wires
from hwmodels.units import MILLI
from sim.campaign.rl import weights
from sim.campaign.rl.answer import run
from sim.campaign.rl.hosts import TIDIED, TIDIED_REFERENCE, TIDIED_TURNS, received_s
from sim.campaign.rl.rows import FILE, Compared, compared, content, learning
from sim.campaign.rl.values import RESHARD
from sim.result.markdown import table
from sim.scenario.shelves import SCENARIOS

PAGE = SCENARIOS.parent / "docs" / "RL.md"
TEXT = Path(__file__).with_name("page.md")
"""What the page says, with places for tables in braces."""
NEAR = 0.15
SPREADS = {0.3: 667, 0.45: 644, 0.6: 621, 0.8: 597}
"""Sigma -> the median whose answers, cut off after 1,426 tokens, have a mean of 701 (of 2^20 draws)."""
V3, DOUBLE, OFF, LATER = "RL-NR-V3-256", "RL-NR-V3-512", "RL-NR-V3-512A", "NR-2779-256"
MIXTURE = "NR-03-Q30"
V3_REFIT = 35
"""Seconds until DeepSeek-V3's weights are there, in October 2025 (pull request 1267)."""
DENSE = ("NR-959-8B", "NR-959-70B", "NR-03-Q32")


def page() -> str:
    """The whole page."""
    both = {each.row["id"]: each for each in compared()}
    errors = sorted(abs(each.error) for each in both.values())
    one, two, off, later = both[V3], both[DOUBLE], both[OFF], both[LATER]
    step, longer = float(one.ours["step_s"]), float(two.ours["step_s"])
    return TEXT.read_text(encoding="utf-8").format(
        rows=_rows(both.values()), parts=_parts(both.values()), count=len(errors), spreads=_spreads(),
        operations=_operations(both),
        within=sum(error <= NEAR for error in errors), median=f"{errors[len(errors) // 2]:.0%}",
        slow=sum(each.error < 0 for each in both.values()), sources=_sources(),
        left_out=table(("rows", "why not"), content()["left_out"].items(), ()),
        v3_double_published=two.row["step_s"], v3_published=two.row["step_s"] / one.row["step_s"] - 1,
        v3_one=step, v3_two=longer, v3_ours=longer / step - 1, v3_rollout=one.ours["parts_s"]["rollout"],
        v3_rollout_two=two.ours["parts_s"]["rollout"], v3_bubble=one.ours["update"]["bubble"],
        v3_bubble_two=two.ours["update"]["bubble"], v3_off=off.ours["step_s"],
        v3_reshard=_reshard_s(),
        v3_states=_states_s(one), v3_states_two=_states_s(two), v3_missing=_missing_s(one),
        v3_sync=one.ours["parts_s"]["sync"],
        v3_places=one.ours["parts_s"]["places"], v3_change=one.ours["parts_s"]["change"], v3_hosts=_hosts_s(),
        v3_missing_two=_missing_s(two), v3_missing_off=_missing_s(off), gb_missing=_missing_s(both["RL-NR-GB-128"]),
        gb_missing_two=_missing_s(both["RL-NR-GB-256"]), v3_sent=_sent(one),
        v3_once=one.ours["parts_s"]["old_log_probs"] + _sent(one), v3_even=_evenly(one),
        v3_layer_ms=_layer_s(one) / MILLI,
        q30_forward=_timed_forward(both[MIXTURE]), q30_update=_timed_update(both[MIXTURE]),
        q30_forward_published=both[MIXTURE].row["parts"]["log_probs"],
        q30_update_published=both[MIXTURE].row["parts"]["update"],
        dense_forward=_errors(both, "log_probs"), dense_update=_errors(both, "update"),
        v3_refit=_refit_s(one), v3_later=later.ours["step_s"], v3_later_error=later.error,
        v3_trains=later.row["step_s"] - later.row["parts"]["rollout"] - V3_REFIT,
        v3_trains_ours=later.ours["step_s"] - _generation_s(later) - _refit_s(later),
        v3_tidied=(TIDIED_TURNS + TIDIED_REFERENCE) * TIDIED, v3_off_error=off.error,
        v3_generation=_generation_s(later), v3_away=one.ours["parts_s"]["away"],
        v3_decode_ms=one.ours["parts_s"]["rollout"] / learning(one.row).answers.most / MILLI, v3_forward=_forward(one),
        v3_update=one.ours["parts_s"]["update"],
    )  # fmt: skip


def _generation_s(each: Compared) -> float:
    """Until the engine sleeps, as NeMo-RL times it."""
    return float(each.ours["parts_s"]["rollout"] + each.ours["parts_s"]["places"] / 2)


def _refit_s(each: Compared) -> float:
    """Until new weights are where rollouts are made, what makes room for them among it."""
    parts = each.ours["parts_s"]
    return float(parts["away"] + parts["sync"] + parts["places"] / 2)


def _evenly(each: Compared) -> float:
    """Seconds of passes and update with experts that are all liked alike."""
    over = {**each.row.get("over", {}), "routing": {"kind": "balanced", "histogram": None}}
    parts = run(learning({**each.row, "over": over})).summary["rl"]["parts_s"]
    return float(parts["old_log_probs"] + parts["reference_log_probs"] + parts["update"])


def _layer_s(each: Compared) -> float:
    """Of one layer and micro-batch in an update, forward, again and backward, as its pipeline has it."""
    placement, update = content()["shared"][each.row["shared"]]["placement"], each.ours["update"]
    return float(update["step_s"] / (update["micro_batches"] + len(placement) - 1) / max(placement))


def _missing_s(each: Compared) -> float:
    """Published seconds of a step less ours."""
    return float(each.row["step_s"]) - float(each.ours["step_s"])


def _errors(both: Mapping[str, Compared], part: str) -> str:
    """How far ours is off for dense models, least and most."""
    dense = [both[row] for row in DENSE]
    timed = {"log_probs": _timed_forward, "update": _timed_update}[part]
    ours = [timed(each) for each in dense]
    off = sorted(own / each.row["parts"][part] - 1 for own, each in zip(ours, dense, strict=True))
    return f"{off[-1]:+.0%} to {off[0]:+.0%}"


def _reshard_s() -> float:
    """Weights of DeepSeek-V3 by links alone, each part where it belongs."""
    own = learning(content()["rows"][0])
    links = wires(own.cluster.node, own.cluster.fabric)
    return weights.sync_s(replace(own, sync=replace(own.sync, method=RESHARD)), links)


def _states_s(each: Compared) -> float:
    """Optimizer states to the host and back."""
    return float(each.ours["parts_s"]["away"] + each.ours["parts_s"]["back"])


def _hosts_s() -> float:
    """What hosts need to put DeepSeek-V3's tensors in place, links aside."""
    whole = weights.size(learning(content()["rows"][0]))
    return received_s(whole.tensors, whole.each)


def _rows(both: Iterable[Compared]) -> str:
    head = ("row", "model", "GPUs", "steps off", "published, s", "ours, s", "off by", "rollout, s", "tail, s",
            "batches sent, s", "log-probabilities, s", "update, s", "host and back, s", "weights, s")  # fmt: skip
    return table(head, (_row(each) for each in both), range(2, 14))


def _row(each: Compared) -> Sequence[str]:
    own, parts = each.ours, each.ours["parts_s"]
    gpus = own["gpus"]["training"]
    shown = f"{gpus} + {own['gpus']['rollouts']}" if own["apart"] else str(gpus)
    moved = parts["away"] + parts["back"] + parts["places"] + parts["change"]
    seconds = (parts["rollout"], parts["tail"], _sent(each), _forward(each), parts["update"], moved, parts["sync"])
    return (
        str(each.row["id"]), str(each.row["what"]), shown, str(own["stale"]), f"{each.row['step_s']:g}",
        f"{own['step_s']:.1f}", f"{each.error:+.0%}", *(f"{value:.1f}" for value in seconds),
    )  # fmt: skip


def _forward(each: Compared) -> float:
    """Seconds of both kinds of log-probabilities."""
    return float(each.ours["parts_s"]["old_log_probs"] + each.ours["parts_s"]["reference_log_probs"])


def _sent(each: Compared) -> float:
    """Seconds in which batches reach workers."""
    return float(each.ours["parts_s"]["sent_log_probs"] + each.ours["parts_s"]["sent_update"])


def _timed_forward(each: Compared) -> float:
    """As NeMo-RL times them: batches are sent and the reference's weights come and go meanwhile
    (policy_and_reference_logprobs)."""
    parts = each.ours["parts_s"]
    return _forward(each) + float(parts["change"] + parts["sent_log_probs"])


def _timed_update(each: Compared) -> float:
    """As NeMo-RL times it: its batch is sent meanwhile (policy_training)."""
    return float(each.ours["parts_s"]["update"] + each.ours["parts_s"]["sent_update"])


def _parts(both: Iterable[Compared]) -> str:
    """Published seconds of parts beside ours."""
    names = {
        "rollout": "rollout, until the engine sleeps", "log_probs": "log-probabilities, with changes of places",
        "update": "update", "sync": "weights, and what makes room for them",
    }  # fmt: skip
    rows = []
    for each in both:
        own = each.ours["parts_s"]
        refit, asleep = own["away"] + own["places"] / 2 + own["sync"], own["places"] / 2
        for key, published in each.row.get("parts", {}).items():
            timed = {
                "log_probs": _timed_forward(each), "update": _timed_update(each), "sync": refit,
                "rollout": own["rollout"] + asleep,
            }  # fmt: skip
            ours = timed[key]
            rows.append(
                (str(each.row["what"]), names[key], str(published), f"{ours:.1f}", f"{ours / published - 1:+.0%}")
            )
    return table(("model", "part", "published, s", "ours, s", "off by"), rows, (2, 3, 4))


def _operations(both: Mapping[str, Compared]) -> str:
    """Published seconds of single operations beside those of rows that are nearest."""
    rows = []
    for each in content()["operations"]:
        own = both[each["row"]].ours["parts_s"]
        ours = sum(own[part] for part in each["parts"]) + each.get("places", 0.0) * own["places"]
        rows.append((each["what"], f"{each['seconds']:g}", f"{ours:.1f}", each["source"]))
    return table(("what", "published, s", "ours, s", "where"), rows, (1, 2))


def _spreads() -> str:
    rows = []
    for sigma, median in SPREADS.items():
        own = learning(content()["rows"][0])
        answers = replace(own.answers, lengths=replace(own.answers.lengths, sigma=sigma, median=median))
        answer = run(replace(own, answers=answers)).summary["rl"]
        rows.append((f"{sigma:g}", f"{answer['lengths']['mean']:,.0f}", f"{answer['lengths']['longest']:,.0f}",
                     f"{answer['lengths']['cut_off']:.0%}", f"{answer['parts_s']['rollout']:.1f}",
                     f"{answer['step_s']:.1f}"))  # fmt: skip
    head = ("sigma of the logarithm", "mean tokens", "longest of 512", "cut off", "rollout, s", "step, s")
    return table(head, rows, range(6))


def _sources() -> str:
    """The head of the file of rows, which says where they come from."""
    lines = [line[2:] for line in FILE.read_text(encoding="utf-8").split("\nshared:")[0].splitlines()]
    return "\n".join(line.strip() for line in lines)
