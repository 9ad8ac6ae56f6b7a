"""Whole numbers and tests as a shell counts and answers them, as far as they are plain."""

import ast
import operator
from collections.abc import Callable, Sequence

LONGEST = 200
"""Letters of an expression at most."""
OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.floordiv,
    ast.Mod: operator.mod,
}  # fmt: skip
NUMBERS: dict[str, Callable[[int, int], bool]] = {
    "-eq": operator.eq, "-ne": operator.ne, "-lt": operator.lt, "-le": operator.le, "-gt": operator.gt,
    "-ge": operator.ge,
}  # fmt: skip


def number(text: str, names: Callable[[str], str]) -> int | None:
    """The value of an expression such as GPUS*NODES, or None where it has more than numbers, names and + - * / %.

    names: what a name stands for, as text.
    """
    if len(text) > LONGEST:
        return None
    try:
        return _evaluated(ast.parse(text.strip().replace("$", ""), mode="eval").body, names)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _evaluated(node: ast.expr, names: Callable[[str], str]) -> int:
    """Raises ValueError for what is no plain arithmetic."""
    match node:
        case ast.Constant(value=int() as value):
            return _checked(value)
        case ast.Name(id=name):
            return _checked(int(names(name)))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_evaluated(inner, names)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            return _checked(OPERATIONS[type(op)](_evaluated(left, names), _evaluated(right, names)))
    raise ValueError


def _checked(value: int) -> int:
    """A value of 64 bits, as a shell has. Raises ValueError for others."""
    if abs(value) >> 63:
        raise ValueError
    return value


def truth(words: Sequence[str]) -> bool | None:
    """What `[ words ]` answers, or None where a shell must be asked."""
    words = list(words)
    if words and words[0] in ("[", "[[") and words[-1] in ("]", "]]"):
        words = words[1:-1]
    elif words and words[0] == "test":
        words = words[1:]
    elif words in (["true"], ["false"]):
        return words == ["true"]
    else:
        return None
    if words and words[0] == "!":
        answer = truth(["[", *words[1:], "]"])
        return None if answer is None else not answer
    return _answer(words)


def _answer(words: Sequence[str]) -> bool | None:
    match words:
        case [one] if "$" not in one:
            return one != ""
        case ["-z", text] if "$" not in text:
            return text == ""
        case ["-n", text] if "$" not in text:
            return text != ""
        case [left, "=" | "==", right] if "$" not in left + right:
            return left == right
        case [left, "!=", right] if "$" not in left + right:
            return left != right
        case [left, how, right] if how in NUMBERS and _whole(left) and _whole(right):
            return NUMBERS[how](int(left), int(right))
    return None


def _whole(text: str) -> bool:
    return text.removeprefix("-").isdigit() and text.isascii()
