"""Stacks: which kernels the blocks of a model lower to, and what these keep for backward. One folder a stack."""
