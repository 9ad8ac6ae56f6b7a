"""Blocks that families build layers of, as kernels: linear layers and norms, SwiGLU, grouped-query attention, ends."""
