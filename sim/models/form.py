"""Keys of a model in YAML that every family has, and the kinds of numbers that forms are made of (pydantic)."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def whole(value: Any) -> Any:
    """A number written with a dot or an exponent is whole too, when it has no fraction."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


FEW, MANY, MOST = 1 << 12, 1 << 20, 1 << 31
"""Limits of layers, of other things that are listed one by one and of dimensions, and of what is only multiplied: with
more a run would take minutes, the memory of the machine that simulates, or more than 64 bits of what it simulates."""

Count = Annotated[int, Field(ge=1, le=MANY), BeforeValidator(whole)]
Natural = Annotated[int, Field(ge=0, le=MANY), BeforeValidator(whole)]
Layers = Annotated[int, Field(ge=0, le=FEW), BeforeValidator(whole)]
Size = Annotated[int, Field(ge=1, le=MOST), BeforeValidator(whole)]


class Form(BaseModel):
    """What all parts share: unknown keys are errors, text is never taken for a number, and the text below a key is what
    the schema and docs/REFERENCE.md say of it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class ShapeForm(Form):
    """Dimensions that models of every family have; `sim/models/<family>/form.py` adds its own as ModelForm."""

    family: str
    """Models that share kernels and formulas: a folder of sim/models."""
    name: str
    """What the model is called."""
    vocabulary: Size
    """Tokens it knows."""
    hidden: Count
    """Width of the residual stream, elements."""
    layers: Annotated[int, Field(ge=1, le=FEW), BeforeValidator(whole)]
    """Transformer layers, prediction modules aside."""
    source: str
    """Where the dimensions come from."""
    unmodelled: str = ""
    """What the real model has beside all that, in words; said in a note of every run."""
    unmodelled_parameters: Annotated[int, Field(ge=0)] = 0
    """Parameters of that."""
