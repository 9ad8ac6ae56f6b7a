"""Measuring on a card: our kernels checked, timed, and turned into calibration tables by a campaign."""
