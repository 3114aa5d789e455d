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


"""Affines of patches: where a patch of a given size and voxel size lies in the world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["patch_affines"]


def patch_affines(
    centers: torch.Tensor,
    spatial_size: Sequence[int],
    spacing: Sequence[float] | float,
    image_affine: torch.Tensor,
    linear: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Return the affines of patches around points.

    A patch is an image with its own affine, so that :func:`points_to_index` takes world points into it, and
    :func:`points_to_world` takes its points back. Its axes have the directions of the image's axes. If these are not
    at right angles, they have the nearest directions that are.

    Args:
        centers: (..., D) in the world, in mm. The middle of each patch.
        spatial_size: number of voxels of a patch along each axis.
        spacing: voxel size of the patch in mm, one number or one per axis.
        image_affine: (4, 4), or (..., 4, 4) with as many leading axes as ``centers``.
        linear: (..., D, D) what each patch is turned, scaled or sheared by, relative to the axes of the image, in mm.
            A patch scaled by 2 shows twice the extent. Default: the identity.

    Returns:
        Affines (..., 4, 4), from the index of a patch to the world, float64, on the device of ``centers``.

    Example:
        >>> import torch
        >>> affine = patch_affines(torch.tensor([10.0, 20.0]), (5, 9), 0.5, torch.eye(4))
        >>> affine[:2, 3].tolist()
        [9.0, 18.0]
    """
    import torch

    dims = centers.shape[-1]
    image_affine = image_affine.to(centers.device, torch.float64)
    axes = image_affine[..., :dims, :dims]
    left, _, right = torch.linalg.svd(axes / torch.linalg.vector_norm(axes, dim=-2, keepdim=True))
    matrix = left @ right
    if linear is not None:
        matrix = matrix @ linear.to(matrix)
    matrix = matrix * torch.as_tensor(spacing, dtype=torch.float64, device=centers.device).expand(dims)
    middle = (torch.as_tensor(spatial_size, dtype=torch.float64, device=centers.device) - 1) / 2
    lead = torch.broadcast_shapes(centers.shape[:-1], matrix.shape[:-2])
    affines = image_affine.expand(*lead, 4, 4).clone()
    affines[..., :dims, :dims] = matrix
    affines[..., :dims, 3] = centers.double() - matrix @ middle
    return affines
