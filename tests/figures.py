"""Figures of results beside each other."""


def flat(value):
    """Numbers of a nested value in order; what is no number stands as its hash."""
    if isinstance(value, dict):
        return [x for key in sorted(value) for x in flat(value[key])]
    if isinstance(value, list | tuple):
        return [x for each in value for x in flat(each)]
    return [value if isinstance(value, int | float) else hash(value)]
