"""Blocks that families build layers of: kernels, what they keep, parameters; attention, experts, Mamba-2, ends."""
