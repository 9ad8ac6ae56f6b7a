"""A quantity in a scenario's form: a number with its unit, in SI."""

from collections.abc import Callable
from typing import Any

from pydantic import BeforeValidator, WithJsonSchema

from hwmodels.refused import Refused
from hwmodels.units import EXAMPLES, parse


def quantity(dimension: str, convert: Callable[[float], float] = float) -> Any:
    """What a field of the form is annotated with."""
    schema = {"type": ["string", "number"], "format": dimension, "examples": [EXAMPLES[dimension]]}
    return (BeforeValidator(lambda value: _converted(value, dimension, convert)), WithJsonSchema(schema))


def _converted(value: Any, dimension: str, convert: Callable[[float], float]) -> float:
    """A quantity in SI; what is refused is a ValueError, for pydantic collects no other."""
    try:
        return convert(parse(value, dimension))
    except Refused as error:
        raise ValueError(str(error)) from None
