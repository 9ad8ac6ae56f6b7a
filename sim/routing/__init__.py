"""Tokens to experts: how they choose, who is popular, who hosts whom, and what every rank receives."""
