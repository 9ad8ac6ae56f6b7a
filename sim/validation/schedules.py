"""Pipeline schedules from chunk times: bubbles, step and what ranks hold, beside the published closed forms.

One regime: forward, input gradient and weight gradient take one unit each and a pair as long as its halves (F = W,
B = 2F, F&B = F + B, no communication), in which the published forms are exact.
"""

from hwmodels.units import NS_PER_S
from sim.layout.plan import lay_out
from sim.schedules.program import in_flight
from sim.validation.answer import Answer
from sim.validation.reference import scenario


def answers(schedule: str, pipeline: int) -> dict[str, Answer]:
    """Figures of `scenarios/dualpipe_8x20.yaml` with this schedule on `pipeline` ranks.

    bubble, step: in forwards. weights: stages a rank holds. activations: chunks, the most of any rank.
    """
    import sim

    chosen = scenario("dualpipe_8x20", f"schedule={schedule}", f"parallel.pipeline={pipeline}")
    assert chosen.chunk_times is not None
    forward_s = chosen.chunk_times.forward / NS_PER_S
    summary = sim.run(chosen).summary
    plan = lay_out(chosen)
    return {
        "bubble": Answer(max(summary["phases_per_rank"]["bubble"]) / forward_s),
        "step": Answer(summary["step_time_s"] / forward_s),
        "weights": Answer(max(len(held) for held in plan.holds)),
        "activations": Answer(max(in_flight(plan.program))),
    }
