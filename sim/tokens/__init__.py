"""Tokens to experts: gates, popularity, hosts, and what every rank receives."""
