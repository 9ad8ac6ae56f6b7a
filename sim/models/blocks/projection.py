"""What the projection that begins a multi-token-prediction module weighs."""

from sim.models.weights import Parameters


def parameters(vocabulary: int, hidden: int, norm: int) -> Parameters:
    """Its product, two norms of `norm` parameters each, and a second use of the embedding's table."""
    table = vocabulary * hidden
    return Parameters(linear=2 * hidden * hidden, other=2 * norm + table, shared=table, table=table)
