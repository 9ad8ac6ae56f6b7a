"""How a serving scenario is told from others, without reading what it needs."""

from collections.abc import Mapping

from hwmodels.document import DocumentError, read
from sim.scenario import shelves

KIND = "serve"
"""The top-level key that serving scenarios have and others have not."""


def serves(word: str) -> bool:
    """Whether a word is a file of a serving scenario, or the name of one that ships."""
    place = shelves.place(word)
    if not place.is_file():
        return False
    try:
        content = read(place, word).content
    except DocumentError:
        return False
    return isinstance(content, Mapping) and KIND in content
