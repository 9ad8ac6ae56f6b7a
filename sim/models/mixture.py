"""Mixtures of experts, as all families tell of them: how many experts there are, and how a token chooses."""

from typing import NamedTuple


class Mixture(NamedTuple):
    """The gate of a model's routed layers. A token chooses `chosen` of `experts`, from at most `chosen_groups` of
    `groups` equal groups. score: sigmoid (a group is as good as its two best experts, and a bias may join; DeepSeek-V3
    report sec 2.1.2) or softmax (as good as its best one; DeepSeek-V2 report, arXiv 2405.04434, sec 2.1.3). capacity:
    tokens that an expert takes at most, over the mean of all (GShard, arXiv:2006.16668 sec 2.2); 0: all that choose it.
    """

    experts: int
    chosen: int
    groups: int
    chosen_groups: int
    score: str
    capacity: float = 0.0
