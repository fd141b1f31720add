"""Which epoch is the best: a rule over an epoch's figures, written as an expression."""

import ast
import difflib
import operator
from collections.abc import Callable, Collection, Mapping
from statistics import fmean
from typing import Any

from fasttrain.base.errors import ConfigError

_OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Not: operator.not_,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "mean": lambda *values: fmean(values),
}
_ALLOWED = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.And, ast.Or,
    ast.IfExp, ast.Call, *_OPERATIONS,
)  # fmt: skip


class BestRule:
    """A rule such as ``val_top1`` or ``mean(val_snow_top1, val_fog_top1) if val_loss <= 1.2 else None``.

    It knows numbers, figures by name, ``+ - * /``, comparisons, ``and or not``, ``A if B else C``, ``min max mean``,
    and ``None`` for an epoch that cannot be the best. It is read as a tree; nothing of it is executed.

    Raises:
        ConfigError: it is not such an expression.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ConfigError(f"best: {text!r} is not an expression such as 'val_top1 - 0.1 * val_loss'") from None
        for node in ast.walk(tree):
            self._check(node)
        self._root = tree.body

    def _check(self, node: ast.AST) -> None:
        is_number = isinstance(node, ast.Constant) and isinstance(node.value, int | float | None)
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        wrong = not isinstance(node, _ALLOWED) or (isinstance(node, ast.Constant) and not is_number)
        if wrong or (isinstance(node, ast.Call) and (not is_call or node.keywords or not node.args)):
            raise ConfigError(
                f"best: {self.text!r} holds more than numbers, figures, + - * /, comparisons, and/or/not, if/else, "
                f"{', '.join(_FUNCTIONS)}"
            )

    @property
    def names(self) -> set[str]:
        """The figures that it looks at."""
        return {node.id for node in ast.walk(self._root) if isinstance(node, ast.Name)} - set(_FUNCTIONS)

    def check_names(self, known: Collection[str]) -> None:
        """Raise ConfigError where it looks at a figure that there is not."""
        for name in sorted(self.names - set(known)):
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"best: there is no figure {name!r}; {hint}")

    def score(self, figures: Mapping[str, Any]) -> float | None:
        """What the rule makes of an epoch's `figures`; None where it cannot be the best."""
        try:
            value = _value(self._root, figures)
        except (TypeError, ZeroDivisionError):  # a figure that is None, a division by one that is 0
            return None
        return None if value is None else float(value)


def _value(node: ast.AST, figures: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return figures.get(node.id)
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_value(node.left, figures), _value(node.right, figures))
    if isinstance(node, ast.UnaryOp):
        return _OPERATIONS[type(node.op)](_value(node.operand, figures))
    if isinstance(node, ast.BoolOp):
        values = [_value(part, figures) for part in node.values]
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.Compare):
        sides = [_value(part, figures) for part in (node.left, *node.comparators)]
        pairs = zip(node.ops, sides, sides[1:], strict=False)
        return all(_OPERATIONS[type(op)](left, right) for op, left, right in pairs)
    if isinstance(node, ast.IfExp):
        return _value(node.body if _value(node.test, figures) else node.orelse, figures)
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return _FUNCTIONS[node.func.id](*(_value(part, figures) for part in node.args))
