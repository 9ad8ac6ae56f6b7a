"""Dimensions that no DeepSeek model has beside each other."""

from collections.abc import Iterator

from hwmodels.document import indivisible
from sim.models.deepseek.shape import DeepSeekShape


def mistakes(s: DeepSeekShape) -> Iterator[tuple[str, str]]:
    """Key of a dimension, and what is wrong with it."""
    if s.dense_layers > s.layers:
        yield "dense_layers", f"{s.dense_layers} dense layers of {s.layers} (model.layers)"
    if s.experts % s.groups:
        yield "groups", indivisible(f"model.experts {s.experts}", s.experts, "model.groups", s.groups)
    for few, many in (("groups_per_token", "groups"), ("experts_per_token", "experts")):
        if getattr(s, few) > getattr(s, many):
            yield few, f"{getattr(s, few)} is too many; legal: 1 to {getattr(s, many)} (model.{many})"
    within = s.experts // s.groups * min(s.groups_per_token, s.groups)
    if within < s.experts_per_token <= s.experts:
        yield (
            "groups_per_token",
            (
                f"{s.groups_per_token} groups hold {within} experts, fewer than model.experts_per_token"
                f" {s.experts_per_token}"
            ),
        )
