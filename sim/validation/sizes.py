"""Models by closed form: parameters, training cost a token, KV cache."""

from hwmodels.units import GIGA, KILO
from sim.models.family import family, main_units, weights
from sim.scenario.values import Scenario
from sim.validation.answer import Answer


def answers(scenario: Scenario) -> dict[str, Answer]:
    """Measures of the scenario's model: billions of parameters, GFLOP a token at its sequence length, kB a token."""
    shape = scenario.model
    assert shape is not None
    own = family(shape.family)
    units, mixture = own.units(shape), own.mixture(shape)
    main, module = weights(shape, main_units(units)), weights(shape, [unit for unit in units if unit.beside])
    active, length = main.active(mixture), scenario.batch.sequence_length
    counts = {
        "parameters": main.total,
        "active": active,
        "active without embedding": active - shape.vocabulary * shape.hidden,
        "mtp": module.total,
        "mtp active": module.active(mixture) + module.shared,  # the table and the head that it shares work too
        "flop causal": own.flop(shape, length, True),
        "flop non-causal": own.flop(shape, length, False),
    }
    return {name: Answer(count / GIGA) for name, count in counts.items()} | {
        "kv cache": Answer(own.cache(shape) / KILO)
    }
