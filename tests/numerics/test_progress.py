"""The progress bar: silent off a terminal and for what is quick, drawn now and then, wiped at the end."""

import io

import pytest

from numerics.progress import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(stream: io.StringIO, times: list[float], shares: list[float]) -> str:
    clock = iter(times)
    with bar("reading", stream, lambda: next(clock)) as watch:
        for share in shares:
            watch(share)
    return stream.getvalue()


def test_a_file_gets_no_bar_and_neither_does_what_is_quick() -> None:
    assert drawn(io.StringIO(), [0, 5, 9], [0.2, 0.9]) == ""
    assert drawn(Terminal(), [0, 1, 1.9], [0.2, 0.9]) == ""


def test_a_terminal_gets_one_after_two_seconds_and_it_is_wiped() -> None:
    text = drawn(Terminal(), [0, 1, 2, 2.05, 4], [0.1, 0.25, 0.26, 1.5])
    assert text.count("reading [") == 2, "not sooner, and not a tenth of a second after the last"
    assert f"[{'#' * 8}{'.' * 22}]  25% 2 s" in text and f"[{'#' * 30}] 150%" not in text and "100% 4 s" in text
    assert text.endswith("\r\033[K")


def test_it_is_wiped_before_an_error_is_told() -> None:
    stream, clock = Terminal(), iter([0.0, 3.0])
    with pytest.raises(ValueError), bar("reading", stream, lambda: next(clock)) as watch:
        watch(0.5)
        raise ValueError
    assert stream.getvalue().endswith("\r\033[K")
