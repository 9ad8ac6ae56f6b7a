"""The command `cache`: what every model keeps of a token, in elements and in bytes."""

from sim.cli import pages


def cache(words: list[str]) -> int:
    """The page goes to stdout; --write renews docs/CACHE.md of a checkout."""
    from sim.serving.cache_page import PAGE, page

    return pages.document(words, PAGE, page)
