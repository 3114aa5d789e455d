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


"""Groups of landmarks that are looked at in one patch, and the channel of the network that stands for each landmark."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["LandmarkGroups", "groups_by_name"]


class LandmarkGroups:
    """The groups of landmarks that a network of patches looks at, one patch per group.

    By default, every landmark is a group of its own, and the network has one channel per landmark (N). It is trained on
    all landmarks in a patch.

    With ``shared``, the groups are structures that look alike, such as vertebrae. The network has one channel per role
    in a group, for example four for the corners of any vertebra, and is trained on the patch's own group only.

    Args:
        num_landmarks: N.
        groups: rows of the landmarks of each group. Default: one group per landmark.
        shared: whether all groups share their channels: landmark k of each group is channel k.

    Raises:
        ValueError: for rows that do not exist, an empty group, a landmark in two groups or in none, and for shared
            groups of different sizes.

    Example:
        >>> groups = LandmarkGroups(4, groups=[[0, 1], [2, 3]], shared=True)
        >>> groups.num_channels, groups.channels
        (2, [0, 1, 0, 1])
        >>> groups.centers(torch.tensor([[0.0, 0.0], [2.0, 4.0], [5.0, 5.0], [7.0, 5.0]])).tolist()
        [[1.0, 2.0], [6.0, 5.0]]
    """

    def __init__(self, num_landmarks: int, groups: Sequence[Sequence[int]] | None = None, shared: bool = False) -> None:
        self.num_landmarks = num_landmarks
        self.groups = [[row] for row in range(num_landmarks)] if groups is None else [list(rows) for rows in groups]
        self.shared = shared
        if not all(self.groups) or sorted(row for rows in self.groups for row in rows) != list(range(num_landmarks)):
            raise ValueError(
                f"every landmark 0 to {num_landmarks - 1} must be in one group, and no group may be empty; got"
                f" {groups}."
            )
        sizes = {len(rows) for rows in self.groups}
        if shared and len(sizes) != 1:
            raise ValueError(f"groups that share their channels must have the same size, got sizes {sorted(sizes)}.")
        self.num_channels = len(self.groups[0]) if shared else num_landmarks
        self.group_of = [0] * num_landmarks
        self.channels = list(range(num_landmarks))
        for number, rows in enumerate(self.groups):
            for role, row in enumerate(rows):
                self.group_of[row] = number
                if shared:
                    self.channels[row] = role

    def __len__(self) -> int:
        return len(self.groups)

    def centers(self, points: torch.Tensor) -> torch.Tensor:
        """Return the mean of the known landmarks of each group.

        Args:
            points: (..., N, D), NaN where missing. Integers count as float32.

        Returns:
            (..., G, D), NaN for a group without a known landmark.
        """
        points = points if points.is_floating_point() else points.float()
        return torch.stack([points[..., rows, :].nanmean(dim=-2) for rows in self.groups], dim=-2)

    def of_landmarks(self, values: torch.Tensor) -> torch.Tensor:
        """Return values of groups as values of their landmarks.

        Args:
            values: (B, G, ...).

        Returns:
            (B, N, ...).
        """
        return values[:, self.group_of]


def groups_by_name(names: Sequence[str], separator: str = "_", shared: bool = True) -> LandmarkGroups:
    """Group landmarks by the beginning of their names, such as ``L1_TL`` and ``L1_TR``.

    Args:
        names: of all landmarks, in their order.
        separator: the last one in a name ends the name of its group. A name without it is a group of its own.
        shared: see :class:`LandmarkGroups`.

    Returns:
        The groups, in the order of their first landmarks.

    Example:
        >>> groups_by_name(["L1_TL", "L1_TR", "L2_TL", "L2_TR"]).groups
        [[0, 1], [2, 3]]
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name.rpartition(separator)[0] or name, []).append(row)
    return LandmarkGroups(len(names), list(rows.values()), shared)
