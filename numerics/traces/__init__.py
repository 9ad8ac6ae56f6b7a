"""Traces of profilers: read, joined, named by rules, and told as operations with times."""
