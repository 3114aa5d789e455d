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
"""Symmetric matrices, one per landmark: covariances, and ellipsoids of regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["ensure_matrices", "pack_matrices", "triangle", "unpack_matrices"]

_TOLERANCE = 1e-5  # of rounding in a file, relative to the largest entry


def triangle(dims: int) -> list[str]:
    """Return the names of the entries on and above the diagonal, row by row.

    Example:
        >>> triangle(2), triangle(3)
        (['xx', 'xy', 'yy'], ['xx', 'xy', 'xz', 'yy', 'yz', 'zz'])
    """
    axes = "xyz"[:dims]
    return [axes[i] + axes[j] for i in range(dims) for j in range(i, dims)]


def pack_matrices(matrices: np.ndarray) -> np.ndarray:
    """Convert symmetric matrices (..., D, D) to their entries (..., D(D+1)/2), in the order of :func:`triangle`."""
    rows, columns = np.triu_indices(matrices.shape[-1])
    return np.asarray(matrices)[..., rows, columns]


def unpack_matrices(entries: np.ndarray, dims: int) -> np.ndarray:
    """Convert entries back to matrices; the inverse of :func:`pack_matrices`."""
    entries = np.asarray(entries, dtype=np.float64)
    rows, columns = np.triu_indices(dims)
    matrices = np.empty((*entries.shape[:-1], dims, dims))
    matrices[..., rows, columns] = matrices[..., columns, rows] = entries
    return matrices


def ensure_matrices(matrices: ArrayLike, points: np.ndarray, names: Sequence[str], what: str) -> np.ndarray:
    """Convert the matrices of landmarks to a read-only array.

    Args:
        matrices: (N, D, D), symmetric and positive semi-definite; all NaN if unknown.
        points: (N, D). The matrix of a missing point becomes NaN.
        names: names of the N landmarks.
        what: name of the matrices, for errors.

    Raises:
        ValueError: if the shape differs, or a matrix is not a covariance.
    """
    result = np.array(matrices, dtype=np.float64)
    if result.shape != (*points.shape, points.shape[1]):
        raise ValueError(
            f"{what} has shape {result.shape}; expected {(*points.shape, points.shape[1])}, one matrix per landmark."
        )
    result[np.isnan(points).any(axis=1)] = np.nan
    wrong = ~(np.isnan(result).all(axis=(1, 2)) | _are_covariances(result))
    if wrong.any():
        n = int(np.argmax(wrong))
        raise ValueError(
            f"{what} of landmark {names[n]!r} is {result[n].tolist()}; expected a symmetric matrix without negative"
            " eigenvalues, or all NaN if unknown."
        )
    result = 0.5 * result + 0.5 * result.swapaxes(1, 2)
    result.setflags(write=False)
    return result


def _are_covariances(matrices: np.ndarray) -> np.ndarray:
    finite = np.asarray(np.isfinite(matrices).all(axis=(1, 2)))
    units = np.where(finite[:, None, None], matrices, 0.0)
    greatest = np.abs(units).max(axis=(1, 2), keepdims=True, initial=0)
    units = units / np.where(greatest > 0, greatest, 1.0)
    symmetric = np.abs(units - units.swapaxes(1, 2)).max(axis=(1, 2), initial=0) <= _TOLERANCE
    return np.asarray(finite & symmetric & (np.linalg.eigvalsh(units)[:, 0] >= -_TOLERANCE))
