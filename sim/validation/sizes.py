"""Models by closed form: parameters, training cost a token, KV cache."""

from hwmodels.units import GIGA, KILO
from sim import footprint
from sim.plan import family_of
from sim.scenario import Scenario
from sim.validation.answer import Answer


def answers(scenario: Scenario) -> dict[str, Answer]:
    """Measures of the scenario's model: billions of parameters, GFLOP a token at its sequence length, kB a token."""
    shape = scenario.model
    assert shape is not None
    units = family_of(shape.family).units(shape)
    main = footprint.main_units(units)
    module = units[len(main) :]
    table = shape.vocabulary * shape.hidden
    length = scenario.batch.sequence_length
    active = footprint.active_parameters(shape, main)
    counts = {
        "parameters": footprint.total_parameters(shape, main),
        "active": active,
        "active without embedding": active - table,
        "mtp": footprint.total_parameters(shape, module),
        "mtp active": footprint.active_parameters(shape, module) + 2 * table * bool(module),
        "flop causal": footprint.training_flop_per_token(shape, main, length, True),
        "flop non-causal": footprint.training_flop_per_token(shape, main, length, False),
    }
    kv = footprint.kv_cache_bytes_per_token(shape)
    return {name: Answer(count / GIGA) for name, count in counts.items()} | {"kv cache": Answer(kv / KILO)}
