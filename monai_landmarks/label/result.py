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

"""Results of MONAI Label for viewers: landmarks as JSON, and as balls for viewers that show only segmentations."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys, ensure_tuple_rep

from monai_landmarks.data import CoordinateSystem, LandmarkSet
from monai_landmarks.data.landmarks.formats.slicer_markups import markups_content
from monai_landmarks.spaces import affine_4x4, affine_spacing, file_affine, picture_affine

from .proposal import plain_answer, proposed_landmarks

__all__ = ["LandmarkResultD", "LandmarkResultDict", "LandmarkResultd", "ball_label_map"]


def ball_label_map(
    landmarks: LandmarkSet, shape: Sequence[int], affine: np.ndarray, radius: float | None = None
) -> np.ndarray:
    """Return a label map with a ball around each landmark.

    Args:
        landmarks: 3-D landmarks in world mm.
        shape: shape of the label map, with three axes.
        affine: affine (4, 4) that maps its indices to RAS mm.
        radius: radius of the balls in mm. By default, a hundredth of the longest side, but at least one and a half
            voxels.

    Returns:
        Array of the given shape, uint8, or uint16 for more than 255 landmarks. It is i + 1 in the ball of landmark i
        and 0 elsewhere. The voxel nearest to a landmark always belongs to this landmark. A missing landmark has no
        ball.

    Example:
        >>> one = LandmarkSet(("a", "b"), [[np.nan] * 3, [2.0, 1.0, 0.0]])
        >>> ball_label_map(one, (5, 3, 1), np.eye(4), radius=1)[..., 0].T.tolist()
        [[0, 0, 2, 0, 0], [0, 2, 2, 2, 0], [0, 0, 2, 0, 0]]
    """
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    spacing = affine_spacing(affine, 3)
    if radius is None:
        radius = max(0.01 * float((spacing * shape).max()), 1.5 * float(spacing[np.array(shape) > 1].max(initial=0)))
    label_map = np.zeros(tuple(shape), dtype=np.uint8 if len(landmarks) < 256 else np.uint16)
    reach = radius * np.linalg.norm(np.linalg.inv(linear), axis=1)  # half the extent of a ball along each index axis
    points = landmarks.to_index(affine).points
    for value, point in enumerate(points, 1):
        if np.isnan(point).any():
            continue
        low = np.clip(np.ceil(point - reach), 0, shape).astype(int)
        high = np.clip(np.floor(point + reach) + 1, low, shape).astype(int)
        offsets = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1) - point
        inside = np.square(offsets @ linear.T).sum(axis=-1) <= radius**2
        label_map[tuple(map(slice, low, high))][inside] = value
    for value, point in enumerate(points, 1):
        nearest = np.rint(point)
        if (nearest >= 0).all() and (nearest < shape).all():
            label_map[tuple(nearest.astype(int))] = value
    return label_map


class LandmarkResultd(MapTransform):
    """Convert the landmarks of an item to the answer of a MONAI Label server.

    It is the last of the ``post_transforms`` in the inference configuration of a bundle. MONAI Label's app
    ``monaibundle`` runs them instead of ``postprocessing``. It adds a dictionary for the JSON answer to the item, with
    the key ``result_keys``:

    * ``landmarks``: a list with the ``name``, the ``position`` in RAS mm, the ``score`` and the ``uncertainty_mm`` of
      each landmark; null if unknown. With what a training has learned about the reliability of its predictions, also
      ``doubt`` and ``probability``, and beside the list the ``doubt`` about the image and ``within_mm``, see
      :func:`monai_landmarks.label.plain_answer`.
    * ``markups``: a point list in LPS mm, as in 3D Slicer's ``.mrk.json`` files.

    It replaces the output of the network by a label map with a ball for each landmark, see :func:`ball_label_map`. The
    label map has the grid of the image file and the shape that MONAI Label writes: without a channel, (X, Y, Z), (X, Y,
    1) for a single slice with a position in the world, or (X, Y) for a picture.

    Args:
        keys: keys of the outputs of the network. For each of them,
            :class:`~monai_landmarks.transforms.HeatmapToLandmarksd` has added ``<key>_points``, and optionally
            ``<key>_scores`` and ``<key>_covariances``.
        names: names of the N landmarks.
        refer_keys: keys of the images, whose metadata gives the grid of the file: one key, or one per output.
        result_keys: keys of the JSON answers: one key, or one per output.
        radius: radius of the balls in mm, see :func:`ball_label_map`.
        allow_missing_keys: whether to ignore missing outputs instead of raising an error.
    """

    def __init__(
        self,
        keys: KeysCollection,
        names: Sequence[str],
        refer_keys: KeysCollection = "image",
        result_keys: KeysCollection = "result",
        radius: float | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names = tuple(names)
        self.refer_keys = ensure_tuple_rep(refer_keys, len(self.keys))
        self.result_keys = ensure_tuple_rep(result_keys, len(self.keys))
        self.radius = radius

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply the transform to an item.

        Args:
            data: item with the detected landmarks, and the image as a :class:`~monai.data.MetaTensor`.

        Returns:
            A copy of the item with the results.

        Raises:
            ValueError: if there are no points, or if the numbers of points and names differ.
        """
        d = dict(data)
        for key, refer_key, result_key in self.key_iterator(d, self.refer_keys, self.result_keys):
            image = d[refer_key]
            found = {str(name): value for name, value in d.items()} | {"image": image}
            landmarks = proposed_landmarks(found, self.names, str(key))
            d[result_key] = {
                **plain_answer(landmarks, found, str(key)),
                "markups": markups_content(landmarks.to(CoordinateSystem.LPS)),
            }
            shape, affine = _file_grid(image)
            label_map = ball_label_map(landmarks, (*shape, 1)[:3], affine, self.radius)
            if len(shape) == 2 and np.array_equal(affine, picture_affine()):
                label_map = label_map[..., 0]
            elif len(shape) == 2:  # MONAI Label reads the shape of the label map here
                d[refer_key] = MetaTensor(image, meta={**image.meta, MetaKeys.SPATIAL_SHAPE: np.array(label_map.shape)})
            d[key] = torch.from_numpy(label_map)
        return d


def _file_grid(image: MetaTensor) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the shape and the 4x4 affine of the file that an image was read from."""
    shape = image.meta.get(MetaKeys.SPATIAL_SHAPE, image.shape[1:])
    known = file_affine(image)
    return tuple(int(n) for n in shape), affine_4x4(image.affine) if known is None else known


LandmarkResultD = LandmarkResultDict = LandmarkResultd
