"""Blocks that families build layers of: dimensions, parameters, FLOPs. What kernels they become is a stack's affair."""
