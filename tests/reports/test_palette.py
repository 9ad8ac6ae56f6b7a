"""Colours can be told apart, also by people who see fewer of them; op names find their kind."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from reports.palette import IDLE, OPS, STEPS, Kind, op_kind
from sim.result.trace import LANES, PHASES

COMPUTE, COMMUNICATION = LANES.index("compute"), LANES.index("communication")
FORWARD, WEIGHT = PHASES.index("forward"), PHASES.index("weight")

# Linear RGB as seen by a dichromat: Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of
# Color Vision Deficiency" (2009), severity 1.0.
SIGHTS = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# sRGB (D65) to XYZ: IEC 61966-2-1.
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, sight: str) -> npt.NDArray[np.float64]:
    """CIE 1976 L*a*b* of a hex colour as somebody with `sight` sees it."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(np.array(SIGHTS[sight]) @ linear, 0, 1) / (XYZ @ np.ones(3))
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHTS)
def test_steps_differ_in_every_sight(sight: str) -> None:
    for a, b in combinations(STEPS, 2):
        distance = float(np.linalg.norm(lab(a.colour, sight) - lab(b.colour, sight)))
        assert distance > 15, f"{a.name} and {b.name}: {distance:.1f}"  # 2.3 is a just noticeable difference


def test_a_kind_for_every_phase_and_idle() -> None:
    assert len(STEPS) == len(PHASES) + 1
    assert STEPS[IDLE].short == "idle"
    for kinds in (STEPS, OPS):
        for field in Kind._fields:
            assert len({getattr(kind, field) for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("q_a", "gemm"), ("kv_b_recompute", "gemm"), ("o_proj_dgrad", "gemm"), ("routed_gateup", "gemm"),
        ("gate", "gemm"), ("shared_down_dgrad", "gemm"), ("routed_down_wgrad_e3", "wgrad"), ("o_proj_wgrad", "wgrad"),
        ("flash_fwd", "attention"), ("flash_bwd_post", "attention"), ("cast_x_for_dispatch", "cast"),
        ("castT_dGateUp_routed", "cast"), ("save_attn_out_E5M6", "cast"), ("dequant_saved_routed_gateup", "cast"),
        ("rmsnorm2_bwd", "pointwise"), ("q_a_norm_recompute", "pointwise"), ("swiglu_cast_routed", "pointwise"),
        ("swiglu_topk_weight_bwd", "pointwise"), ("rope_q", "pointwise"), ("residual_scale", "pointwise"),
        ("grad_add", "pointwise"), ("routing", "move"), ("routing_bwd_03", "move"), ("scaleT", "move"),
        ("routed_W1T", "move"), ("kv_b_WT", "move"), ("copy_k_rope", "move"), ("bcast_k_rope", "move"),
        ("permute_scales2", "move"), ("unpermute_y", "move"), ("build_mapping", "move"), ("something_new", "other"),
    ],
)  # fmt: skip
def test_op_names_of_the_profile_find_their_kind(label: str, kind: str) -> None:
    assert OPS[op_kind(label, COMPUTE, FORWARD)].short == kind


def test_lane_and_phase_settle_the_rest() -> None:
    assert OPS[op_kind("dispatch(F)", COMMUNICATION, FORWARD)].short == "exchange"
    assert OPS[op_kind("unheard_of", COMMUNICATION, FORWARD)].short == "exchange"
    assert OPS[op_kind("notify(dispatchF)", COMMUNICATION, FORWARD)].short == "barrier"
    assert OPS[op_kind("shared_down", COMPUTE, WEIGHT)].short == "wgrad"
