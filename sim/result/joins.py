"""A profiler trace beside a simulated step: kernels joined by kind and shape, and in their time."""

from typing import NamedTuple


class Bars(NamedTuple):
    """Kernels in their time. rows: what each row of a picture is called. row: of each kernel; names; start and end: ns
    from the first one."""

    rows: tuple[str, ...]
    row: tuple[int, ...]
    names: tuple[str, ...]
    start: tuple[int, ...]
    end: tuple[int, ...]


class Joined(NamedTuple):
    """A kind and shape. counts and seconds, of all of its launches in a step; 0 where one side has none."""

    kind: str
    shape: str
    simulated: int
    simulated_s: float
    measured: int
    measured_s: float

    @property
    def beyond_s(self) -> float:
        """Seconds that the trace has more."""
        return self.measured_s - self.simulated_s
