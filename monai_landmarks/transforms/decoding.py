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

"""Base of the dictionary transforms that put decoded landmarks into an item."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor, ensure_tuple, ensure_tuple_rep, look_up_option

from monai_landmarks.heatmaps import DecodedLandmarks
from monai_landmarks.spaces import affine_of, covariances_to_world, points_to_world

__all__ = ["DecodeLandmarksd", "arrays_like"]


def arrays_like(heatmaps: NdarrayOrTensor, decoded: DecodedLandmarks) -> DecodedLandmarks:
    """Return decoded landmarks as NumPy arrays if the heatmaps are one, else as plain tensors."""
    if isinstance(heatmaps, np.ndarray):
        arrays: Any = (values.numpy() for values in decoded)
        return DecodedLandmarks(*arrays)
    return decoded


class DecodeLandmarksd(MapTransform):
    """Base class: add points, scores and covariances of a network's output to an item.

    Subclasses implement :meth:`decode_maps` and :meth:`decode_points`.

    Args:
        keys: heatmaps, or the result of an inferer that ends in points.
        points_keys: keys of the points. Default: ``"{key}_points"``.
        score_keys: keys of the scores. Default: ``"{key}_scores"``.
        covariance_keys: keys of the covariances. Default: ``"{key}_covariances"``.
        refer_keys: image on whose grid the heatmaps lie. None: use the affine of the heatmaps.
        space: of the points and covariances, ``"world"`` or ``"index"``.
        allow_missing_keys: do not raise if a key is missing.
    """

    # leading axes of the heatmaps before the spatial ones
    lead_axes = 1

    def __init__(
        self,
        keys: KeysCollection,
        points_keys: KeysCollection | None = None,
        score_keys: KeysCollection | None = None,
        covariance_keys: KeysCollection | None = None,
        refer_keys: KeysCollection | None = "image",
        space: Literal["world", "index"] = "world",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.points_keys = self._keys_of("points", points_keys)
        self.score_keys = self._keys_of("scores", score_keys)
        self.covariance_keys = self._keys_of("covariances", covariance_keys)
        self.refer_keys = ensure_tuple_rep(refer_keys, len(self.keys))
        self.space = look_up_option(space, ("world", "index"))

    def _keys_of(self, what: str, given: KeysCollection | None) -> tuple[Hashable, ...]:
        chosen = tuple(f"{key}_{what}" for key in self.keys) if given is None else ensure_tuple(given)
        if len(chosen) != len(self.keys):
            raise ValueError(f"{len(self.keys)} keys need as many keys of {what}, got {len(chosen)}.")
        return chosen

    def decode_maps(self, heatmaps: NdarrayOrTensor, affine: np.ndarray | None) -> DecodedLandmarks:
        """Decode heatmaps.

        Args:
            heatmaps: (N, *spatial).
            affine: 4x4, from index to world. None: unknown.

        Returns:
            Landmarks (N, D) in index coordinates.
        """
        raise NotImplementedError

    def decode_points(
        self, found: DecodedLandmarks, affine: np.ndarray | None, size: Sequence[int] | None
    ) -> DecodedLandmarks:
        """Complete the result of an inferer that ends in points.

        Args:
            found: points (N, D) or candidates (N, K, D) in index coordinates.
            affine: 4x4, from index to world. None: unknown.
            size: of the image. None: unknown.

        Returns:
            Landmarks (N, D) in index coordinates.
        """
        raise NotImplementedError

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Decode heatmaps, or complete points.

        Args:
            data: item with the network's output, and the image it refers to.

        Returns:
            A copy of the item with points, scores and covariances.

        Raises:
            KeyError: if the image is missing.
            ValueError: if world points are wanted without an affine, or the image has another grid than the heatmaps.
        """
        d = dict(data)
        for key, points_key, score_key, covariance_key, refer_key in self.key_iterator(
            d, self.points_keys, self.score_keys, self.covariance_keys, self.refer_keys
        ):
            output = d[key]
            image = None if refer_key is None else self._image(d, key, refer_key)
            affine = affine_of(output if image is None else image)
            if isinstance(output, Mapping):
                found = DecodedLandmarks(*(output[name] for name in DecodedLandmarks._fields))
                decoded = self.decode_points(found, affine, None if image is None else tuple(image.shape[1:]))
            else:
                if image is not None and image.shape[1:] != output.shape[self.lead_axes :]:
                    raise ValueError(
                        f"'{key}' of shape {tuple(output.shape)} does not lie on the grid of '{refer_key}', "
                        f"{tuple(image.shape)}: its affine would lead to wrong points."
                    )
                decoded = self.decode_maps(output, affine)
            d[points_key], d[score_key], d[covariance_key] = self._in_space(decoded, affine, key)
        return d

    def _image(self, data: Mapping[Hashable, Any], key: Hashable, refer_key: Hashable) -> Any:
        if refer_key not in data:
            raise KeyError(
                f"The image {refer_key!r} of {key!r} is not in the item. Name the image in refer_keys, or pass "
                "refer_keys=None to use the affine of the heatmaps."
            )
        return data[refer_key]

    def _in_space(
        self, decoded: DecodedLandmarks, affine: np.ndarray | None, key: Hashable
    ) -> tuple[MetaTensor, torch.Tensor, torch.Tensor]:
        """Return points (1, N, D), scores and covariances in the space that is wanted."""
        points, scores, covariances = (convert_to_tensor(values) for values in decoded)
        points = points.to(torch.float64)
        if self.space == "index":
            points_affine = torch.eye(4, dtype=torch.float64) if affine is None else torch.as_tensor(affine)
            return MetaTensor(points[None], affine=points_affine), scores, covariances
        if affine is None:
            raise ValueError(
                f"World points of '{key}' need an affine: name an image in refer_keys, or pass space='index'."
            )
        points, covariances = points_to_world(points, affine), covariances_to_world(covariances, affine)
        return MetaTensor(points[None], affine=torch.eye(4, dtype=torch.float64)), scores, covariances
