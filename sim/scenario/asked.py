"""Which keys of a scenario somebody asks about, so that one which changes nothing can say so: what overrides give, and
what files give otherwise than by default (of models: files that do not ship).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hwmodels.document import Document
from sim.models.form import Form
from sim.scenario.overrides import SHORT_FORMS, override
from sim.scenario.shelves import MODELS


def of_scenario(form: Form, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted keys that a document gives otherwise than by default. Times of chunks are facts, which a file may have for
    more than one schedule."""
    for name, field in type(form).model_fields.items():
        value = getattr(form, name)
        if name == "chunk_times":
            continue
        if isinstance(value, Form):
            yield from of_scenario(value, (*above, name))
        elif name in form.model_fields_set and value != field.default:
            yield ".".join((*above, name))


def of_overrides(overrides: Sequence[str]) -> Iterator[str]:
    """Dotted keys that overrides give, each to the last word; null gives none."""
    for text in overrides:
        path, value = override(text)
        word = value.content
        path = (*path, SHORT_FORMS[path]) if path in SHORT_FORMS and isinstance(word, str) else path
        yield from (".".join(leaf) for leaf in _leaves(path, word))


def _leaves(path: tuple[str, ...], content: Any) -> Iterator[tuple[str, ...]]:
    if isinstance(content, Mapping):
        for name, inner in content.items():
            yield from _leaves((*path, name), inner)
    elif content is not None:
        yield path


def of_model(whole: Document, part: Document, form: type[Form]) -> Iterator[str]:
    """Dotted keys of a model. whole: with what it builds on; part: what stands in the scenario. What is no number (a
    norm, an activation) is what a model is like: a file that does not ship is asked for its numbers alone."""
    changed = part.content if isinstance(part.content, Mapping) and "base" in part.content else {}
    for name, field in form.model_fields.items():
        file = whole.place((name,)).file
        shipped = file.startswith(f"{MODELS.shown}/") or file.endswith(".json")
        value = whole.content.get(name, field.default)
        own = not (shipped or field.is_required() or type(value) not in (int, float)) and value != field.default
        if name in changed or own:
            yield f"model.{name}"
