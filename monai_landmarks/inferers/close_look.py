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


"""Inference with a second, close look at each landmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import create_rotate
from monai.utils import GridSamplePadMode, ensure_tuple, ensure_tuple_rep, look_up_option

from monai_landmarks.heatmaps import DecodingMethod, decode_heatmaps, require_decoding_method
from monai_landmarks.spaces import (
    covariances_to_index,
    covariances_to_world,
    patch_affines,
    plain_tensor,
    points_to_index,
    points_to_world,
)
from monai_landmarks.transforms import LandmarkGroups, cut_patches, require_room_for_patch
from monai_landmarks.uncertainty import ensemble_landmarks

from .heatmap_size import require_size_of

__all__ = ["CloseLookInferer"]


class CloseLookInferer(Inferer):
    """Find the landmarks with a coarse network, and look closely at each of them with a fine one.

    The inferer gets the image at its own resolution, or nearly so. The coarse network sees it resampled to a coarser
    grid. Around each point of the coarse network, a patch is cut from the image, in world coordinates. The fine network
    finds the landmark in the patch. The result are points; ``HeatmapToLandmarksd`` accepts it in place of heatmaps.

    The scores are those of the coarse network, so that thresholds keep their meaning. The covariances are those of the
    fine one. A landmark that the coarse network does not find is missing.

    Args:
        spatial_size: number of voxels of a patch along each axis.
        spacing: voxel size of a patch in mm, one number or one per axis.
        groups: which landmarks share a patch, and their channels. The coarse network finds all landmarks, or the middle
            of each group. None: every landmark has its own patch and channel.
        coarse_grid: transform of one image (C, *spatial) to the grid of the coarse network. None: the image itself.
        coarse_inferer: runs the coarse network; it returns heatmaps or points. None: MONAI's ``SimpleInferer``.
        fine_inferer: runs the fine network on patches. None: MONAI's ``SimpleInferer``.
        turns: angles in radians by which the patches are turned, one look per angle; three angles, about each axis, in
            3-D. Several looks are combined by :func:`monai_landmarks.uncertainty.ensemble_landmarks`.
        coarse_weight: weight of the coarse point in the result, from 0 to 1. A small one averages out errors of both.
        softmax: whether the fine network returns logits, see :class:`~monai_landmarks.losses.HeatmapCrossEntropyLoss`.
        coarse_softmax: whether the coarse network returns logits.
        method: see :func:`monai_landmarks.heatmaps.decode_heatmaps`.
        radius: of the neighborhood that the refinement uses, in voxels of the coarse grid and of the patch.
        patch_batch_size: number of patches that the fine network sees at once.
        padding_mode: values of a patch beyond the image, see :func:`monai_landmarks.transforms.cut_patches`.

    Raises:
        ValueError: for an unknown method or a weight outside 0 to 1.

    Example:
        >>> from monai_landmarks.networks.nets import CloseLookNet
        >>> network = CloseLookNet(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.Conv2d(1, 3, 3, padding=1))
        >>> image = MetaTensor(torch.rand(2, 1, 64, 48), affine=torch.diag(torch.tensor([0.5, 0.5, 1.0, 1.0])))
        >>> found = CloseLookInferer(spatial_size=(16, 16), spacing=0.5)(image, network)
        >>> {name: tuple(values.shape) for name, values in found.items()}
        {'points': (2, 3, 2), 'scores': (2, 3), 'covariances': (2, 3, 2, 2)}
    """

    def __init__(
        self,
        spatial_size: Sequence[int],
        spacing: Sequence[float] | float,
        groups: LandmarkGroups | None = None,
        coarse_grid: Callable[[torch.Tensor], torch.Tensor] | None = None,
        coarse_inferer: Inferer | None = None,
        fine_inferer: Inferer | None = None,
        turns: Sequence[float | Sequence[float]] = (0.0,),
        coarse_weight: float = 0.0,
        softmax: bool = True,
        coarse_softmax: bool = False,
        method: DecodingMethod = "gaussian",
        radius: int | None = None,
        patch_batch_size: int = 16,
        padding_mode: GridSamplePadMode | str = GridSamplePadMode.BORDER,
    ) -> None:
        super().__init__()
        require_decoding_method(method)
        if not 0 <= coarse_weight <= 1:
            raise ValueError(f"coarse_weight must be between 0 and 1, got {coarse_weight}.")
        self.spatial_size = tuple(spatial_size)
        self.spacing = ensure_tuple_rep(spacing, len(self.spatial_size))
        self.groups = groups
        self.coarse_grid = coarse_grid
        self.coarse_inferer = SimpleInferer() if coarse_inferer is None else coarse_inferer
        self.fine_inferer = SimpleInferer() if fine_inferer is None else fine_inferer
        self.turns = tuple(turns)
        self.coarse_weight = coarse_weight
        self.softmax = softmax
        self.coarse_softmax = coarse_softmax
        self.method: DecodingMethod = method
        self.radius = radius
        self.patch_batch_size = patch_batch_size
        self.padding_mode = look_up_option(padding_mode, GridSamplePadMode)

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Find the landmarks of a batch of images.

        Args:
            inputs: (B, C, *spatial), a ``MetaTensor`` whose affine is that of each image.
            network: a :class:`~monai_landmarks.networks.nets.CloseLookNet`, or another object with the networks
                ``coarse`` and ``fine``.
            args: further arguments of the coarse network.
            kwargs: further arguments of the coarse network.

        Returns:
            ``points`` (B, N, D), index coordinates in the image; ``scores`` (B, N) of the coarse network; and
            ``covariances`` (B, N, D, D) of the fine one in square voxels of the image.

        Raises:
            ValueError: for images without an affine, whose voxels have no size; for an image that is smaller than a
                patch; and if the coarse network returns several candidates per landmark, or another number of points
                than there are landmarks or groups.
        """
        if not isinstance(inputs, MetaTensor):
            raise ValueError(
                "The close look needs the voxel size of the image: pass a MetaTensor with an affine. An AutocastInferer "
                "around it removes the affine; give it to the two networks instead, as coarse_inferer and fine_inferer."
            )
        affine = torch.as_tensor(inputs.affine).double().cpu().expand(len(inputs), 4, 4)
        for own in affine:
            require_room_for_patch(own, inputs.shape[2:], self.spatial_size, self.spacing)
        coarse, scores = self._coarse(inputs, affine, network.coarse, *args, **kwargs)
        groups = self.groups or LandmarkGroups(coarse.shape[1])
        if coarse.shape[1] not in (groups.num_landmarks, len(groups)):
            raise ValueError(
                f"the coarse network finds {coarse.shape[1]} points, but there are {groups.num_landmarks} landmarks in "
                f"{len(groups)} groups."
            )
        finds_landmarks = coarse.shape[1] == groups.num_landmarks
        centers = groups.centers(coarse) if finds_landmarks else coarse
        scores = scores if finds_landmarks else groups.of_landmarks(scores)
        looks = [self._look(inputs, affine, centers, groups, network.fine, turn) for turn in self.turns]
        points, heights, covariances = (torch.stack(values) for values in zip(*looks))
        if len(looks) == 1:
            points, covariances = points[0], covariances[0]
        else:
            points, _, covariances = ensemble_landmarks(points, heights, covariances)
        if finds_landmarks and self.coarse_weight:
            points = (1 - self.coarse_weight) * points + self.coarse_weight * coarse
        missing = ~(coarse if finds_landmarks else groups.of_landmarks(coarse)).isfinite().all(dim=-1)
        points = points.masked_fill(missing[..., None], torch.nan)
        covariances = covariances.masked_fill(missing[..., None, None], torch.nan)
        index, device = points_to_index(points, affine), inputs.device
        return {
            "points": index.to(device, torch.float32),
            "scores": scores.to(device),
            "covariances": covariances_to_index(covariances, affine[:, None]).to(device, torch.float32),
        }

    def _coarse(
        self, inputs: torch.Tensor, affine: torch.Tensor, network: Any, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the points (B, N, D) that the coarse network finds, in the world and on the CPU, and their scores."""
        images, plain = inputs, plain_tensor(inputs)
        if self.coarse_grid is not None:
            moved: Any = [self.coarse_grid(MetaTensor(image, affine=own)) for image, own in zip(plain, affine)]
            affine = torch.stack([torch.as_tensor(image.affine).double().cpu() for image in moved])
            images = MetaTensor(torch.stack([plain_tensor(image) for image in moved]), affine=affine)
        found = self.coarse_inferer(images, network, *args, **kwargs)
        if not isinstance(found, Mapping):
            dims = inputs.ndim - 2
            require_size_of(images, found)
            maps = _probabilities(plain_tensor(found), dims) if self.coarse_softmax else plain_tensor(found)
            found = decode_heatmaps(maps, dims, self.method, None, self.radius)._asdict()
        if found["points"].ndim != 3:
            raise ValueError("The close look needs one point per landmark: use a coarse inferer without num_peaks.")
        return points_to_world(plain_tensor(found["points"]).cpu(), affine), found["scores"]

    def _look(
        self,
        inputs: torch.Tensor,
        affine: torch.Tensor,
        centers: torch.Tensor,
        groups: LandmarkGroups,
        network: Any,
        turn: float | Sequence[float],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what the fine network finds around the centers (B, G, D): points, heights and covariances."""
        dims = inputs.ndim - 2
        linear = torch.from_numpy(np.asarray(create_rotate(dims, ensure_tuple(turn)))[:dims, :dims])
        # a group without a point is looked at somewhere, and missing in the result
        middles = centers.nan_to_num()
        affines = patch_affines(middles, self.spatial_size, self.spacing, affine[:, None], linear)
        patches = cut_patches(inputs, affine, affines, self.spatial_size, self.padding_mode).flatten(0, 1)
        # of each landmark of each image: its patch, and its channel there
        owner = (torch.arange(len(inputs))[:, None] * len(groups) + torch.tensor(groups.group_of)).flatten()
        channel = torch.tensor(groups.channels).repeat(len(inputs))
        points = torch.full((len(owner), dims), torch.nan, dtype=torch.float64)
        heights = torch.full((len(owner),), torch.nan, dtype=torch.float64)
        covariances = torch.full((len(owner), dims, dims), torch.nan, dtype=torch.float64)
        for first in range(0, len(patches), self.patch_batch_size):
            some = patches[first : first + self.patch_batch_size]
            heatmaps = plain_tensor(self.fine_inferer(some, network))
            require_size_of(some, heatmaps)
            shown = torch.nonzero((owner >= first) & (owner < first + len(heatmaps)))[:, 0]
            maps = heatmaps[(owner[shown] - first).to(heatmaps.device), channel[shown].to(heatmaps.device)]
            if self.softmax:
                maps = _probabilities(maps, dims)
            found = decode_heatmaps(maps, dims, self.method, None, self.radius)
            points[shown], heights[shown], covariances[shown] = (values.cpu().double() for values in found)
        shape, of_patch = (len(inputs), groups.num_landmarks), affines.flatten(0, 1)[owner]
        return (
            points_to_world(points[:, None], of_patch)[:, 0].reshape(*shape, dims),
            heights.reshape(shape),
            covariances_to_world(covariances, of_patch).reshape(*shape, dims, dims),
        )


def _probabilities(logits: torch.Tensor, spatial_dims: int) -> torch.Tensor:
    """Return the softmax of each map over its voxels."""
    return logits.flatten(-spatial_dims).softmax(dim=-1, dtype=torch.float32).reshape(logits.shape)
