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
"""Affines: 2-D as 4x4, spacing of oblique and mirrored axes, pictures, and images in the middle of a pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flip, Spacing

from monai_landmarks.spaces import (
    RAS_TO_LPS,
    affine_4x4,
    affine_of,
    affine_spacing,
    file_affine,
    picture_affine,
    plane_z,
    spacing_of,
)


def turned(spacing: tuple[float, float, float], offset: tuple[float, float, float] = (5.0, -7.0, 11.0)) -> np.ndarray:
    """An oblique affine: a rotation in the three planes, of axes with the given spacing, one of them mirrored."""
    a, b, c = 0.3, -0.7, 1.1
    about_z = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_x = [[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]]
    result = np.eye(4)
    result[:3, :3] = np.array(about_z) @ about_y @ about_x @ np.diag([-spacing[0], spacing[1], spacing[2]])
    result[:3, 3] = offset
    return result


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_a_2d_affine_becomes_4x4(kind) -> None:
    matrix = [[0.0, -2.0, 5.0], [3.0, 0.0, 7.0], [0.0, 0.0, 1.0]]
    result = affine_4x4(kind(matrix))
    assert result.dtype == np.float64
    assert result.tolist() == [[0, -2, 0, 5], [3, 0, 0, 7], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_a_3d_affine_is_copied() -> None:
    known = turned((1, 2, 3))
    result = affine_4x4(known)
    np.testing.assert_array_equal(result, known)
    result[0, 0] = 100  # the caller's matrix must not follow
    assert known[0, 0] != 100


def test_the_affine_of_a_batch_of_one_image() -> None:
    np.testing.assert_array_equal(affine_4x4(turned((1, 2, 3))[None]), turned((1, 2, 3)))


@pytest.mark.parametrize("shape", [(2, 2), (5, 5), (3, 4), (4,), (2, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected \\(3, 3\\) or \\(4, 4\\)"):
        affine_4x4(np.ones(shape))


def test_affine_of(device: torch.device) -> None:
    matrix = turned((1, 2, 3))
    image = MetaTensor(torch.zeros(1, 4, 4, 4, device=device), affine=torch.from_numpy(matrix))
    found = affine_of(image)
    assert isinstance(found, np.ndarray) and np.array_equal(found, matrix)
    assert affine_of(image.as_tensor()) is None and affine_of(np.zeros((1, 4, 4))) is None and affine_of(None) is None


def test_pending_operations_do_not_count_yet() -> None:
    # the voxels, too, are still where they were
    lazy = Flip(0, lazy=True)(MetaTensor(torch.zeros(1, 4, 5), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0]))))
    assert lazy.pending_operations
    assert (affine_of(lazy)[:2, :2] == np.diag([2, 3])).all() and spacing_of(lazy, 2).tolist() == [2, 3]


def test_spacing_of_oblique_and_mirrored_axes() -> None:
    np.testing.assert_allclose(affine_spacing(turned((0.5, 2, 7)), 3), (0.5, 2, 7))
    # a slice that is turned out of the x-y plane keeps the spacing of its two axes
    np.testing.assert_allclose(affine_spacing(turned((0.5, 2, 7)), 2), (0.5, 2))
    np.testing.assert_allclose(affine_spacing([[0, -2, 5], [3, 0, 7], [0, 0, 1]], 2), (3, 2))


def test_an_axis_without_length_is_not_hidden() -> None:
    assert affine_spacing(np.diag([1.0, 0.0, 1.0, 1.0]), 3).tolist() == [1, 0, 1]


@pytest.mark.parametrize("dims", [2, 3])
def test_spacing_of_images(dims: int) -> None:
    image = MetaTensor(torch.zeros(1, *(4,) * dims), affine=torch.from_numpy(turned((0.5, 2, 7))))
    np.testing.assert_allclose(spacing_of(image, dims), (0.5, 2, 7)[:dims])
    assert spacing_of(image.as_tensor(), dims).tolist() == [1] * dims


def test_plane_of_a_2d_image() -> None:
    image = MetaTensor(torch.zeros(1, 4, 4), affine=torch.from_numpy(turned((1, 1, 1), offset=(2, 3, -41.5))))
    assert plane_z(image) == -41.5 and isinstance(plane_z(image), float)
    assert plane_z(MetaTensor(torch.zeros(1, 4, 4), affine=torch.tensor([[1, 0, 8], [0, 1, 9], [0, 0, 1.0]]))) == 0
    assert plane_z(torch.zeros(1, 4, 4)) == 0 and plane_z(None) == 0


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        (None, (1, 1, 1)),
        (0.5, (0.5, 0.5, 1)),
        ([0.5], (0.5, 0.5, 1)),
        ((0.5, 0.25), (0.5, 0.25, 1)),
        (np.array([0.5, 0.25, 3]), (0.5, 0.25, 3)),
    ],
)
def test_pictures_lie_where_itk_puts_them(spacing, expected) -> None:
    # pixel (x, y) at LPS (s_x x, s_y y, 0)
    affine = picture_affine(spacing)
    assert (RAS_TO_LPS @ affine @ (10, 20, 30, 1)).tolist() == [10 * expected[0], 20 * expected[1], 30 * expected[2], 1]
    assert not np.signbit(affine[affine == 0]).any()


def test_pictures_have_no_four_axes() -> None:
    with pytest.raises(ValueError, match="one number, or one per axis"):
        picture_affine((1, 1, 1, 1))


def test_ras_and_lps() -> None:
    assert (RAS_TO_LPS @ (1, 2, 3, 1)).tolist() == [-1, -2, 3, 1]
    with pytest.raises(ValueError, match="read-only"):
        RAS_TO_LPS[0, 0] = 1


def test_affine_of_the_file() -> None:
    matrix = np.diag([2.0, 3.0, 1.0, 1.0])
    image = MetaTensor(torch.zeros(1, 8, 9), affine=torch.from_numpy(matrix))
    np.testing.assert_array_equal(file_affine(image), matrix)  # as it was loaded
    chain = Compose([Spacing((1.0, 1.0)), Flip(0)])
    assert file_affine(chain(image)) is None  # nothing leads back
    image.meta["original_affine"] = matrix[[0, 1, 3]][:, [0, 1, 3]]  # as a reader of 2-D files leaves it
    moved = chain(image)
    assert not np.allclose(moved.affine, matrix)
    np.testing.assert_array_equal(file_affine(moved), matrix)
    np.testing.assert_array_equal(file_affine(torch.zeros(1, 8, 9)), np.eye(4))
