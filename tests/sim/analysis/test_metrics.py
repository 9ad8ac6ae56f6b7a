"""Bubbles of chunk-time scenarios against the published closed forms, exactly; rates by hand; a template's inside."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import node
from hwmodels.collectives import wires
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from hwmodels.price import Price, Pricer
from sim import simulation
from sim.analysis import metrics
from sim.engine.kit import kit_of
from sim.models.layer import COMMUNICATION, COMPUTE, Kernel
from sim.models.stacks.sharing import TENSOR
from sim.scenario import from_mapping, load
from sim.step.overlap import Composition, Phase
from sim.step.template import Segment, Task, Template

SCENARIOS = Path(__file__).parents[3] / "scenarios"


def run(schedule, pipeline, micro_batches, f, b, w, overlapped=None, p2p=0):
    times = {"forward": f, "backward_input": b, "weight": w, "p2p": p2p}
    times |= {} if overlapped is None else {"overlapped": overlapped}
    mapping = {
        "schedule": schedule, "parallel": {"pipeline": pipeline}, "batch": {"micro_batches": micro_batches},
        "chunk_times": {key: f"{value} ns" for key, value in times.items()}, "outputs": ["result"],
    }  # fmt: skip
    return simulation.run(from_mapping(mapping), False)


def bubbles(result):
    return [round(seconds * 1e9) for seconds in result.summary["phases_per_rank"]["bubble"]]


TIMES = st.integers(1, 10**7)


@settings(max_examples=25, deadline=None)
@given(ranks=st.integers(1, 6), more=st.integers(0, 10), f=TIMES, b=TIMES, w=TIMES)
def test_1f1b_and_gpipe(ranks, more, f, b, w):
    """(PP-1)(F+B), B the full backward, for any times."""
    for schedule in ("1f1b", "gpipe"):
        result = run(schedule, ranks, ranks + more, f, b, w)
        assert bubbles(result) == [(ranks - 1) * (f + b + w)] * ranks


@settings(max_examples=25, deadline=None)
@given(ranks=st.integers(1, 6), more=st.integers(0, 10), w=st.integers(1, 10**6), f=TIMES, b=TIMES)
def test_zb1p(ranks, more, w, f, b):
    """(PP-1)(F+B-2W) where weight gradients are the shortest."""
    f, b = max(f, w), max(b, w)
    assert bubbles(run("zb1p", ranks, ranks + more, f, b, w)) == [(ranks - 1) * (f + b + w - 2 * w)] * ranks


@settings(max_examples=25, deadline=None)
@given(half=st.integers(1, 4), more=st.integers(0, 6), w=st.integers(1, 10**6), longer=st.integers(0, 10**6))
def test_dualpipe(half, more, w, longer):
    """(PP/2-1)(F&B+B-3W) for W <= F = B-W and F&B = F+B."""
    f, ranks = w + longer, 2 * half
    bubble = (half - 1) * (2 * f + w + f + w - 3 * w)
    assert bubbles(run("dualpipe", ranks, 2 * ranks + 2 * more, f, f, w)) == [bubble] * ranks


@settings(max_examples=25, deadline=None)
@given(ranks=st.integers(1, 5), more=st.integers(0, 6), w=st.integers(1, 10**6), longer=st.integers(0, 10**6))
def test_dualpipev(ranks, more, w, longer):
    """The same with PP = 2P stages on P ranks."""
    f = w + longer
    bubble = (ranks - 1) * (2 * f + w + f + w - 3 * w)
    assert bubbles(run("dualpipev", ranks, 2 * ranks + more, f, f, w)) == [bubble] * ranks


@settings(max_examples=25, deadline=None)
@given(ranks=st.integers(1, 5), groups=st.integers(1, 4), f=TIMES, b=TIMES, w=TIMES)
def test_interleaved(ranks, groups, f, b, w):
    """(PP-1)(F+B)/chunks with F and B of a rank's two stages: (PP-1)(f+b) of one of them."""
    result = run("interleaved", ranks, ranks * groups, f, b, w)
    assert bubbles(result) == [(ranks - 1) * (f + b + w)] * ranks


def test_published_picture():
    """DualPipe's README: 8 ranks, 20 micro-batches, F = B - W = W: 6 F of bubble; 20 x 3 F of work."""
    result = simulation.run(load(str(SCENARIOS / "dualpipe_8x20.yaml"), ["outputs=[result]"]), False)
    ms = 1_000_000
    assert bubbles(result) == [6 * ms] * 8
    assert round(result.summary["step_time_s"] * 1e9) == (20 * 3 + 6) * ms
    assert result.summary["bubble_fraction"] == pytest.approx(6 / 66)


def in_flight(result):
    """Most chunks a rank holds, from the trace: from the start of F to the end of the last backward pass."""
    most = []
    for rank in range(int(result.steps.position.max()) + 1):
        steps, changes = result.steps.of_position(rank), []
        for label, start, end in zip(steps.label.tolist(), steps.start.tolist(), steps.end.tolist(), strict=True):
            kind = steps.labels[label]
            changes += [(start, 1, 1)] * kind.startswith("F") + [(end, 0, -1)] * kind.endswith("W")
        held = [0]
        for _, _, change in sorted(changes):
            held.append(held[-1] + change)
        assert held[-1] == 0
        most.append(max(held))
    return most


@pytest.mark.parametrize(
    ("schedule", "pipeline", "expected"),
    [
        ("dualpipe", 8, [9] * 8), ("dualpipev", 4, [9] * 4), ("zb1p", 8, [8] * 8), ("1f1b", 8, [*range(8, 0, -1)]),
        ("gpipe", 8, [24] * 8),
    ],
)  # fmt: skip
def test_peak_activations(schedule, pipeline, expected):
    """PP chunks, PP + 1 for DualPipe and DualPipeV (PP stages), all of them under GPipe."""
    assert in_flight(run(schedule, pipeline, 24, 1000, 1000, 1000)) == expected


@settings(max_examples=25, deadline=None)
@given(
    schedule=st.sampled_from(["1f1b", "zb1p", "dualpipe", "gpipe"]), f=st.integers(1, 999), b=st.integers(1, 999),
    w=st.integers(1, 999), pair=st.integers(1, 3000), p2p=st.integers(0, 99),
)  # fmt: skip
def test_against_the_independent_clock(clock, schedule, f, b, w, pair, p2p):
    """Longest paths, computed without events; messages of a rank queue on its network lane, so only while each sent
    one after the other: p2p shorter than any step."""
    from sim.schedules.program import Shape, build

    p2p = min(p2p, f, b, w, pair)
    expected = clock(build(schedule, Shape(4, 8)), f, b, w, pair, p2p)
    result = run(schedule, 4, 8, f, b, w, pair, p2p)
    if schedule == "dualpipe" and p2p:  # both messages of a pair leave at once, and one of them waits for the other
        assert expected.makespan <= round(result.summary["step_time_s"] * 1e9)
        return
    assert round(result.summary["step_time_s"] * 1e9) == expected.makespan
    for rank in range(4):
        assert result.steps.of_position(rank).start.tolist() == expected.start[rank]


@pytest.fixture(scope="module")
def clock():
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("schedule_clock", Path(__file__).parents[2] / "oracles" / "schedule_clock.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.clock


def test_bubble_by_cause():
    """1F1B without communication: rank r waits r F to start, then for gradients, and r (B+W) at the end."""
    f, b, w = 3, 4, 5
    result = run("1f1b", 4, 8, f, b, w)
    fill = sum(r * f for r in range(4)) / 4
    drain = sum(r * (b + w) for r in range(4)) / 4
    cause = {key: round(value * 1e9, 6) for key, value in result.summary["bubble_s"].items()}
    assert cause["fill"] == fill and cause["drain"] == drain
    assert sum(cause.values()) == pytest.approx(3 * (f + b + w))


def test_no_rates_without_a_model():
    summary = run("1f1b", 2, 4, 1, 1, 1).summary
    for key in ("tokens_per_day", "gpu_hours_per_trillion_tokens", "tflops_per_gpu", "mfu", "peak_memory_bytes"):
        assert summary[key] is None


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def main():
    return simulation.run(load(str(SCENARIOS / "v3_2048gpu.yaml"), ["outputs=[result]", "detail=chunk"]), False).summary


def test_rates_by_hand(main):
    step, tokens = main["step_time_s"], 15360 * 4096
    assert main["tokens_per_step"] == tokens
    assert main["tokens_per_day"] == pytest.approx(tokens / step * 86400)
    assert main["gpu_hours_per_trillion_tokens"] == pytest.approx(2048 * step / 3600 / tokens * 1e12)
    for kind, gflop in (("causal", 249.811), ("non_causal", 280.514)):
        rate = tokens * gflop * 1e9 / step / 2048
        assert main["tflops_per_gpu"][kind] == pytest.approx(rate / 1e12, rel=1e-5)
        assert main["mfu"][kind] == pytest.approx(rate / 989e12, rel=1e-5)


def test_shares(main):
    assert sum(main["price_shares"].values()) == pytest.approx(1)
    assert main["price_shares"]["measured"] + main["price_shares"]["interpolated"] > 0.9
    assert 0 < main["bubble_fraction"] < 0.2 and 0.8 < main["overlap_fraction"] < 1


# --- inside one template ----------------------------------------------------------------------------------------------


COPY = Memory("copy", 1, 1.0, 1.0)


def kit(compute, talk, family="memory", gap=0, op=COPY, meets=""):
    """A kit with one kernel a lane: compute and an exchange that start together. gap: of each, after it."""
    price = Price(compute, compute, "measured", "by hand", 0.0, family)
    exchange = Price(talk, talk, "interpolated", "by hand", 0.0, "exchange")
    compute, talk = compute + gap, talk + gap
    segments = (Segment(COMPUTE, 0, 1, 0, (), meets, 1), Segment(COMMUNICATION, 0, 1, 0, (), "expert", 0))
    fine = Template(
        "F", 0, -1, segments, ((0,), (1,), (), ()), ((compute,), (talk,), (), ()), ((compute,), (talk,), (), ()),
        ((gap,), (gap,), (), ()), ((Task("c", 0, "F", price, 112),), (Task("x", 0, "F", exchange, 20),), (), ()),
    )  # fmt: skip
    kernel, other = Kernel("c", op), Kernel("x", COPY)
    phases = (Phase("c", 0, "F", 0, (kernel,), (), "", 0), Phase("x", 0, "F", 1, (other,), (), "expert", 1))
    return kit_of(Composition(phases, 0, -1), fine, 1.0)


@given(compute=st.integers(1, 10**6), talk=st.integers(1, 10**6))
def test_profile_of_two_lanes(compute, talk):
    """Side by side from the start: what sticks out of the exchange is exposed."""
    step = kit(compute, talk)
    found, inside = metrics.profile(step, None), metrics.alone(step)
    assert step.timing.total == max(compute, talk)
    assert (inside["compute"], inside["communication"]) == (compute, talk)
    assert (inside["exposed"], inside["peers"]) == (max(0, talk - compute), 0)
    assert found.shares == {"measured": compute, "interpolated": talk}
    assert (found.products, found.memory, found.gaps) == (0, compute, 0)


@given(collective=st.integers(1, 10**6), talk=st.integers(1, 10**6))
def test_a_tensor_groups_collective_is_exposed_wherever_it_runs(collective, talk):
    """On the compute lane, beside another micro-batch's exchange (sim.step.overlap): no compute runs in its place."""
    inside = metrics.alone(kit(collective, talk, meets=TENSOR))
    assert (inside["compute"], inside["communication"]) == (0, collective + talk)
    assert inside["exposed"] == collective + max(0, talk - collective)


PRICER = Pricer(node.load("h800x8").device, wires(node.load("h800x8"), None), 20)


@pytest.mark.parametrize("family", ["gemm", "wgrad", "gemm_bf16", "attention", "norm", "small", "routing", "memory"])
def test_products_are_what_tensor_cores_set(family):
    """By the family that a price gives an operation; all other compute waits for memory."""
    shapes = {
        "gemm": Gemm(4096, 4096, 4096), "wgrad": Gemm(4096, 4096, 4096, "wgrad"),
        "gemm_bf16": Gemm(4096, 4096, 4096, "fprop", "bf16"), "attention": Attention("forward", 1, 128, 4096, 192, 128),
    }  # fmt: skip
    assert family not in shapes or PRICER.price(shapes[family]).family == family
    found = metrics.profile(kit(70, 10, family), None)
    assert (found.products, found.memory) == ((70, 0) if family in shapes else (0, 70))


def test_launch_gaps_belong_to_no_price():
    """Shares of rungs and products are kernels alone; the gap after each of compute is told by itself."""
    found = metrics.profile(kit(70, 10, "gemm", gap=2), None)
    assert found.shares == {"measured": 70, "interpolated": 10}
    assert (found.products, found.memory, found.gaps) == (70, 0, 2)


@pytest.mark.parametrize(("op", "seconds"), [
    (Gemm(4096, 7168, 2048), 2 * 4096 * 7168 * 2048 / 1979e12),
    (Gemm(4096, 7168, 2048, "fprop", "bf16"), 2 * 4096 * 7168 * 2048 / 989e12),
    (GroupedGemm(4, 32768, 4096, 7168), 2 * 32768 * 4096 * 7168 / 1979e12),
    (Attention("forward", 1, 128, 4096, 192, 128), 128 * 4096**2 * (192 + 128) / 989e12),
    (Memory("copy", 4096, 7168.0, 7168.0), 0.0),
])  # fmt: skip
def test_ideal_is_the_peak_of_each_product_s_format(op, seconds):
    """At the peak of all SMs, whatever is given to communication: FP8 at 1,979 TFLOP/s, BF16 and attention at 989."""
    assert metrics.profile(kit(70, 10, op=op), PRICER).ideal == pytest.approx(seconds * 1e9, rel=1e-3)
