"""The specification: every operation in plain torch, written to be read; kernels are held against it."""
