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

"""Expressions: their values against closed forms, what they refuse, and the geometry under all that must not change it."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from monai_landmarks.schema.expression import MAX_DEPTH, compile_expressions, evaluate

# a right triangle with sides 3, 4, 5, and a point above it
TRIANGLE = {"a": (0.0, 0.0), "b": (4.0, 0.0), "c": (4.0, 3.0), "d": (1.0, 5.0)}
NAMES = list(TRIANGLE)


def points(spatial_dims=2, dtype=torch.float64):
    plane = torch.tensor(list(TRIANGLE.values()), dtype=dtype)
    return torch.cat([plane, torch.zeros(len(plane), spatial_dims - 2, dtype=dtype)], dim=1)


def value(expression, where=None, names=NAMES):
    return evaluate(compile_expressions({"x": expression}, names), points() if where is None else where)["x"]


CLOSED_FORMS = {
    "distance(a, c)": 5,
    "distance(a, c, line(b, a))": -5,
    "distance(a, c, line(a, b))": 5,
    "distance(a, b, line(b, c))": 4,  # exactly across: positive
    "angle(b, a, c)": math.degrees(math.atan2(3, 4)),
    "angle(a, b, c)": 90,
    "angle(a, b, b)": math.nan,  # no direction
    "angle(a, c, b) + angle(a, b, c) + angle(b, a, c)": 180,
    "angle_between(line(a, b), line(c, b))": 90,
    "angle_between(line(a, b), line(b, a))": 180,
    "angle_between(line(a, b), line(a, b))": 0,
    "angle_between(line(a, b), line(a, c), line(b, c))": math.degrees(math.atan2(3, 4)),
    "angle_between(line(a, b), line(a, c), line(c, b))": -math.degrees(math.atan2(3, 4)),
    "angle_between(line(a, b), line(a, c), line(b, b))": math.nan,
    "point_line_distance(b, line(a, c))": 12 / 5,
    "point_line_distance(b, line(c, a))": 12 / 5,
    "point_line_distance(d, line(a, b))": 5,  # its foot lies between a and b
    "point_line_distance(c, line(d, d))": math.nan,
    "point_line_distance(d, line(a, b), line(c, b))": -5,
    "distance(midpoint(a, b), c)": math.sqrt(13),
    "distance(midpoint(a, b, c), a)": math.hypot(8 / 3, 1),
    "distance(midpoint(midpoint(a, c), a), a)": 5 / 4,
    "distance(a, b) / distance(b, c)": 4 / 3,
    "min(distance(a, b), distance(b, c), distance(a, c))": 3,
    "max(distance(a, b), 4.5)": 4.5,
    "abs(distance(b, c) - distance(a, b))": 1,
    "-distance(a, b) + 2 * (distance(b, c) - +1) / 4": -3,
    "distance('a', \"b\") - 1e-1": 3.9,
    "90 - angle(b, a, c)": 90 - math.degrees(math.atan2(3, 4)),
    "2 + 3 * 4": 14,
    "distance(a, b) * distance(b, c) / distance(a, c)": 12 / 5,
}


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("expression, expected", CLOSED_FORMS.items())
def test_closed_forms(expression, expected, spatial_dims):
    assert float(value(expression, points(spatial_dims))) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closed_forms_keep_type_and_device(dtype, device):
    terms = compile_expressions({expression: expression for expression in CLOSED_FORMS}, NAMES)
    for expression, found in evaluate(terms, points(3, dtype).to(device)).items():
        assert found.dtype == dtype and found.shape == () and found.device.type == device.type
        assert float(found) == pytest.approx(CLOSED_FORMS[expression], abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 1.0, 89.0, 91.0, 179.0, 180 - 1e-3, 180 - 1e-6])
def test_angles_are_exact_where_the_arc_cosine_is_not(angle):
    tip = [math.cos(math.radians(angle)), math.sin(math.radians(angle))]
    found = value("angle(b, a, c)", torch.tensor([[0.0, 0], [1, 0], tip], dtype=torch.float64), ["a", "b", "c"])
    assert float(found) == pytest.approx(angle, rel=1e-9)


def test_a_spatial_diagonal():
    cube = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.float64)
    assert float(value("distance(a, c)", cube, ["a", "b", "c"])) == pytest.approx(math.sqrt(3))
    assert float(value("angle(b, a, c)", cube, ["a", "b", "c"])) == pytest.approx(math.degrees(math.atan(math.sqrt(2))))
    assert float(value("point_line_distance(b, line(a, c))", cube, ["a", "b", "c"])) == pytest.approx(math.sqrt(2 / 3))


def random_motion(spatial_dims, rng, mirrored):
    matrix, _ = np.linalg.qr(rng.standard_normal((spatial_dims, spatial_dims)))
    if (np.linalg.det(matrix) < 0) != mirrored:
        matrix[0] *= -1
    return torch.as_tensor(matrix), torch.as_tensor(rng.uniform(-100, 100, spatial_dims))


SIGNED = [
    "distance(a, c, line(d, b))",
    "angle_between(line(a, b), line(c, d), line(b, c))",
    "point_line_distance(d, line(a, c), line(b, c))",
    "angle(a, c, d) - angle(d, a, b)",
]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("expression", SIGNED)
def test_rotation_mirror_and_shift_change_nothing_and_scale_only_lengths(expression, spatial_dims, mirrored):
    rng = np.random.default_rng(3)
    for _ in range(10):
        where = torch.as_tensor(rng.uniform(-50, 50, (4, spatial_dims)))
        matrix, shift = random_motion(spatial_dims, rng, mirrored)
        terms = compile_expressions({"x": expression}, NAMES)
        scale = 2.5 if terms["x"].unit == (1, 0) else 1.0
        moved = evaluate(terms, 2.5 * where @ matrix.T + shift)["x"]
        torch.testing.assert_close(moved, scale * evaluate(terms, where)["x"], rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize(
    "call",
    ["distance(a, c, {})", "angle_between(line(a, b), line(c, d), {})", "point_line_distance(d, line(a, c), {})"],
)
def test_the_opposite_direction_changes_the_sign(call):
    there, back = (float(value(call.format(toward))) for toward in ("line(b, d)", "line(d, b)"))
    assert there == -back != 0


def test_batches_and_missing_landmarks():
    terms = compile_expressions(
        {
            "near": "distance(a, b)",
            "far": "distance(c, d)",
            "both": "max(near, far)",
            "least": "min(near, far)",
            "5": "5",
        },
        NAMES,
    )
    batch = points().repeat(2, 3, 1, 1)
    batch[1, 2, NAMES.index("b")] = torch.nan
    batch[0, 1, NAMES.index("d"), 0] = torch.nan
    found = evaluate(terms, batch)
    assert {name: tuple(known.shape) for name, known in found.items()} == dict.fromkeys(terms, (2, 3))
    assert found["near"].isnan().nonzero().tolist() == [[1, 2]]
    assert found["far"].isnan().nonzero().tolist() == [[0, 1]]
    for name in ("both", "least"):
        assert found[name].isnan().nonzero().tolist() == [[0, 1], [1, 2]]
    assert (found["near"][~found["near"].isnan()] == 4).all() and (found["5"] == 5).all()


@pytest.mark.parametrize("toward", ["distance(a, b, line(c, d))", "angle_between(line(a, b), line(b, a), line(c, d))"])
def test_a_missing_direction_leaves_no_value(toward):
    where = points()
    where[NAMES.index("d")] = torch.nan
    assert value(toward, where).isnan()


def test_gradients():
    where = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    terms = compile_expressions({str(i): expression for i, expression in enumerate(SIGNED)}, NAMES)
    assert torch.autograd.gradcheck(lambda p: tuple(evaluate(terms, p).values()), where)


def test_measurements_use_each_other_in_any_order():
    terms = compile_expressions({"c2": "b2 - a2", "b2": "2 * a2", "a2": "angle(a, b, c)"}, NAMES)
    assert list(terms) == ["a2", "b2", "c2"]
    assert {name: float(known) for name, known in evaluate(terms, points()).items()} == {"a2": 90, "b2": 180, "c2": 90}


def test_shared_measurements_are_computed_once():
    """Each doubles the one before: without sharing this would take 2 ** 39 steps."""
    count = MAX_DEPTH - 1
    texts = {"m0": "distance(a, b)"} | {f"m{i}": f"m{i - 1} + m{i - 1}" for i in range(1, count)}
    assert float(evaluate(compile_expressions(texts, NAMES), points())[f"m{count - 1}"]) == 4 * 2.0 ** (count - 1)


def test_terms_can_be_pickled():
    terms = compile_expressions({"x": CLOSED_FORM_WITH_ALL}, NAMES)
    again = pickle.loads(pickle.dumps(terms))
    assert evaluate(again, points())["x"] == evaluate(terms, points())["x"]


CLOSED_FORM_WITH_ALL = (
    "-abs(min(distance(a, midpoint(b, c), line(a, b)), max(point_line_distance(d, line(a, c)), 2)))"
    " * angle(a, b, c) / angle_between(line(a, b), line(c, d))"
)

UNSAFE = [
    "__import__('os').system('true')",
    "a.__class__",
    "distance(a, b).real",
    "distance.__globals__",
    "eval('1')",
    "open('/etc/passwd')",
    "getattr(a, 'x')",
    "(lambda: 1)()",
    "[a for a in (1, 2)]",
    "[1, 2]",
    "{1: 2}",
    "(1, 2)",
    "a[0]",
    "f'{a}'",
    "2 ** 9999999999",
    "9 ** 9 ** 9",
    "1 << 99999999",
    "7 // 2",
    "7 % 2",
    "~1",
    "not 1",
    "1 < 2",
    "1 and 2",
    "1 if 2 else 3",
    "(x := 1)",
    "True",
    "None",
    "...",
    "b'a'",
    "1j",
    "1e999",
    "9" * 400,
    "distance(*[a, b])",
    "distance(a=a, b=b)",
    "distance(a, b, **{})",
    "await a",
    "yield",
    "a; b",
    "import os",
    "a = 1",
    "distance(a, b)\nimport os",
    "",
    "   ",
    "distance(a, b",
    "\0",
    "\ud800",
    "distance(a, b) # ok? \0",
    "''",
]


@pytest.mark.parametrize("expression", UNSAFE)
def test_nothing_else_of_python_is_let_through(expression):
    with pytest.raises(ValueError, match=r"^measurements\.x\.expression: "):
        compile_expressions({"x": expression}, NAMES)


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 150 + "1" + ")" * 150 + "-" * 100 + "1",
        "(" * 499 + "1" + ")" * 499,
        "-" * 900 + "1",
        "abs(" * 150 + "1" + ")" * 150,
        "1" + "+1" * 400,
        "1" + "+1" * 40_000,
        "-" * 1_000_000 + "1",
        "(" * 1_000_000,
        "distance(" * 90 + "a",
        "a" + ".a" * 490,
    ],
)
def test_deep_and_long_expressions_are_refused(expression):
    with pytest.raises(ValueError, match=r"^measurements\.x\.expression: "):
        compile_expressions({"x": expression}, NAMES)


def test_long_chains_of_measurements_are_refused():
    texts = {"m0": "1"} | {f"m{i}": f"m{i - 1}" for i in range(1, 2000)}
    with pytest.raises(ValueError, match="more than 40 measurements need one another"):
        compile_expressions(dict(reversed(texts.items())), NAMES)


@pytest.mark.parametrize(
    "expressions, message",
    [
        (
            {"x": "distance(nasoin, sella)"},
            "measurements.x.expression: unknown landmark 'nasoin'; did you mean 'nasion'?",
        ),
        ({"x": "distance(sella, zzz)"}, "unknown landmark 'zzz'."),
        ({"SNA": "angle(sella, nasion, A)", "x": "2 * SNa"}, "unknown measurement 'SNa'; did you mean 'SNA'?"),
        ({"x": "distnace(sella, nasion)"}, "unknown function 'distnace'; did you mean 'distance'?"),
        ({"x": "sqrt(1)"}, "unknown function 'sqrt'; expected one of line, midpoint, distance,"),
        ({"x": "sella + 1"}, "sella is a point; expected a number."),
        ({"x": "sella"}, "sella is a point; expected a number."),
        ({"x": "line(sella, nasion)"}, "line(sella, nasion) is a line; expected a number."),
        ({"x": "angle_between(sella, nasion)"}, "sella is a point; expected a line, as line(a, b)."),
        ({"x": "distance(1, sella)"}, "1 is a number; expected a landmark."),
        ({"x": "distance(sella)"}, "distance(sella): expected distance(point, point, [line])."),
        ({"x": "distance(sella, nasion, line(A, B), line(B, A))"}, "expected distance(point, point, [line])."),
        ({"x": "midpoint(sella)"}, "midpoint(sella): expected midpoint(point, point, ...)."),
        ({"x": "min(1)"}, "expected min(number, number, ...)."),
        ({"x": "distance(sella, A) + angle(sella, A, B)"}, "mixes degree and mm."),
        ({"x": "max(distance(sella, A), angle(sella, A, B))"}, "mixes degree and mm."),
        ({"x": "1 / distance(sella, A) - distance(sella, A)"}, "mixes mm and mm^-1."),
        ({"x": "x + 1"}, "measurements.x.expression: needs itself: x -> x."),
        ({"x": "y", "y": "z", "z": "2 * x"}, "needs itself: x -> y -> z -> x."),
    ],
)
def test_errors_say_what_is_wrong(expressions, message):
    with pytest.raises(ValueError) as error:
        compile_expressions(expressions, ["sella", "nasion", "A", "B"])
    assert message in str(error.value)


@pytest.mark.parametrize(
    "expression, unit",
    [
        ("distance(a, b)", (1, 0)),
        ("angle(a, b, c)", (0, 1)),
        ("distance(a, b) / distance(b, c)", (0, 0)),
        ("distance(a, b) * distance(b, c)", (2, 0)),
        ("1 / distance(a, b)", (-1, 0)),
        ("distance(a, b) / angle(a, b, c)", (1, -1)),
        ("2 * angle(a, b, c) - 90", (0, 1)),
        ("abs(-point_line_distance(a, line(b, c)))", (1, 0)),
        ("min(3, distance(a, b))", (1, 0)),
        ("3 * 4", None),
    ],
)
def test_units(expression, unit):
    assert compile_expressions({"x": expression}, NAMES)["x"].unit == unit


def bent_spine(vertebrae=4, bend=10.0):
    """Corners (4 V, 2) of vertebrae of which each is turned by ``bend`` degrees more than the one above."""
    corners = torch.tensor([[-10.0, -4], [10, -4], [-10, 4], [10, 4]], dtype=torch.float64)
    turns = torch.deg2rad(bend * torch.arange(vertebrae, dtype=torch.float64))
    turned = [corners @ torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]).double() for a in turns]
    return torch.cat([part + torch.tensor([0.0, 15.0 * i]) for i, part in enumerate(turned)])


def test_cobb_angles():
    names = [str(i) for i in range(16)]
    batch = torch.stack([bent_spine(), bent_spine(bend=-5), bent_spine()])
    batch[2, 3] = torch.nan
    assert value("cobb(1)", batch, names).tolist() == pytest.approx([30, 15, math.nan], nan_ok=True)
    assert value("max(cobb(1), cobb(2), cobb(3)) - 10", batch[0], names) == pytest.approx(20)
    assert compile_expressions({"x": "cobb(3)"}, names)["x"].unit == (0, 1)


@pytest.mark.parametrize(
    "expression", ["cobb()", "cobb(0)", "cobb(4)", "cobb(1, 2)", "cobb(True)", "cobb(1.0)", "cobb(+1)", "cobb(n=1)"]
)
def test_cobb_takes_one_number(expression):
    with pytest.raises(ValueError, match=r"expected cobb\(1\), cobb\(2\) or cobb\(3\)"):
        compile_expressions({"x": expression}, [str(i) for i in range(8)])


def test_cobb_takes_corners_of_vertebrae():
    with pytest.raises(ValueError, match="takes 4 corners of each of 2 or more vertebrae, got 4 landmarks"):
        compile_expressions({"x": "cobb(1)"}, NAMES)


def test_landmarks_of_any_name():
    names = ["R MB", "1", "upper lip", "größe", "it's"]
    where = torch.tensor([[0.0, 0], [3, 4], [0, 1], [0, 2], [0, 3]])
    assert value("distance('R MB', '1')", where, names) == 5
    assert value("distance(größe, \"it's\") + distance('upper lip', 'R MB')", where, names) == 2
