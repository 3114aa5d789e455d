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


"""Patches around landmarks, cut in world coordinates, for the training and use of a network that looks closely."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform, create_rotate
from monai.transforms.traits import MultiSampleTrait
from monai.utils import (
    GridSamplePadMode,
    TransformBackends,
    convert_to_tensor,
    ensure_tuple,
    ensure_tuple_rep,
    look_up_option,
)

from monai_landmarks.spaces import (
    affine_of,
    affine_spacing,
    patch_affines,
    plain_tensor,
    points_of_image,
    points_to_index,
    points_to_world,
    world_points,
)

from .groups import LandmarkGroups
from .lost_affine import mark_loaded, require_affines

__all__ = [
    "RandLandmarkPatches",
    "RandLandmarkPatchesD",
    "RandLandmarkPatchesDict",
    "RandLandmarkPatchesd",
    "cut_patches",
    "require_room_for_patch",
]

# A patch whose voxels are larger than those of the image by more than this averages several samples per voxel.
_COARSER = 1.25


def cut_patches(
    image: torch.Tensor,
    image_affine: torch.Tensor,
    affines: torch.Tensor,
    spatial_size: Sequence[int],
    padding_mode: GridSamplePadMode | str = GridSamplePadMode.BORDER,
) -> torch.Tensor:
    """Resample patches of images, each with its own affine.

    Patches are cut with linear interpolation, in one call of ``grid_sample`` for images of similar voxel sizes. A voxel
    of a patch that is larger than those of the image is the mean of several samples, so that a coarse patch is
    smoothed. The other images of a batch have no influence.

    Args:
        image: (B, C, *spatial).
        image_affine: (4, 4) or (B, 4, 4), from the index of the image to the world.
        affines: (B, P, 4, 4), from the index of each patch to the world, see
            :func:`monai_landmarks.spaces.patch_affines`.
        spatial_size: number of voxels of a patch along each axis.
        padding_mode: values beyond the image: ``"border"``, ``"zeros"`` or ``"reflection"``.

    Returns:
        Patches (B, P, C, *spatial_size), a plain tensor.

    Example:
        >>> image = torch.arange(64.0).reshape(1, 1, 8, 8)
        >>> shifted = torch.eye(4).repeat(1, 1, 1, 1)
        >>> shifted[..., 0, 3] = 2.0
        >>> cut_patches(image, torch.eye(4), shifted, (2, 3))[0, 0, 0].tolist()
        [[16.0, 17.0, 18.0], [24.0, 25.0, 26.0]]
    """
    image = plain_tensor(image)
    size, dims, (batch, count) = tuple(spatial_size), image.ndim - 2, affines.shape[:2]
    # small matrices, in float64, which some devices do not have
    inverse = torch.linalg.inv(image_affine.cpu().double().expand(batch, 4, 4))
    to_index = inverse[:, None] @ affines.cpu().double()
    matrix, offset = to_index[..., :dims, :dims], to_index[..., :dims, 3]
    # voxels of each image per voxel of its patches, along each axis of the patches
    steps = torch.linalg.vector_norm(matrix, dim=-2).mean(dim=1).tolist()
    of_images = [[math.ceil(step / _COARSER) for step in steps_of_image] for steps_of_image in steps]
    samples = of_images[0]
    if any(one != samples for one in of_images):
        alone = zip(image.split(1), image_affine.expand(batch, 4, 4).split(1), affines.split(1))
        return torch.cat([cut_patches(*one, spatial_size, padding_mode) for one in alone])
    # grid_sample has coordinates from -1 to 1 between the borders of the image, and the last axis first
    extent = torch.tensor(image.shape[2:], dtype=torch.float64)
    matrix, offset = 2 * matrix / extent[:, None], (2 * offset + 1) / extent - 1
    work = torch.float64 if image.dtype == torch.float64 else torch.float32
    matrix, offset = matrix.flip(-2).to(image.device, work), offset.flip(-1).to(image.device, work)
    axes = [(torch.arange(n * k, dtype=work, device=image.device) + 0.5) / k - 0.5 for n, k in zip(size, samples)]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    grid = index @ matrix.transpose(-1, -2) + offset[..., None, :]
    fine = [n * k for n, k in zip(size, samples)]
    values = F.grid_sample(
        image.to(work),
        grid.reshape(batch, count * fine[0], *fine[1:], dims),
        padding_mode=str(look_up_option(padding_mode, GridSamplePadMode).value),
        align_corners=False,
    )
    values = values.reshape(batch, image.shape[1], count, *fine).transpose(1, 2)
    if max(samples) > 1:
        pool = F.avg_pool2d if dims == 2 else F.avg_pool3d
        values = pool(values.flatten(0, 1), samples).reshape(batch, count, -1, *size)
    return values.to(image.dtype) if image.dtype.is_floating_point else values


def require_room_for_patch(
    affine: torch.Tensor, shape: Sequence[int], spatial_size: Sequence[int], spacing: float | Sequence[float]
) -> None:
    """Raise a ``ValueError`` for an image that is smaller than a patch along each axis.

    One voxel of a patch would be the mean of a great many voxels of such an image, and need gigabytes of memory.

    Args:
        affine: (4, 4), from the index of the image to the world.
        shape: spatial size of the image.
        spatial_size: of the patch, in voxels.
        spacing: of the patch, in mm.

    Raises:
        ValueError: as described.
    """
    patch = np.multiply(spatial_size, spacing)
    extent = affine_spacing(affine, len(shape)) * np.array(shape)
    if (extent < patch * (1 - 1e-4)).all():  # sizes of files are rounded
        raise ValueError(
            f"the image covers {_in_mm(extent)}, less than a patch of the close look, which covers {_in_mm(patch)}: its"
            " pixel size is wrong or not known, or it is no image of this kind."
        )


def _in_mm(extent: np.ndarray) -> str:
    return f"{' x '.join(f'{size:.3g}' for size in extent)} mm"


class RandLandmarkPatches(Randomizable, Transform, MultiSampleTrait):
    """Cut patches around landmarks, displaced as the points of a coarse network are, to train a network on them.

    A patch is cut around a group of landmarks of an image. Its middle is the middle of the group plus a random
    displacement: mostly a normal draw, as the errors of a network are, and sometimes a farther one. It is turned and
    scaled at random, and resampled once from the image, with its own affine. Patches of an image without landmarks are
    cut around its middle.

    Args:
        spatial_size: number of voxels of a patch along each axis.
        spacing: voxel size of the patches in mm, one number or one per axis.
        groups: which landmarks share a patch, and their channels. None: every landmark has its own patch.
        num_samples: number of patches per image. They show different groups as far as there are enough.
        displacement: standard deviation of the displacement along each axis, in mm.
        far_displacement: largest displacement along each axis of a far draw, in mm.
        far_prob: probability of a far draw, which is uniform.
        rotate_range: angles in radians, uniform from -r to r, about each axis in 3-D.
        scale_range: scaling by 1 + a uniform draw from -r to r.
        axis_scale_range: scaling of each axis by 1 + a uniform draw from -r to r, multiplied with the other one.
        others: probability that a landmark in the patch that is not of its group is kept. Otherwise it is missing, and
            the loss does not count it. So the group for which the patch was cut has more weight. Not used for groups
            that share their channels.
        padding_mode: values beyond the image, see :func:`cut_patches`.

    Example:
        >>> cut = RandLandmarkPatches(spatial_size=(16, 16), spacing=0.5, num_samples=2)
        >>> patches = cut(torch.rand(1, 64, 64), torch.rand(5, 2) * 64)
        >>> [(tuple(patch.shape), tuple(points.shape)) for patch, points in patches]
        [((1, 16, 16), (1, 5, 2)), ((1, 16, 16), (1, 5, 2))]
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        spatial_size: Sequence[int],
        spacing: Sequence[float] | float,
        groups: LandmarkGroups | None = None,
        num_samples: int = 4,
        displacement: float = 0.0,
        far_displacement: float = 0.0,
        far_prob: float = 0.0,
        rotate_range: float = 0.0,
        scale_range: float = 0.0,
        axis_scale_range: float = 0.0,
        others: float = 1.0,
        padding_mode: GridSamplePadMode | str = GridSamplePadMode.BORDER,
    ) -> None:
        self.spatial_size = tuple(spatial_size)
        self.spacing = ensure_tuple_rep(spacing, len(self.spatial_size))
        self.groups = groups
        self.num_samples = num_samples
        self.displacement, self.far_displacement, self.far_prob = displacement, far_displacement, far_prob
        self.rotate_range, self.scale_range, self.axis_scale_range = rotate_range, scale_range, axis_scale_range
        self.others = others
        self.padding_mode = look_up_option(padding_mode, GridSamplePadMode)
        self.chosen: list[int] = []
        self.shifts, self.linear, self.kept = np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros((0, 0), dtype=bool)

    def randomize(self, data: tuple[Sequence[int], int]) -> None:
        """Draw the patches: from these groups, for this number of landmarks."""
        present, num_landmarks = data
        dims, count = len(self.spatial_size), self.num_samples
        order: list[int] = []
        while len(order) < count:
            order += self.R.permutation(list(present)).tolist()
        self.chosen = order[:count]
        far = self.R.random_sample(count) < self.far_prob
        near = self.R.normal(0, 1, (count, dims)) * self.displacement
        self.shifts = np.where(far[:, None], self.R.uniform(-1, 1, (count, dims)) * self.far_displacement, near)
        angles = self.R.uniform(-1, 1, (count, 1 if dims == 2 else 3)) * self.rotate_range
        turns = [np.asarray(create_rotate(dims, angle.tolist()))[:dims, :dims] for angle in angles]
        scales = 1 + self.R.uniform(-1, 1, (count, 1)) * self.scale_range
        scales = scales * (1 + self.R.uniform(-1, 1, (count, dims)) * self.axis_scale_range)
        self.linear = np.asarray(turns).reshape(count, dims, dims) * scales[:, None]
        self.kept = self.R.random_sample((count, num_landmarks)) < self.others

    def __call__(
        self, img: NdarrayOrTensor, points: NdarrayOrTensor, randomize: bool = True
    ) -> list[tuple[MetaTensor, MetaTensor]]:
        """Cut patches of an image.

        Args:
            img: channel-first image (C, n_1, ..., n_D), array or tensor on any device.
            points: (N, D) or (1, N, D), in the space of their affine (index without one), NaN where missing.
            randomize: draw new patches. False: those of the last call.

        Returns:
            Patches (C, *spatial_size), each with world points (1, N, D), or (1, R, D) for groups that share R channels.
            Landmarks outside the patch are missing (NaN).

        Raises:
            ValueError: for points of another number than the groups have; for an image that is smaller than a patch
                along each axis, for example because its pixel size is wrong.
        """
        image = convert_to_tensor(img, track_meta=True)
        affine = torch.as_tensor(affine_of(image))
        require_room_for_patch(affine, image.shape[1:], self.spatial_size, self.spacing)
        rows = points_of_image(convert_to_tensor(world_points(points, image)), spatial_dims=image.ndim - 1)
        known = rows.double().cpu()
        groups = self.groups or LandmarkGroups(len(known))
        if len(known) != groups.num_landmarks:
            raise ValueError(f"there are {len(known)} landmarks, but the groups are of {groups.num_landmarks}.")
        centers = groups.centers(known)
        present = torch.nonzero(centers.isfinite().all(dim=-1))[:, 0].tolist()
        if not present:  # a batch needs patches
            present, centers = [0], points_to_world((torch.tensor(image.shape[1:]) - 1)[None] / 2, affine)
        if randomize:
            self.randomize((present, len(known)))
        middles = centers[self.chosen] + torch.from_numpy(self.shifts)
        affines = patch_affines(middles, self.spatial_size, self.spacing, affine, torch.from_numpy(self.linear))
        images = cut_patches(image[None], affine, affines[None], self.spatial_size, self.padding_mode)[0]
        patches = []
        for group, patch_affine, values, kept in zip(self.chosen, affines, images, self.kept):
            shown = self._shown(known, group, groups, patch_affine, kept)
            world = torch.eye(4, dtype=torch.float64)
            patches.append(
                (
                    MetaTensor(values, affine=patch_affine, meta=_meta_of(image)),
                    MetaTensor(shown[None], affine=world, meta=_meta_of(points)),
                )
            )
        return patches

    def _shown(
        self, points: torch.Tensor, group: int, groups: LandmarkGroups, affine: torch.Tensor, kept: np.ndarray
    ) -> torch.Tensor:
        """Return the landmarks of the channels (C, D) that a patch shows, NaN for the others."""
        rows = groups.groups[group]
        if groups.shared:
            shown = points[rows].clone()
        else:
            own = torch.isin(torch.arange(len(points)), torch.tensor(rows))
            shown = torch.where((own | torch.from_numpy(kept))[:, None], points, torch.nan)
        index = points_to_index(shown, affine)
        inside = ((index >= -0.5) & (index <= torch.tensor(self.spatial_size) - 0.5)).all(dim=-1, keepdim=True)
        return torch.where(inside, shown, torch.nan)


def _meta_of(data: Any) -> dict[str, Any]:
    """Return the metadata of an image or points, without those of its grid."""
    meta = data.meta if isinstance(data, MetaTensor) else {}
    return {name: value for name, value in meta.items() if name not in ("affine", "spatial_shape")}


class RandLandmarkPatchesd(Randomizable, MapTransform, MultiSampleTrait):
    """Dictionary-based version of :class:`RandLandmarkPatches`, which returns one dictionary per patch.

    Args:
        keys: image, (C, n_1, ..., n_D). One key.
        points_keys: landmarks of the image, (1, N, D) or (N, D). One key.
        kwargs: see :class:`RandLandmarkPatches`.
        allow_missing_keys: do not raise if the image is missing.

    Raises:
        ValueError: for more than one key.

    Example:
        >>> cut = RandLandmarkPatchesd("image", "label", spatial_size=(16, 16), spacing=0.5, num_samples=2)
        >>> item = {"image": MetaTensor(torch.rand(1, 64, 64)), "label": MetaTensor(torch.rand(1, 5, 2) * 64)}
        >>> [(tuple(patch["image"].shape), tuple(patch["label"].shape)) for patch in cut(item)]
        [((1, 16, 16), (1, 5, 2)), ((1, 16, 16), (1, 5, 2))]
    """

    backend = RandLandmarkPatches.backend

    def __init__(
        self, keys: KeysCollection, points_keys: KeysCollection, *, allow_missing_keys: bool = False, **kwargs: Any
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.points_keys = ensure_tuple(points_keys)
        if len(self.keys) != 1 or len(self.points_keys) != 1:
            raise ValueError(f"one image and its landmarks are expected, got {self.keys} and {self.points_keys}.")
        self.cut = RandLandmarkPatches(**kwargs)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandLandmarkPatchesd:
        """Set the random state, also that of the array transform."""
        super().set_random_state(seed, state)
        self.cut.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Do nothing: the array transform draws the patches."""

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Cut patches of an image.

        Args:
            data: item with an image and its landmarks.

        Returns:
            One dictionary per patch, with the patch and its landmarks. Other entries are the same objects.

        Raises:
            KeyError: if the landmarks are missing, or the image without ``allow_missing_keys``.
            ValueError: if image or landmarks have lost their affine; see :class:`RandLandmarkPatches`.
        """
        d = dict(data)
        (key,), (points_key,) = self.keys, self.points_keys
        if key not in d and self.allow_missing_keys:
            return [d]
        if points_key not in d:
            raise KeyError(
                f"RandLandmarkPatchesd: the landmarks {points_key!r} are not in the item, which has {sorted(map(str, d))}."
            )
        require_affines(d, points_key, key)
        patches = []
        for image, points in self.cut(d[key], d[points_key]):
            patch = {**d, key: image, points_key: points}
            mark_loaded(patch, self.points_keys)
            patches.append(patch)
        return patches


RandLandmarkPatchesD = RandLandmarkPatchesDict = RandLandmarkPatchesd
