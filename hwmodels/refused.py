"""A refusal: the one exception that says what somebody who runs a simulation must change.

Every other exception is a bug of ours. It is shown with its traceback, and never told as somebody's wrong input; so
Refused is no ValueError, for those also come out of `zip(strict=True)` and of arrays whose shapes do not fit.
"""

LINE = 1200
"""Letters of a line at most; what is written in a document may be longer."""
ENDS = (LINE - len(" ... ")) // 2
"""Of them before and after what is left out."""
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    code: f"\\u{code:04x}" for code in (0x2028, 0x2029)
}
"""What would break a line or move the cursor, as people write it."""


def plain(text: str) -> str:
    """`text` as one line of a length that can be read: its middle is left out where it is longer."""
    line = text.translate(_CONTROLS)
    return line if len(line) <= LINE else f"{line[:ENDS]} ... {line[-ENDS:]}"


class Refused(Exception):  # noqa: N818 - it names what was done with the input
    """A refusal in one line, or a line for each thing that is wrong; the text says what to write instead.

    file, line, key: where it was written and under which dotted key, as far as that is known; the text begins with it.
    """

    def __init__(self, message: str, file: str = "", line: int = 0, key: str = "") -> None:
        self.file, self.line, self.key = file, line, key
        place = plain(f"{file}:{line}" if line else file)
        text = ": ".join(part for part in (place, key, message) if part)
        super().__init__("\n".join(plain(line) for line in text.split("\n")))
