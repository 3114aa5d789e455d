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
"""The warp as mathematics: its spline, its grid, its inverse, and that it never folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from monai_landmarks.transforms import SplineWarp, spline_warp


def random_warp(shape: tuple[int, ...], amplitude: float, seed: int = 0, max_gradient: float = 0.8) -> SplineWarp:
    random = np.random.RandomState(seed)
    dims = len(shape)
    matrix = np.eye(dims) + random.uniform(-0.15, 0.15, (dims, dims))
    control = random.uniform(-amplitude, amplitude, (6, 5, 7)[:dims] + (dims,))
    spacing = np.array([0.7, 1.3, 2.0])[:dims]
    return SplineWarp(shape, spacing, matrix, random.uniform(-4, 4, dims), control, max_gradient)


SHAPES = [(48, 40), (30, 24, 20)]


@pytest.mark.parametrize("shape", SHAPES)
def test_elastic_field_is_a_clamped_cubic_b_spline(shape: tuple[int, ...]) -> None:
    # second implementation: SciPy's B-splines on a uniform knot vector whose inner part spans the image edge to edge
    warp = random_warp(shape, 2.0)
    dims = len(shape)
    index = np.random.RandomState(1).uniform(-0.3, 1.3, (50, dims)) * np.asarray(shape)
    basis = []
    for axis, control in enumerate(warp.control.shape[:-1]):
        spans = control - 3
        tau = np.clip((index[:, axis] + 0.5) / shape[axis] * spans, 0, spans)
        basis.append(BSpline(np.arange(-3, spans + 4), np.eye(control), 3)(tau))
    letters = "abc"[:dims]
    expected = np.einsum(f"{','.join('n' + c for c in letters)},{letters}d->nd", *basis, warp.control)
    u = (index - (np.asarray(shape) - 1) / 2) * warp.spacing
    np.testing.assert_allclose(warp.elastic(u), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_grid_is_the_map_at_every_voxel(
    shape: tuple[int, ...], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the grid folds the affine part into the control points, the map at points does not
    warp = random_warp(shape, 3.0)
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).reshape(-1, len(shape))
    expected = (2 * warp(voxels) + 1) / np.asarray(shape) - 1
    grid = warp.grid(device)
    assert grid.device.type == device.type and tuple(grid.shape) == (1, *shape, len(shape))
    np.testing.assert_allclose(grid.cpu().numpy().reshape(-1, len(shape))[:, ::-1], expected, atol=1e-12)
    assert torch.equal(warp.grid(device, torch.float32), grid.float())
    monkeypatch.setattr(spline_warp, "_PIECE", 7 * grid[0, 0].numel())  # 7 divides no size: the last piece is smaller
    torch.testing.assert_close(warp.grid(device), grid, rtol=0, atol=1e-14)


@pytest.mark.parametrize("amplitude", [0.0, 3.0, 100.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_inverse(shape: tuple[int, ...], amplitude: float) -> None:
    warp = random_warp(shape, amplitude, seed=2)
    points = np.random.RandomState(3).uniform(-0.5, 1.5, (200, len(shape))) * np.asarray(shape)  # also far outside
    np.testing.assert_allclose(warp(warp.inverse(points)), points, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_iteration_of_the_inverse_is_a_contraction(shape: tuple[int, ...]) -> None:
    warp = random_warp(shape, 3.0, seed=2, max_gradient=0.5)
    warp.matrix = np.eye(len(shape))  # so that the contraction is that of the elastic field alone
    points = np.random.RandomState(3).uniform(0, 1, (200, len(shape))) * np.asarray(shape)
    exact = warp.inverse(points) * warp.spacing
    errors = [np.linalg.norm(warp.inverse(points, max_iterations=n) * warp.spacing - exact, axis=1) for n in range(4)]
    for before, after in zip(errors, errors[1:]):
        assert (after <= 0.5 * before + 1e-4).all() and after.max() > 1e-3


def test_inverse_keeps_missing_points_missing() -> None:
    warp = random_warp((48, 40), 3.0)
    points = np.array([[20.0, 20.0], [np.nan, np.nan]])
    moved = warp.inverse(points)
    assert np.isnan(moved[1]).all()
    np.testing.assert_array_equal(moved[0], warp.inverse(points[:1])[0])
    assert warp.inverse(np.full((2, 2), np.nan)).shape == (2, 2)
    assert warp.inverse(np.zeros((0, 2))).shape == (0, 2)


def smallest_jacobian(warp: SplineWarp, step: float = 1e-4) -> float:
    """Smallest determinant of the map's gradient on a grid that is finer than the one the limit is checked on."""
    shape, dims = np.asarray(warp.spatial_shape), len(warp.spatial_shape)
    axes = [np.linspace(-0.4, n - 0.6, 41 if dims == 2 else 15) for n in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, dims)
    columns = [(warp(points + step * e) - warp(points - step * e)) / (2 * step) for e in np.eye(dims)]
    return float(np.linalg.det(np.stack(columns, -1)).min())


@pytest.mark.parametrize("shape", SHAPES)
def test_folding_is_limited(shape: tuple[int, ...]) -> None:
    folds = 0
    for seed in range(5):
        warp = random_warp(shape, 60.0, seed, max_gradient=0.8)
        bound = 0.15 ** len(shape) * np.linalg.det(np.linalg.inv(warp.matrix))
        assert 0.78 <= warp.elastic_gradient() <= 0.8 + 1e-9
        assert smallest_jacobian(warp) > bound
        wild = random_warp(shape, 60.0, seed)
        wild.control = wild.control * 10  # what the limit prevents
        folds += smallest_jacobian(wild) <= 0
    assert folds == 5


def test_gentle_fields_are_left_alone() -> None:
    control = np.random.RandomState(0).uniform(-1, 1, (5, 5, 2))
    warp = SplineWarp((64, 64), (1, 1), np.eye(2), np.zeros(2), control)
    assert warp.control is control


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"matrix": np.diag([1.0, -1.0])}, "orientation"),
        ({"control": np.zeros((3, 5, 2))}, "control"),
        ({"control": np.zeros((5, 5, 3))}, "control"),
        ({"max_gradient": 0.95}, "max_gradient"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplineWarp(
            **{"spatial_shape": (9, 9), "spacing": (1, 1), "matrix": np.eye(2), "translation": np.zeros(2), **arguments}
        )


def test_the_largest_limit_does_not_fold_between_the_samples() -> None:
    """Along one axis, these control points have their steepest place between two samples of the gradient."""
    control = np.zeros((4, 4, 2))
    control[:, :, 0] = 1e4 * np.array([[-0.442], [0.036], [-0.756], [0.499]])
    for spacing in ((1.0, 1.0), (0.1, 5.0)):
        warp = SplineWarp((101, 11), spacing, np.eye(2), np.zeros(2), control, max_gradient=0.9)
        x = np.arange(0, 100.01, 0.05)
        points = np.stack([x, np.full_like(x, 5.0)], axis=1)
        assert np.diff(warp(points)[:, 0]).min() > 0
        np.testing.assert_allclose(warp.inverse(warp(points)), points, atol=1e-6)
        np.testing.assert_allclose(warp(warp.inverse(points)), points, atol=2e-6)
