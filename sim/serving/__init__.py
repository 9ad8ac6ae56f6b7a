"""Serving: prefill and decode of the same models on the same machines, requests as events (docs/SERVING.md)."""
