"""Lists that Megatron-LM writes in short: `([0]*3+[1]*58)` or a number for every so many layers, and letters of layers.

The number means what `moe_layer_freq` and `no_rope_freq` of Megatron Core's TransformerConfig say.
"""

import ast
import re

LAYERS = 1 << 12
"""Of a list at most."""
LETTERS = {"M": "mamba", "*": "attention", "-": "dense", "E": "moe"}
"""Letters of --hybrid-layer-pattern (before: --hybrid-override-pattern), megatron/core/models/hybrid and ssm."""


def listed(text: str) -> list[int] | None:
    """The 0s and 1s of a list in brackets, sums and repetitions; None for what is no such list."""
    if not re.fullmatch(r"[\[\]()0-9,*+\s]{2,400}", text):
        return None
    try:
        return _items(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _items(node: ast.expr) -> list[int]:
    """Raises ValueError for what is no list, or a list that is too long."""
    match node:
        case ast.List(elts=items) | ast.Tuple(elts=items):
            answer = [_count(item) for item in items]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            answer = _items(left) + _items(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant() as times):
            inside, count = _items(left), _count(times)
            if len(inside) * count > LAYERS:
                raise ValueError
            answer = inside * count
        case _:
            raise ValueError
    if len(answer) > LAYERS:
        raise ValueError
    return answer


def _count(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value <= LAYERS:
        return node.value
    raise ValueError
