"""The census: operations recorded from the real layers against those that the simulator lowers for the same shape.

Both sides are compared by part, in kind, shape, bytes and FLOPs, as multisets. What differs stands in DIFFERENCES with
its reason; the census fails when anything else differs, and when a listed difference no longer occurs. FP8 only.
"""

from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from hwmodels.op import AllToAll, Memory, Op
from numerics.census import differences as d
from numerics.census import expert_differences as e
from numerics.census.differences import Difference, Here
from numerics.census.rehearsal import rehearse, site
from sim.models import deepseek
from sim.models.deepseek.shape import DeepSeekShape
from sim.models.layer import Site

FORWARD, BACKWARD, ROUTED = ("* attn(F)",), ("* attn(B+W)",), ("moe mlp(*",)
DIFFERENCES = (
    Difference(
        "DeepSeek's GEMMs want scales transposed for the copy engine; ours read them by stride",
        "both",
        ("*",),
        d.transposed_scales,
    ),
    Difference(
        "layers cast FP32 masters to FP8 every pass, as they lie and turned; training casts once a step, in the "
        "optimizer",
        "simulator",
        ("*",),
        d.cast_weight,
    ),
    Difference(
        "the profile turns a weight for its input gradient; the layers' cast has written it turned",
        "layers",
        ("*(B+W)",),
        d.turned_weights,
    ),
    Difference(
        "layers zero a weight gradient and autograd adds it; the kernel could add in place, as is priced",
        "simulator",
        ("*",),
        d.gradients,
    ),
    Difference(
        "the profile's norms add the residual and are cast by each user apart; layers' norms cast in the same kernel, "
        "once for all users (a mixture's in two scales, and plain for the gate), and the second adds the residual",
        "layers",
        FORWARD,
        d.norms,
    ),
    Difference(
        "latents are normed and cast in one kernel that reads them where they lie",
        "layers",
        (*FORWARD, *BACKWARD),
        d.latent_norms,
    ),
    Difference(
        "the same addition behind the feed-forward layer, which the next layer's norm does in the simulator",
        "simulator",
        ("* mlp(F)",),
        e.sum_of_paths,
    ),
    Difference(
        "the profiled model scales its residual; the published one does not",
        "layers",
        (*FORWARD, *BACKWARD),
        d.simulator_only(d.residual_scale),
    ),
    Difference(
        "the profile copies the rotary key out before it turns; our rope reads by stride",
        "both",
        FORWARD,
        d.simulator_only(d.rotary_key),
    ),
    Difference(
        "positions: two aranges a layer in the profile; layers make one table, once", "both", FORWARD, d.tiny(2, 0)
    ),
    Difference(
        "one kernel turns q in place and the rotary key, and writes k and v; the profile has four, and its attention "
        "reads v by stride",
        "both",
        (*FORWARD, *BACKWARD),
        d.assemble,
    ),
    Difference(
        "two kernels turn dq back in place, join dk and dv and sum the rotary key's gradient; the profile has five. A "
        "latent's gradient is concatenated",
        "both",
        BACKWARD,
        d.disassemble,
    ),
    Difference(
        "without q_rank the layers norm the residual a second time as if it were the query's latent, and run "
        "that norm's gradient",
        "simulator",
        (*FORWARD, *BACKWARD),
        d.queries_without_latent,
    ),
    Difference(
        "our attention backward adds dQ in one order, by counters zeroed first; its row sums are counted as written",
        "both",
        BACKWARD,
        d.attention_backward,
    ),
    Difference(
        "of head widths without a form for Hopper, attention backward is two kernels (dQ; dK and dV) that each "
        "redo S and dP: seven products for five, but no FP32 dQ to zero and to round",
        "both",
        BACKWARD,
        d.attention_backward_twins,
    ),
    Difference(
        "the transposed cast of the recomputed latents starts from their FP8 codes, a second rounding, though "
        "BF16 is at hand as in the profile",
        "simulator",
        BACKWARD,
        d.latents,
    ),
    Difference(
        "a last tile of fewer than 128 columns has a whole scale; Layout.row_bytes counts a part of one",
        "layers",
        BACKWARD,
        d.ragged_latent,
    ),
    Difference(
        "the norm before attention runs again inside its one transposed cast; the profile has it once, its sum too, "
        "and a cast for queries and one for keys. A gate runs it again for itself",
        "both",
        BACKWARD,
        d.norm_again,
    ),
    Difference(
        "norms' gradients take in all that meets there (5 and 3 tensors); layers' the residual's, the rest by torch",
        "simulator",
        BACKWARD,
        d.gradient_sums,
    ),
    Difference(
        "tiny kernels of norms and views: the profile has 5 of torch's; ours zero a buffer a norm",
        "both",
        BACKWARD,
        d.tiny_of_norms,
    ),
    Difference(
        "the gate multiplies in FP32 (as the published code does), routes in one kernel and counts its load in "
        "one more; the profile has a BF16 product and 37 tiny kernels",
        "both",
        ("moe attn(F)",),
        d.gate_forward,
    ),
    Difference(
        "the same backward: 26 tiny kernels in the profile, and torch's of numerics/layers/gate.py",
        "both",
        ("moe attn(B+W)",),
        d.gate_backward,
    ),
    Difference(
        "SwiGLU's input and output are cast in one kernel; a last tile under 128 columns has a whole scale",
        "layers",
        ("* mlp(F)",),
        e.activation,
    ),
    Difference(
        "SwiGLU again, its gradient and that one's row cast are one kernel, where no tile has elements of gate and of "
        "up; columns are cast from its BF16. The profile decodes first and casts after",
        "both",
        ("* mlp(B+W)",),
        e.activation_again,
    ),
    Difference(
        "the second norm again: with its sum and through FP8 codes in the profile; inside its transposed cast here",
        "both",
        ("* mlp(B+W)",),
        e.input_again,
    ),
    Difference(
        "dY: a mixture's shared experts use the codes cast for dispatch, plain codes counted without scales; "
        "layers cast dY for each path. A dense layer has no dispatch, so the simulator forgets its cast",
        "layers",
        ("* mlp(B+W)",),
        e.gradient_codes,
    ),
    Difference(
        "the profile turns experts' weights for the forward product and keeps them so",
        "both",
        ("moe mlp(F)",),
        e.turned_weights,
    ),
    Difference(
        "count, map, dispatch layout and gate scale are kernels in the profile; here one operation and torch's "
        "scatter of gate weights to rows",
        "both",
        ("moe mlp(F)",),
        e.routes,
    ),
    Difference(
        "scales go to expert rows by their own permute (the profile transposes them in the same pass)",
        "both",
        ROUTED,
        e.scales_travel,
    ),
    Difference(
        "x goes to expert rows again for the weight gradient; the profile keeps the rows in order",
        "simulator",
        ("moe mlp(B+W)",),
        e.again_in_order,
    ),
    Difference(
        "gate weights multiply the cast activations' scales in a kernel of their own", "both", ("moe mlp(F)",), e.weigh
    ),
    Difference(
        "of the experts the same kernel weighs rows and takes gate weights' gradients, in partial sums of 128; the "
        "profile has SwiGLU and its gradient in one and those in another",
        "both",
        ("moe mlp(B+W)",),
        e.weigh_backward,
    ),
    Difference(
        "the rows' codes are read with their scales, which the simulator's recast leaves out",
        "layers",
        ("moe mlp(B+W)",),
        e.recast,
    ),
    Difference(
        "experts' weight gradients are a product an expert in the simulator, which adds in place; here one launch "
        "has all of a weight's, and autograd adds them",
        "both",
        ("moe mlp(B+W)",),
        e.routed_gradients,
    ),
    Difference(
        "shared and routed outputs, and their input gradients, are added by torch", "layers", ROUTED, e.sum_of_paths
    ),
    Difference(
        "the table is FP32 and rounded after the look-up; the simulator's is BF16",
        "simulator",
        ("* embedding(F)", "projection projection(F)"),
        e.look_up,
    ),
    Difference(
        "torch makes a dense gradient of the whole table and adds it; the simulator scatters rows",
        "simulator",
        ("* embedding(B+W)", "projection projection(B+W)"),
        e.scatter,
    ),
    Difference(
        "two norms and a concatenation for one norm of twice the rows; run again in backward",
        "both",
        ("projection *",),
        e.side_by_side,
    ),
    Difference(
        "cross-entropy with its gradient is one kernel on both sides; ours reads logits again from L2, which the "
        "simulator prices as memory, counts targets and losses too, and takes the mean after",
        "both",
        ("head head(F)",),
        e.loss,
    ),
    Difference("the head's master is rounded to BF16 every pass", "simulator", ("head head(F)",), e.head_weight),
    Difference(
        "the head's weight gradient multiplies in FP32, and the gradient of the logits is scaled by that of the "
        "loss; the norm is run again",
        "simulator",
        ("head head(B+W)",),
        e.head_gradient,
    ),
    Difference("tiny kernels of the norm's gradient, as in a layer", "both", ("head head(B+W)",), d.tiny(0, 2)),
    Difference("tiny kernels of two norms' gradients", "both", ("projection projection(B+W)",), d.tiny(0, 3)),
)
"""What is known to differ; everything else must be equal. Each entry must occur in some model (tests)."""

TOKENS = 4096
"""Of the census's micro-batch: V3's sequence length (scenarios/v3_2048gpu.yaml)."""
Census = dict[str, Counter[Op]]
KINDS = {"store": "cast"}
"""The simulator's name for work that the layers know by another: keeping an activation in E4M3 is a cast."""


class Finding(NamedTuple):
    """One part of one unit. simulator, layers: operations as they are. explained: differences that apply here, each
    with the operations that it expects on either side. unlisted, stale: (side, op, count), empty when all is well.
    """

    unit: str
    part: str
    simulator: Counter[Op]
    layers: Counter[Op]
    explained: tuple[tuple[Difference, Counter[Op], Counter[Op]], ...]
    unlisted: tuple[tuple[str, Op, int], ...]
    stale: tuple[tuple[str, Op, int], ...]


def census(shape: DeepSeekShape, tokens: int = TOKENS) -> list[Finding]:
    """Every part of every kind of unit that the model has. Raises ValueError from the layers for shapes they refuse."""
    where = site(shape, tokens)
    kinds = dict.fromkeys(unit.kind for unit in deepseek.units(shape))
    return [finding for kind in kinds for finding in compared(where, kind, lowered(where, kind), recorded(where, kind))]


def compared(where: Site, kind: str, simulator: Census, layers: Census) -> Iterator[Finding]:
    """One finding a part that either side has."""
    for part in {**simulator, **layers}:
        ours, theirs = layers.get(part, Counter()), simulator.get(part, Counter())
        here = Here(where, kind, part, ours)
        explained = tuple(_expected(difference, here) for difference in DIFFERENCES)
        explained = tuple(entry for entry in explained if entry[1] or entry[2])
        left, right = Counter(theirs), Counter(ours)
        for _, expected, actual in explained:
            left.subtract(expected)
            right.subtract(actual)
        unlisted = [("simulator", op, n) for op, n in (left - right).items() if left[op] > 0]
        unlisted += [("layers", op, n) for op, n in (right - left).items() if right[op] > 0]
        stale = [("simulator", op, -n) for op, n in left.items() if n < 0]
        stale += [("layers", op, -n) for op, n in right.items() if n < 0]
        yield Finding(kind, part, theirs, ours, explained, tuple(unlisted), tuple(stale))


def _expected(difference: Difference, here: Here) -> tuple[Difference, Counter[Op], Counter[Op]]:
    if not any(fnmatchcase(f"{here.unit} {here.part}", pattern) for pattern in difference.where):
        return difference, Counter(), Counter()
    simulator, layers = difference.operations(here)
    return difference, Counter(map(canonical, simulator)), Counter(map(canonical, layers))


def lowered(where: Site, kind: str) -> Census:
    """What the simulator lowers for a unit, by part. Input and weight gradient in one, as autograd runs them; kernels
    around an exchange with the experts that they serve; the exchange itself left out, as one process holds all."""
    out: Census = {}
    unit = next(unit for unit in deepseek.units(where.shape) if unit.kind == kind)
    for direction in "FBW":
        for part in deepseek.parts(where, unit, direction):
            name = "mlp" if part.meets else part.name
            counts = out.setdefault(f"{name}({'F' if direction == 'F' else 'B+W'})", Counter())
            counts.update(canonical(k.op) for k in part.kernels if not isinstance(k.op, AllToAll))
    return out


def recorded(where: Site, kind: str) -> Census:
    """What the real layers run for it, by part."""
    out: Census = {}
    for part, op in rehearse(where, kind):
        out.setdefault(part, Counter())[canonical(op)] += 1
    return out


def canonical(op: Op) -> Op:
    """Comparable: a memory-bound operation by its whole traffic, in whole bytes, under one name for one work."""
    if not isinstance(op, Memory):
        return op
    rows = max(op.rows, 1)
    kind = KINDS.get(op.kind, op.kind)
    return op._replace(kind=kind, read=round(op.rows * op.read) / rows, write=round(op.rows * op.write) / rows)


def main(shape: DeepSeekShape) -> int:
    """Print the census of a shape: a line a part and kind, then the reasons. 0, or 1 where something is not listed."""
    findings = census(shape)
    print(f"{shape.name}: {TOKENS} tokens, FP8, all experts in one process; operations by kind")
    print(f"{'unit':11}{'part':18}{'kind':22}{'simulator':>10}{'layers':>10}{'difference':>12}")
    for finding in findings:
        _print_part(finding)
    used = dict.fromkeys(entry[0] for finding in findings for entry in finding.explained)
    print(f"\n{len(used)} reasons for what differs:")
    for difference in used:
        print(f"- {difference.reason} [{difference.view}]")
    wrong = [(finding, *row) for finding in findings for row in (*finding.unlisted, *finding.stale)]
    for finding, side, op, n in wrong:
        word = "not listed" if (side, op, n) in finding.unlisted else "listed, but gone"
        print(f"{finding.unit} {finding.part}: {word}: {n} in the {side}: {op}")
    return 1 if wrong else 0


def _print_part(finding: Finding) -> None:
    left, right = _by_kind(finding.simulator), _by_kind(finding.layers)
    for kind in sorted({*left, *right}):
        change = right[kind] - left[kind]
        a = Counter({op: n for op, n in finding.simulator.items() if _kind(op) == kind})
        b = Counter({op: n for op, n in finding.layers.items() if _kind(op) == kind})
        word = "-" if a == b else f"{change:+d}" if change else "sizes"
        print(f"{finding.unit:11}{finding.part:18}{kind:22}{left[kind]:>10}{right[kind]:>10}{word:>12}")


def _by_kind(counts: Counter[Op]) -> Counter[str]:
    out: Counter[str] = Counter()
    for op, n in counts.items():
        out[_kind(op)] += n
    return out


def _kind(op: Op) -> str:
    if isinstance(op, Memory):
        return op.kind
    word = getattr(op, "role", "") or getattr(op, "direction", "")
    return f"{type(op).__name__.lower()} {word} {getattr(op, 'precision', '')}".strip()
