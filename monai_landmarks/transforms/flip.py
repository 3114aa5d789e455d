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
"""Random mirroring of an image with its landmarks, with left and right landmarks exchanged."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor, ensure_tuple

from monai_landmarks.spaces import points_as_index

from .lost_affine import require_affines

__all__ = ["RandLandmarkFlip", "RandLandmarkFlipD", "RandLandmarkFlipDict", "RandLandmarkFlipd"]

Pairs = Sequence[Sequence[str] | Sequence[int]]


def _row(entry: str | int, names: Sequence[str] | None, where: str) -> int:
    """Return the row of a landmark that is given by name or row number."""
    if not isinstance(entry, str):
        return int(entry)
    if names is None:
        raise ValueError(f"{where} is given by name: pass names, too.")
    if entry not in names:
        raise ValueError(f"{where}: {entry!r} is not among the names {list(names)}.")
    return list(names).index(entry)


def _permutation(pairs: Pairs, names: Sequence[str] | None) -> dict[int, int]:
    """Return the exchange of rows, as a mapping from each row of a pair to the other."""
    result: dict[int, int] = {}
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"A left-right pair must be two names or two numbers, got {pair!r}.")
        rows = [_row(entry, names, f"The pair {tuple(pair)}") for entry in pair]
        left, right = rows
        if left == right or left in result or right in result or min(rows) < 0:
            raise ValueError(f"The pair {tuple(pair)} is not a pair of different landmarks, or one is in two pairs.")
        result[left], result[right] = right, left
    return result


class RandLandmarkFlip(RandomizableTransform):
    """Mirror an image and its landmarks, and exchange the landmarks of left and right.

    This augmentation shows a new, mirrored patient, as :class:`RandLandmarkWarp` shows a deformed one. The image keeps
    its affine, and content and points move together, both in the world and in the index. The left hand of the mirrored
    image is where the right one was, so the rows of a pair are exchanged. (MONAI's ``Flip`` means something else: the
    same patient, stored in another order. It changes the affine, world points stay, and a later ``Orientation`` turns
    the image back. With exchanged names that would be wrong.)

    Mirroring an even number of axes is a rotation, after which left is still left, so that nothing is exchanged.

    Args:
        spatial_axis: image axis or axes to mirror, 0 is the first spatial axis.
        pairs: left-right pairs of landmarks, by name or by row number. Landmarks without a pair keep their row.
        names: names of the landmarks in their order, for pairs by name.
        prob: probability of mirroring.
        one_sided: landmarks, by name or by row number, that have no counterpart on the other side. In a mirrored image
            they are missing (NaN).

    Raises:
        ValueError: for an unknown name, a landmark in two pairs, or a landmark in a pair that is also one-sided.

    Example:
        >>> flip = RandLandmarkFlip(pairs=[("left", "right")], names=["left", "right", "middle"], prob=1.0)
        >>> image, points = flip(torch.zeros(1, 11, 5), torch.tensor([[2.0, 1.0], [7.0, 1.0], [5.0, 4.0]]))
        >>> points.tolist()
        [[3.0, 1.0], [8.0, 1.0], [5.0, 4.0]]
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        spatial_axis: int | Sequence[int] = 0,
        pairs: Pairs = (),
        names: Sequence[str] | None = None,
        prob: float = 0.1,
        one_sided: Sequence[str] | Sequence[int] = (),
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        self.spatial_axis = tuple(sorted(set(ensure_tuple(spatial_axis))))
        self.num_landmarks = None if names is None else len(names)
        self.exchange = _permutation(pairs, names)
        self.one_sided = [_row(entry, names, "one_sided") for entry in one_sided]
        paired = [row for row in self.one_sided if row in self.exchange]
        if paired:
            raise ValueError(f"Landmark {paired[0]} cannot be one-sided and in a left-right pair.")

    def __call__(
        self, img: NdarrayOrTensor, points: NdarrayOrTensor | None = None, randomize: bool = True
    ) -> tuple[NdarrayOrTensor, NdarrayOrTensor | None]:
        """Mirror an image and its points, or return them as they are.

        Args:
            img: channel-first image (C, n_1, ..., n_D), array or tensor on any device.
            points: (N, D) or (1, N, D), in the space of their affine (index without one), NaN where missing.
            randomize: draw whether to mirror. False: do the same as in the last call.

        Returns:
            Image and points, of the types that were passed.

        Raises:
            ValueError: for an axis that the image does not have, or points of a wrong shape or number.
        """
        if randomize:
            self.randomize(None)
        if not self._do_transform:
            return img, points
        return self.flip_image(img), None if points is None else self.flip_points(points, img)

    def flip_image(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Mirror an image, which keeps its affine."""
        dims = [1 + axis for axis in self._axes(img)]
        return convert_to_dst_type(torch.flip(convert_to_tensor(img, track_meta=False), dims), img)[0]

    def flip_points(self, points: NdarrayOrTensor, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Mirror the points of ``img`` and exchange the rows of pairs; (N, D) or (1, N, D)."""
        index, give_back = points_as_index(points, img)
        rows = self.partners(len(index))
        for axis in self._axes(img):
            index[:, axis] = img.shape[1 + axis] - 1 - index[:, axis]
        index = index[rows]
        if len(self.spatial_axis) % 2:
            index[self.one_sided] = torch.nan
        return give_back(index)

    def partners(self, num_landmarks: int) -> list[int]:
        """Return the row that replaces each row when the image is mirrored, its own if the axes are a rotation.

        Args:
            num_landmarks: number of rows.

        Returns:
            One row number per landmark.

        Raises:
            ValueError: if names or pairs are for another number of landmarks.
        """
        if (
            self.num_landmarks not in (None, num_landmarks)
            or max([*self.exchange, *self.one_sided], default=-1) >= num_landmarks
        ):
            expected = (
                self.num_landmarks
                if self.num_landmarks is not None
                else f"more than {max([*self.exchange, *self.one_sided])}"
            )
            raise ValueError(f"There are {num_landmarks} landmarks, but names and pairs are for {expected}.")
        rows = range(num_landmarks)
        return [self.exchange.get(row, row) for row in rows] if len(self.spatial_axis) % 2 else list(rows)

    def _axes(self, img: NdarrayOrTensor) -> tuple[int, ...]:
        if any(not 0 <= axis < img.ndim - 1 for axis in self.spatial_axis):
            raise ValueError(
                f"spatial_axis {self.spatial_axis} is not an axis of an image with {img.ndim - 1} spatial axes."
            )
        return self.spatial_axis


class RandLandmarkFlipd(RandomizableTransform, MapTransform):
    """Dictionary-based version of :class:`RandLandmarkFlip`. Index points are those of the first image.

    Args:
        keys: images.
        points_keys: landmarks, (1, N, D) or (N, D).
        spatial_axis: see :class:`RandLandmarkFlip`.
        pairs: see :class:`RandLandmarkFlip`.
        names: see :class:`RandLandmarkFlip`.
        prob: probability of mirroring.
        one_sided: see :class:`RandLandmarkFlip`.
        allow_missing_keys: do not raise if an image or landmarks are missing.
    """

    backend = RandLandmarkFlip.backend

    def __init__(
        self,
        keys: KeysCollection,
        points_keys: KeysCollection,
        spatial_axis: int | Sequence[int] = 0,
        pairs: Pairs = (),
        names: Sequence[str] | None = None,
        prob: float = 0.1,
        one_sided: Sequence[str] | Sequence[int] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.points_keys = ensure_tuple(points_keys)
        self.flipper = RandLandmarkFlip(spatial_axis, pairs, names, prob=1.0, one_sided=one_sided)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mirror the images and landmarks of an item, or return them as they are.

        Args:
            data: item with channel-first images and landmarks.

        Returns:
            A copy of the item.

        Raises:
            KeyError: if a key is missing and ``allow_missing_keys`` is False.
            ValueError: see :class:`RandLandmarkFlip`.
        """
        d = dict(data)
        reference = self.first_key(d)
        self.randomize(None)
        if reference == ():
            return d
        for key in self.points_keys:
            require_affines(d, key, reference)
        if not self._do_transform:
            return d
        first = d[reference]
        for key in self.points_keys:
            if key in d:
                d[key] = self.flipper.flip_points(d[key], first)
            elif not self.allow_missing_keys:
                raise KeyError(
                    f"RandLandmarkFlipd: the landmarks {key!r} are not in the item, which has {sorted(map(str, d))}."
                )
        for key in self.key_iterator(d):
            d[key] = self.flipper.flip_image(d[key])
        return d


RandLandmarkFlipD = RandLandmarkFlipDict = RandLandmarkFlipd
