# Copyright (c) monai_landmarks contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Expressions over landmarks, which define clinical measurements as text.

The language is a small part of Python: names of landmarks and of other measurements, numbers, ``+ - * /``, parentheses,
and the functions below. Python's ``ast`` parses an expression, and every other element of Python is refused. An
expression from an untrusted file can therefore compute a number and nothing else. ::

    distance(a, b)                            mm      between two points
    angle(a, b, c)                            degree  at b, 0 to 180
    angle_between(line(a, b), line(c, d))     degree  between two directions, 0 to 180
    point_line_distance(p, line(a, b))        mm      from the line, which has no ends
    midpoint(a, b, ...)                       point   the mean of two or more, usable in place of a landmark
    abs(x), min(x, y, ...), max(x, y, ...)            in the unit of the arguments
    cobb(1), cobb(2), cobb(3)                 degree  Cobb angles of a spine

``distance``, ``angle_between`` and ``point_line_distance`` accept another ``line(e, f)`` that gives them a sign:
negative where the measured vector or rotation points against the direction from e to f. This direction is anatomical.
The sign therefore does not depend on the order of the image axes or on the orientation of the patient in the image.
``cobb`` uses all landmarks, which must be four corners of each vertebra; see
:func:`monai_landmarks.metrics.cobb_angles`. A name of a landmark that is not a Python name is quoted: ``distance('R
MB', 'L MB')``.

Every expression has a unit, which is derived from its parts: millimeters cannot be added to degrees, and the ratio of
two distances has no unit.
"""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple

import numpy as np

from monai_landmarks.metrics import cobb_angles
from monai_landmarks.spaces import NdarrayTensor, array_functions

from . import geometry

__all__ = ["UNITS", "Scope", "Term", "compile_expressions", "did_you_mean", "evaluate", "unit_text"]

Kind = Literal["point", "line", "number"]
Unit = tuple[int, int]  # powers of mm and of degree

UNITS: dict[str, Unit] = {"mm": (1, 0), "degree": (0, 1), "ratio": (0, 0)}
"""Units that a measurement can have."""

MAX_LENGTH = 1000  # characters of an expression
MAX_DEPTH = 40  # of nested parts, and of measurements that refer to each other

_KINDS: dict[Kind, str] = {"point": "a landmark", "line": "a line, as line(a, b)", "number": "a number"}


class Scope(NamedTuple):
    """Variables of an expression: the points (..., N, D), and the values (...) of the measurements before it."""

    points: Any
    values: dict[str, Any]


@dataclass(frozen=True)
class Term:
    """A compiled expression or a part of it. It contains no closure, so it can be pickled.

    Args:
        kind: ``"point"``, ``"line"`` or ``"number"``.
        unit: powers of mm and degree of a number. None for a number that takes the unit of its neighbor, such as 90 in
            ``x - 90``.
        function: function that computes the value.
        arguments: arguments of the function. Terms are computed first, other values are passed unchanged.
        needs_scope: whether the function takes the scope as its first argument.
    """

    kind: Kind
    unit: Unit | None
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    needs_scope: bool = False

    def __call__(self, scope: Scope) -> Any:
        """Return the value: a point (..., D), a line, or a number (...)."""
        arguments = [argument(scope) if isinstance(argument, Term) else argument for argument in self.arguments]
        return self.function(scope, *arguments) if self.needs_scope else self.function(*arguments)


def compile_expressions(expressions: Mapping[str, str], landmarks: Sequence[str]) -> dict[str, Term]:
    """Compile the expressions of measurements, which may refer to each other.

    Args:
        expressions: expression of each measurement, by name.
        landmarks: names of the landmarks in the order of the points.

    Returns:
        Term of kind ``"number"`` of each measurement, by name. Each measurement comes after those that it refers to.

    Raises:
        ValueError: if an expression is malformed, uses an unknown name, mixes units, or refers to itself. The message
            begins with ``measurements.NAME.expression``.
    """
    compiler = _Compiler(expressions, landmarks)
    for name in expressions:
        compiler.measurement(name)
    return compiler.done


def evaluate(terms: Mapping[str, Term], points: NdarrayTensor) -> dict[str, NdarrayTensor]:
    """Return the values of compiled measurements.

    Args:
        terms: from :func:`compile_expressions`.
        points: (..., N, D) of a floating type, array or tensor, NaN where missing.

    Returns:
        Values (...) of each measurement, by name, of the type of the points.

    Example:
        >>> terms = compile_expressions({"half": "width / 2", "width": "distance(a, b)"}, ["a", "b"])
        >>> {name: float(value) for name, value in evaluate(terms, np.array([[0.0, 0.0], [3.0, 4.0]])).items()}
        {'width': 5.0, 'half': 2.5}
    """
    scope = Scope(points, {})
    with np.errstate(divide="ignore", invalid="ignore"):  # inf and NaN are the results
        for name, term in terms.items():
            scope.values[name] = term(scope)
    return scope.values


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'nasion'?"`` if a known name is similar, otherwise an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class _Function:
    """Signature of a function: kinds of its arguments, of an optional one, and whether the last one may repeat."""

    compute: Callable[..., Any]
    takes: tuple[Kind, ...]
    gives: Kind = "number"
    unit: Unit | None = None  # None: the unit of the arguments
    optional: tuple[Kind, ...] = ()
    repeats: bool = False

    def kinds(self, count: int) -> tuple[Kind, ...] | None:
        """Return the kinds of ``count`` arguments, or None if the function does not accept this number."""
        most = len(self.takes) + len(self.optional)
        if count < len(self.takes) or (count > most and not self.repeats):
            return None
        return ((*self.takes, *self.optional) + self.takes[-1:] * (count - most))[:count]


def _minimum(*values: NdarrayTensor) -> NdarrayTensor:
    return reduce(array_functions(values[0]).minimum, values)


def _maximum(*values: NdarrayTensor) -> NdarrayTensor:
    return reduce(array_functions(values[0]).maximum, values)


def _landmark(scope: Scope, index: int) -> Any:
    return scope.points[..., index, :]


def _measurement(scope: Scope, name: str) -> Any:
    return scope.values[name]


def _constant(scope: Scope, value: float) -> Any:
    return array_functions(scope.points).full_like(scope.points[..., 0, 0], value)


def _cobb(scope: Scope, number: int) -> Any:
    return cobb_angles(scope.points)[..., number - 1]


_MM, _DEGREE = UNITS["mm"], UNITS["degree"]

_FUNCTIONS = {
    "line": _Function(geometry.line, ("point", "point"), gives="line"),
    "midpoint": _Function(geometry.midpoint, ("point", "point"), gives="point", repeats=True),
    "distance": _Function(geometry.distance, ("point", "point"), unit=_MM, optional=("line",)),
    "angle": _Function(geometry.angle, ("point", "point", "point"), unit=_DEGREE),
    "angle_between": _Function(geometry.angle_between, ("line", "line"), unit=_DEGREE, optional=("line",)),
    "point_line_distance": _Function(geometry.point_line_distance, ("point", "line"), unit=_MM, optional=("line",)),
    "abs": _Function(abs, ("number",)),
    "min": _Function(_minimum, ("number", "number"), repeats=True),
    "max": _Function(_maximum, ("number", "number"), repeats=True),
}

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class _Compiler:
    """Compiles measurements on demand, because they may refer to each other."""

    def __init__(self, expressions: Mapping[str, str], landmarks: Sequence[str]) -> None:
        self.expressions = expressions
        self.index = {name: i for i, name in enumerate(landmarks)}
        self.done: dict[str, Term] = {}
        self.under_way: list[str] = []

    def measurement(self, name: str) -> Term:
        if name not in self.done:
            place = f"measurements.{name}.expression"
            chain = " -> ".join([*self.under_way, name])
            if name in self.under_way:
                raise ValueError(f"{place}: needs itself: {chain}.")
            if len(self.under_way) == MAX_DEPTH:
                raise ValueError(f"{place}: more than {MAX_DEPTH} measurements need one another: {chain}.")
            self.under_way.append(name)
            try:
                self.done[name] = self.compile(_parse(self.expressions[name]), "number", MAX_DEPTH)
            except _ExpressionError as fault:
                raise ValueError(f"{place}: {fault}") from None
            self.under_way.pop()
        return self.done[name]

    def compile(self, node: ast.expr, wanted: Kind, depth: int) -> Term:
        if depth == 0:
            raise _ExpressionError(
                f"parts lie within parts more than {MAX_DEPTH} deep; make a measurement of a part and name it."
            )
        if isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            term = self.name(node.id if isinstance(node, ast.Name) else str(node.value), wanted)
        elif isinstance(node, ast.Constant):
            term = Term("number", None, _constant, (_number(node),), needs_scope=True)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
            part = self.compile(node.operand, "number", depth - 1)
            sign = operator.neg if isinstance(node.op, ast.USub) else operator.pos
            term = Term("number", part.unit, sign, (part,))
        elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            term = self.operation(node, depth)
        elif isinstance(node, ast.Call):
            term = self.call(node, depth)
        else:
            raise _ExpressionError(
                f"{_text(node)} is not allowed; expected landmarks, numbers, + - * / and {_functions()}."
            )
        if term.kind != wanted:
            raise _ExpressionError(f"{_text(node)} is a {term.kind}; expected {_KINDS[wanted]}.")
        return term

    def name(self, name: str, wanted: Kind) -> Term:
        if name in self.index:
            return Term("point", None, _landmark, (self.index[name],), needs_scope=True)
        if name in self.expressions:
            return Term("number", self.measurement(name).unit, _measurement, (name,), needs_scope=True)
        what, known = ("measurement", self.expressions) if wanted == "number" else ("landmark", self.index)
        raise _ExpressionError(f"unknown {what} {name!r}{did_you_mean(name, known) or '.'}")

    def operation(self, node: ast.BinOp, depth: int) -> Term:
        left, right = (self.compile(part, "number", depth - 1) for part in (node.left, node.right))
        if isinstance(node.op, (ast.Add, ast.Sub)):
            unit = _common_unit(node, [left, right])
        elif left.unit is None and right.unit is None:
            unit = None
        else:
            sign = 1 if isinstance(node.op, ast.Mult) else -1
            (a, b), (c, d) = left.unit or (0, 0), right.unit or (0, 0)
            unit = (a + sign * c, b + sign * d)
        return Term("number", unit, _OPERATORS[type(node.op)], (left, right))

    def call(self, node: ast.Call, depth: int) -> Term:
        if not isinstance(node.func, ast.Name):
            raise _ExpressionError(f"{_text(node)} is not allowed; expected a call of {_functions()}.")
        name = node.func.id
        if name == "cobb":
            return self.cobb(node)
        if name not in _FUNCTIONS:
            hint = did_you_mean(name, [*_FUNCTIONS, "cobb"])
            raise _ExpressionError(f"unknown function {name!r}" + (hint or f"; expected one of {_functions()}."))
        function = _FUNCTIONS[name]
        kinds = function.kinds(len(node.args))
        if kinds is None or node.keywords:
            form = ", ".join([*function.takes, *(f"[{kind}]" for kind in function.optional)])
            raise _ExpressionError(f"{_text(node)}: expected {name}({form}{', ...' if function.repeats else ''}).")
        arguments = [self.compile(part, kind, depth - 1) for part, kind in zip(node.args, kinds)]
        unit = function.unit
        if unit is None and function.gives == "number":
            unit = _common_unit(node, arguments)
        return Term(function.gives, unit, function.compute, tuple(arguments))

    def cobb(self, node: ast.Call) -> Term:
        numbers = [part.value for part in node.args if isinstance(part, ast.Constant) and type(part.value) is int]
        if len(node.args) != 1 or node.keywords or not set(numbers) & {1, 2, 3}:
            raise _ExpressionError(f"{_text(node)}: expected cobb(1), cobb(2) or cobb(3).")
        if len(self.index) < 8 or len(self.index) % 4:
            raise _ExpressionError(
                f"{_text(node)}: takes 4 corners of each of 2 or more vertebrae, got {len(self.index)} landmarks."
            )
        return Term("number", _DEGREE, _cobb, tuple(numbers), needs_scope=True)


class _ExpressionError(ValueError):
    """Fault in an expression; the message does not contain the name of the measurement."""


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise _ExpressionError(f"{len(text)} characters; expected at most {MAX_LENGTH}.")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise _ExpressionError(f"{text!r} is not an expression ({error.msg}).") from None
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte, or nested too deeply for the parser
        raise _ExpressionError(f"not an expression that can be read ({error or type(error).__name__}).") from None


def _number(node: ast.Constant) -> float:
    value = node.value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15:
        return float(value)
    raise _ExpressionError(f"{_text(node)} is not allowed; expected a number below 1e15.")


def _common_unit(node: ast.expr, terms: Sequence[Term]) -> Unit | None:
    units = {term.unit for term in terms} - {None}
    if len(units) > 1:
        raise _ExpressionError(
            f"{_text(node)} mixes {' and '.join(sorted(unit_text(unit) for unit in units if unit))}."
        )
    return units.pop() if units else None


def unit_text(unit: Unit) -> str:
    """Return the name of a unit, such as ``"mm"``, ``"degree"``, ``"ratio"`` or ``"mm^2"``."""
    powers = [f"{name}^{power}" if power != 1 else name for name, power in zip(("mm", "degree"), unit) if power]
    return " ".join(powers) or "ratio"


def _functions() -> str:
    return ", ".join([*_FUNCTIONS, "cobb"])


def _text(node: ast.AST) -> str:
    """Return the expression of a node, for a message."""
    try:
        text = ast.unparse(node)
    except RecursionError:
        return "a part"
    return text if len(text) <= 60 else text[:57] + "..."
