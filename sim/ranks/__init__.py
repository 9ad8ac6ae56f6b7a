"""Ranks that differ: all replicas as arrays, faults, loads, and whom the step waits for."""
