"""Collectives: what NCCL's prices are fitted to, and how far off they are (docs/COLLECTIVES.md)."""
