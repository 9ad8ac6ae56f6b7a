"""Keys of a model in YAML that every family has, and the kinds of numbers that forms are made of (pydantic)."""

import ast
import sys
from collections.abc import Iterator
from inspect import cleandoc, getsource
from itertools import pairwise
from textwrap import dedent
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def whole(value: Any) -> Any:
    """A number written with a dot or an exponent is whole too, when it has no fraction."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def listed(value: Any) -> Any:
    """A list of YAML as the tuple that values hold."""
    return tuple(value) if isinstance(value, list) else value


Listed = BeforeValidator(listed)
"""Of a tuple that YAML writes as a list."""


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

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    @classmethod
    def described(cls) -> dict[str, Any]:
        """JSON Schema. Only here are the texts read, from the source of all forms (pydantic's own way reads it whenever
        they are imported, which takes a tenth of a run)."""
        for form in _below(Form):
            for name, text in texts(form).items():
                form.model_fields[name].description = text
            form.model_rebuild(force=True)
        return cls.model_json_schema()


def _below(form: type[Form]) -> Iterator[type[Form]]:
    """Forms made of it, in the order written: what others hold comes before them. A module that is gone has none."""
    for each in form.__subclasses__():
        if each.__module__ in sys.modules:
            yield each
            yield from _below(each)


def texts(form: type[Form]) -> dict[str, str]:
    """What is written below the keys of a form, its bases included."""
    texts: dict[str, str] = {}
    for each in reversed(form.__mro__):
        if issubclass(each, Form) and each is not Form:
            (written,) = ast.parse(dedent(getsource(each))).body
            for key, text in pairwise(getattr(written, "body", ())):
                match key, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                        texts[name] = cleandoc(said)
    return texts


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
