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

"""Points of groups of landmarks, such as vertebrae, in place of the landmarks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from .groups import LandmarkGroups

__all__ = ["GroupCenters", "GroupCentersD", "GroupCentersDict", "GroupCentersd"]


class GroupCenters(Transform):
    """Replace landmarks by the centers of their groups, for example corners by the centers of vertebrae.

    A center is the mean of the known landmarks of a group, so it is the same structure in world and in index
    coordinates. A network that is trained on the centers finds where to look closely.

    Args:
        groups: the groups, in the order of the centers.

    Example:
        >>> import torch
        >>> centers = GroupCenters(LandmarkGroups(4, groups=[[0, 1], [2, 3]]))
        >>> centers(torch.tensor([[[0.0, 0.0], [2.0, 4.0], [5.0, 5.0], [7.0, 5.0]]])).tolist()
        [[[1.0, 2.0], [6.0, 5.0]]]
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(self, groups: LandmarkGroups) -> None:
        self.groups = groups

    def __call__(self, points: Any) -> Any:
        """Compute the centers.

        Args:
            points: (N, D) or (1, N, D), NaN where missing.

        Returns:
            (G, D) or (1, G, D), of the same type; float32 for integers. A MetaTensor keeps its affine and metadata. NaN for
            a group without a known landmark.

        Raises:
            ValueError: for another number of landmarks than the groups have.
        """
        values = convert_to_tensor(points, track_meta=False)
        if values.shape[-2] != self.groups.num_landmarks:
            raise ValueError(f"the groups are of {self.groups.num_landmarks} landmarks, but got {values.shape[-2]}.")
        centers = self.groups.centers(values)
        if isinstance(points, MetaTensor):
            return MetaTensor(centers, affine=points.affine, meta=dict(points.meta))
        return convert_to_dst_type(centers, points, dtype=centers.dtype)[0]


class GroupCentersd(MapTransform):
    """Dictionary-based version of :class:`GroupCenters`.

    Args:
        keys: landmarks of the image.
        groups: see :class:`GroupCenters`.
        allow_missing_keys: do not raise if a key is missing.
    """

    backend = GroupCenters.backend

    def __init__(self, keys: KeysCollection, groups: LandmarkGroups, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.centers = GroupCenters(groups)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with centers in place of landmarks."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.centers(d[key])
        return d


GroupCentersD = GroupCentersDict = GroupCentersd
