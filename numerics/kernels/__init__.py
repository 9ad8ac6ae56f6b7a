"""Triton kernels, one family a file, with the names and signatures of `numerics.reference`."""
