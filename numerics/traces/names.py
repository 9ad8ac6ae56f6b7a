"""What the name of a kernel says: the function's own name, the namespaces around it, what its template names.

C++ names are read as compilers print them (`void at::native::reduce_kernel<512, ReduceOp<float>>(int)`) or as they lie
in the binary (Itanium C++ ABI sec 5.1; profilers leave names of more than 1,024 characters so). Names of Triton, of
cuBLAS and of host operators are read by the same rules: most of them are their own name, and `aten::mm` is `mm` of the
scope `aten`. A name that is cut is read as far as it goes.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

REMEMBERED = 1 << 14
"""Names whose parts are kept; a trace has a few hundred."""
LONGEST, DEEPEST = 1 << 14, 64
"""Characters of a name that are read, and template arguments within another; CUTLASS's reach 4,000 and 20."""
LAUNCHERS = re.compile(r"(device_kernel|Kernel2?|kentry|enable_\w+)\Z")
"""Functions that only start what their template argument names: of CUTLASS and Composable Kernel, and guards of an
architecture."""


class Function(NamedTuple):
    """Parts of a name. own: without return type, namespaces, template arguments and argument types. scope: its
    namespaces and classes, joined by "::". inside: own names of all that its template arguments name, outer before
    inner, with spaces between.
    """

    own: str
    scope: str
    inside: str


@lru_cache(REMEMBERED)
def function(name: str) -> Function:
    """The outermost function of a kernel's name; launchers are looked through, a lambda is what it stands in."""
    name = name[:LONGEST]
    names = list(_mangled(name) if name.startswith("_Z") else _printed(name, DEEPEST)) or [("", name)]
    first = next((i for i, (_, own) in enumerate(names) if not LAUNCHERS.match(own)), 0)
    return Function(names[first][1], names[first][0], " ".join(own for _, own in names[first + 1 :]))


# --- as compilers print them ------------------------------------------------------------------------------------------

_BRACKETS = re.compile(r"[<>(){}]")
_CLOSES = {">": "<", ")": "(", "}": "{"}
_TEMPLATE, _ARGUMENTS, _BRACES = "\x01", "\x02", "\x03"
_MARKS = {"<": _TEMPLATE, "(": _ARGUMENTS, "{": _BRACES}
_RETURNS = re.compile(r"(.*\b(void|bool|char|short|int|long|float|double|auto)|.*[*&\x01]|.*::\w+) (?=\S)")
"""A type and the space behind it."""
_NO_NAME = re.compile(r"\x03|'(lambda|unnamed)|operator(?!\w)|\Z|\d+[ul]*\Z")
"""Lambdas, call operators and numbers."""


def _printed(text: str, depth: int) -> Iterator[tuple[str, str]]:
    """(scope, own name) of the function or type in `text`, then of what its template arguments name."""
    flat, templates = "", []
    text = text.replace("(anonymous namespace)", "anonymous").replace(" const", "").strip(" &*")
    end = 0
    for begin, stop in _groups(text):
        mark = _MARKS[text[begin]]
        flat, end = flat + text[end:begin] + mark, stop
        if mark == _TEMPLATE:
            templates.append(text[begin + 1 : stop - 1])
    flat += text[end:]
    if flat == _ARGUMENTS:  # a function in parentheses
        templates.append(text[1:-1])
    flat = re.sub(r"(?<=\x02) .*|\s+[\x02\[].*", "", flat)  # what compilers say behind the arguments
    if returns := _RETURNS.match(flat):
        flat, templates = flat[returns.end() :], templates[returns[0].count(_TEMPLATE) :]
    path = [part.replace(_TEMPLATE, "").partition(_ARGUMENTS)[0] for part in flat.split("::")]
    path = [part.strip(" &*") for part in path if not _NO_NAME.match(part)]
    if path:
        yield "::".join(path[:-1]), path[-1]
    for part in templates if depth else ():
        cuts = [-1, *_commas(part), len(part)]
        for a, b in pairwise(cuts):
            yield from _printed(part[a + 1 : b], depth - 1)


def _groups(text: str) -> Iterator[tuple[int, int]]:
    """Begin and end of each outermost pair of brackets; one that does not close goes to the end of the text."""
    opened: list[tuple[str, int]] = []
    for mark in _BRACKETS.finditer(text):
        bracket, at = mark[0], mark.start()
        if bracket in _MARKS:
            opened.append((bracket, at))
        elif any(kind == _CLOSES[bracket] for kind, _ in opened):  # else an arrow or a comparison
            if bracket == ">" and opened[-1][0] != "<":
                continue
            while (last := opened.pop())[0] != _CLOSES[bracket]:
                pass
            if not opened:
                yield last[1], at + 1
    if opened:
        yield opened[0][1], len(text) + 1


def _commas(text: str) -> Iterator[int]:
    """Places of the commas between template arguments."""
    end = 0
    for begin, stop in [*_groups(text), (len(text), len(text))]:
        yield from (end + comma.start() for comma in re.finditer(",", text[end:begin]))
        end = stop


# --- as they lie in the binary ----------------------------------------------------------------------------------------

_SYMBOL = re.compile(r"\d{1,5}|S[absiotd]|[ST][0-9A-Z]*_|A\d*_|U[lt]|[CD][0-5]|D[a-zT]|[A-Za-z]|_\d*")
_VALUE = re.compile(r"n?\d+")
_LAMBDA_END = re.compile(r"\d*_|")
_OPENS = frozenset({"N", "I", "J", "X", "F", "Z", "Ul"})
"""What an E closes: nested names, template arguments and packs of them, expressions, function types, names local to a
function, lambdas; and literals, which open with the letter that elsewhere means internal linkage."""


class _Frame:
    """Something that an E closes, or a name alone (kind ""). path: the parts of its name. hidden: types of a function's
    arguments or of a literal, which are no part of the name. named: whether its name, or a literal's type, is past."""

    def __init__(self, kind: str, hidden: bool) -> None:
        self.kind, self.hidden, self.named, self.path = kind, hidden, False, list[str]()

    def hides(self, kind: str) -> bool:
        """Whether something of a kind that opens here is no part of the name."""
        literal = self.kind == "L" and kind != "Z"
        return self.hidden or literal or self.kind in ("F", "Ul") or (self.kind == "Z" and self.named)


def _mangled(text: str) -> Iterator[tuple[str, str]]:
    """(scope, own name) of the function of a mangled name, then of what its template arguments name.

    Namespaces that a substitution stands for are left out of the scope, and what it repeats is named once.
    """
    nested = text[2:3] == "N"
    frames = [_Frame("N" if nested else "", False)]
    names = frames[:]
    at = 3 if nested else 2
    while frames and at < len(text) and not (len(frames) == 1 and not nested and frames[0].named and text[at] != "I"):
        value = _VALUE.match(text, at) if frames[-1].kind == "L" and frames[-1].named else None
        symbol = value or _SYMBOL.match(text, at)
        if symbol is None:
            break
        at = value.end() if value else _next(text, symbol[0], symbol.end(), frames, names)
    for frame in names:
        if frame.path and not frame.hidden:
            yield "::".join(frame.path[:-1]), frame.path[-1]


def _next(text: str, symbol: str, at: int, frames: list[_Frame], names: list[_Frame]) -> int:
    """Takes one symbol in; returns where the next begins."""
    frame = frames[-1]
    if symbol.isdecimal():
        named = frame if frame.kind in ("N", "") else _Frame("", frame.hides(""))
        named.path.append(text[at : at + int(symbol)])
        names += [named] * (named is not frame)
        frame.named = True
        return at + int(symbol)
    if symbol == "E":
        frames.pop()
        if frames:
            frames[-1].named = True
        end = _LAMBDA_END.match(text, at) if frame.kind == "Ul" else None
        return end.end() if end else at
    if symbol in _OPENS or (symbol == "L" and frame.kind not in ("N", "")):
        frames.append(_Frame(symbol, frame.hides(symbol)))
        names += frames[-1:] * (symbol == "N")
    elif frame.kind == "L" and (symbol[0] in "ST" or symbol.islower()):
        frame.named = True
    return at
