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

"""Points to Gaussian heatmaps and heatmaps back to points, as MONAI transforms."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.transforms.traits import RandomizableTrait
from monai.utils import (
    TransformBackends,
    convert_to_dst_type,
    convert_to_tensor,
    ensure_tuple,
    ensure_tuple_rep,
    get_equivalent_dtype,
)

from monai_landmarks.heatmaps import DecodedLandmarks, decode_heatmaps, expand_sigma, gaussian_heatmaps
from monai_landmarks.spaces import (
    affine_of,
    affine_spacing,
    covariances_to_world,
    points_as_index,
    points_of_image,
    points_to_world,
    spacing_of,
)
from monai_landmarks.uncertainty import ensemble_covariance, load_sigma, sigma_covariance

__all__ = [
    "HeatmapToLandmarks",
    "HeatmapToLandmarksD",
    "HeatmapToLandmarksDict",
    "HeatmapToLandmarksd",
    "LandmarksToHeatmap",
    "LandmarksToHeatmapD",
    "LandmarksToHeatmapDict",
    "LandmarksToHeatmapd",
]

_COVARIANCES = ("heatmap", "sigma", "spread", "mixture")


class LandmarksToHeatmap(Transform):
    """
    Index points to Gaussian heatmaps with exact, unrounded centers.

    The call is that of MONAI's ``GenerateHeatmap``, which rounds each point to a voxel.

    Args:
        sigma: standard deviation: a scalar; one value per landmark, (N,) or (N, 1); per axis, (D,) or (1, D); or both,
            (N, D). A flat list is refused when N = D, since it could mean either.
        unit: of sigma, ``"voxel"`` or ``"mm"``. Millimeters need a spacing, from the call or from the points' affine.
        normalize: ``"peak"``: the Gaussian's maximum is ``amplitude``; ``"mass"``: its integral over voxels is.
        amplitude: see ``normalize``.
        spatial_shape: used when the call gives none.
        dtype: floating-point type of the heatmaps.

    Raises:
        ValueError: for a sigma or amplitude that is not positive, or an unknown unit.

    Example:
        >>> heatmaps = LandmarksToHeatmap(sigma=3.0)(np.array([[100.2, 50.7]]), spatial_shape=(512, 512))
        >>> heatmaps.shape, heatmaps.dtype
        ((1, 512, 512), dtype('float32'))
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(
        self,
        sigma: Any = 3.0,
        unit: str = "voxel",
        normalize: str = "peak",
        amplitude: float = 1.0,
        spatial_shape: Sequence[int] | int | None = None,
        dtype: Any = torch.float32,
    ) -> None:
        # the smallest is asked for through the tensor, so that every accepted form passes
        if not bool((torch.as_tensor(sigma) > 0).all()):
            raise ValueError(f"sigma must be positive, got {sigma}.")
        if unit not in ("voxel", "mm"):
            raise ValueError(f"unit must be 'voxel' or 'mm', got {unit!r}.")
        if amplitude <= 0:
            raise ValueError(f"amplitude must be positive, got {amplitude}.")
        self.sigma = sigma
        self.unit = unit
        self.normalize = normalize
        self.amplitude = amplitude
        self.spatial_shape = spatial_shape
        self.dtype: torch.dtype = get_equivalent_dtype(dtype, torch.Tensor)
        if not self.dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating-point type, got {dtype}.")

    def __call__(
        self,
        points: NdarrayOrTensor,
        spatial_shape: Sequence[int] | int | None = None,
        spacing: Sequence[float] | float | None = None,
    ) -> NdarrayOrTensor:
        """
        Args:
            points: (N, D) or (1, N, D) index coordinates, NaN where missing; numpy array or tensor on any device.
            spatial_shape: D sizes, or one for all axes.
            spacing: voxel size in mm per axis, for ``unit="mm"``.

        Returns:
            (N, *spatial_shape), of the points' array type and on their device; a MetaTensor's affine is kept. The map of
            a missing landmark is zero.

        Raises:
            ValueError: when no shape is known, or no spacing where one is needed.
        """
        tensor = points_of_image(convert_to_tensor(points, track_meta=False))
        if not tensor.is_floating_point():
            tensor = tensor.to(torch.float32)
        shape = self.spatial_shape if spatial_shape is None else spatial_shape
        if shape is None:
            raise ValueError("spatial_shape is needed, in the constructor or in the call.")
        num_landmarks, spatial_dims = tensor.shape
        sigma = self.sigma
        if self.unit == "mm":
            if spacing is None:
                affine = affine_of(points)
                if affine is None:
                    raise ValueError("sigma in mm needs a spacing: pass spacing=, or points with an image's affine.")
                spacing = affine_spacing(affine, spatial_dims).tolist()
            voxel = torch.as_tensor(ensure_tuple_rep(spacing, spatial_dims), dtype=torch.float64)
            sigma = expand_sigma(sigma, num_landmarks, spatial_dims).to("cpu", torch.float64) / voxel
        maps = gaussian_heatmaps(
            tensor, ensure_tuple_rep(shape, spatial_dims), sigma, self.normalize, self.amplitude, self.dtype
        )
        return convert_to_dst_type(maps, points, dtype=self.dtype)[0]


class LandmarksToHeatmapd(MapTransform, RandomizableTrait):
    """
    Dictionary form of :class:`LandmarksToHeatmap`.

    World points (RAS mm, as ``LoadLandmarksd`` gives them) are taken to the index space of the reference image; index
    points stay. The shape is that of the reference image as it is now, whatever was resampled or cropped before. Marked as
    randomizable so that caching datasets keep the image and the points, not the heatmaps.

    Args:
        keys: points, (N, D) or (1, N, D).
        sigma: see :class:`LandmarksToHeatmap`.
        heatmap_keys: where the heatmaps go; default ``"{key}_heatmap"``.
        refer_keys: image (C, *spatial) that gives shape, affine and spacing, one for all keys or one per key. None: use
            ``spatial_shape``.
        unit: see :class:`LandmarksToHeatmap`.
        normalize: see :class:`LandmarksToHeatmap`.
        amplitude: see :class:`LandmarksToHeatmap`.
        spatial_shape: shape of the heatmaps, for ``refer_keys=None``.
        dtype: floating-point type of the heatmaps.
        allow_missing_keys: do not raise when a key is missing.
    """

    backend = LandmarksToHeatmap.backend

    def __init__(
        self,
        keys: KeysCollection,
        sigma: Any = 3.0,
        heatmap_keys: KeysCollection | None = None,
        refer_keys: KeysCollection | None = "image",
        unit: str = "voxel",
        normalize: str = "peak",
        amplitude: float = 1.0,
        spatial_shape: Sequence[int] | int | None = None,
        dtype: Any = torch.float32,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.heatmap_keys = (
            tuple(f"{key}_heatmap" for key in self.keys) if heatmap_keys is None else ensure_tuple(heatmap_keys)
        )
        if len(self.heatmap_keys) != len(self.keys):
            raise ValueError(f"{len(self.keys)} keys need as many heatmap_keys, got {len(self.heatmap_keys)}.")
        if (refer_keys is None) == (spatial_shape is None):
            raise ValueError(
                "The shape of the heatmaps is that of an image or spatial_shape: pass refer_keys or spatial_shape, and "
                "refer_keys=None with spatial_shape."
            )
        self.refer_keys = ensure_tuple_rep(refer_keys, len(self.keys))
        self.converter = LandmarksToHeatmap(sigma, unit, normalize, amplitude, spatial_shape, dtype)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the heatmaps to ``data``."""
        d = dict(data)
        for key, heatmap_key, refer_key in self.key_iterator(d, self.heatmap_keys, self.refer_keys):
            points = d[key]
            if refer_key is None:
                d[heatmap_key] = self.converter(points)
                continue
            image = d[refer_key]
            index, _ = points_as_index(points, image)
            device = image.device if isinstance(image, torch.Tensor) else torch.device("cpu")
            dims = image.ndim - 1
            maps = self.converter(
                torch.as_tensor(index, device=device), tuple(image.shape[1:]), tuple(spacing_of(image, dims))
            )
            d[heatmap_key] = convert_to_dst_type(maps, image, dtype=self.converter.dtype)[0]
        return d


class HeatmapToLandmarks(Transform):
    """
    Heatmaps to sub-pixel index points.

    Args:
        method: ``"gaussian"``, a least-squares fit of a Gaussian around the maximum, accurate under noise and at the
            border; ``"centroid"``, the center of mass above half of the maximum; ``"argmax"``, whole voxels.
        threshold: a landmark whose maximum is not above it is absent, its point NaN. None decodes always.
        spatial_dims: how many of the last axes are spatial. None: all but the first. Given, any number of leading axes
            is a batch.
        return_score: also return the maximum of each map, (..., N).
        return_covariance: also return the covariance of each landmark in square voxels, (..., N, D, D).
        radius: how far around the maximum the refinement looks, in voxels.
        softmax: the maps are logits of a distribution over their voxels, as a network gives them that is trained with
            ``HeatmapCrossEntropyLoss``: take their softmax first. The score is then a probability.
        covariance: where the covariance comes from. ``"heatmap"``: the shape of the peak. ``"sigma"``: the learned sigma.
            ``"spread"`` and ``"mixture"``: the heatmaps are those of an ensemble, (M, N, *spatial), of which the mean is
            decoded; the covariance is that of the members' points, without or with the members' own, see
            `monai_landmarks.uncertainty.ensemble_covariance`.
        sigma: for ``"sigma"``, in voxels, in any form that `monai_landmarks.heatmaps.expand_sigma` takes; or the file that a
            training has left of it, see `monai_landmarks.uncertainty.load_sigma`.

    Raises:
        ValueError: for an unknown source of the covariance, or ``"sigma"`` without a sigma or the other way round.

    Example:
        >>> heatmaps = LandmarksToHeatmap(sigma=3.0)(np.array([[100.2, 50.7]]), spatial_shape=(128, 128))
        >>> points, score = HeatmapToLandmarks(return_score=True)(heatmaps)
        >>> points.round(2), score.round(2)
        (array([[100.2,  50.7]], dtype=float32), array([0.99], dtype=float32))
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(
        self,
        method: str = "gaussian",
        threshold: float | None = 0.0,
        spatial_dims: int | None = None,
        return_score: bool = False,
        return_covariance: bool = False,
        radius: int | None = None,
        softmax: bool = False,
        covariance: str = "heatmap",
        sigma: Any = None,
    ) -> None:
        if covariance not in _COVARIANCES:
            raise ValueError(f"covariance must be one of {', '.join(_COVARIANCES)}, got {covariance!r}.")
        if (covariance == "sigma") != (sigma is not None):
            raise ValueError("sigma is needed for covariance='sigma', and for nothing else.")
        self.method = method
        self.threshold = threshold
        self.spatial_dims = spatial_dims
        self.return_score = return_score
        self.return_covariance = return_covariance
        self.radius = radius
        self.softmax = softmax
        self.covariance = covariance
        self.sigma = load_sigma(sigma) if isinstance(sigma, (str, os.PathLike)) else sigma

    @property
    def of_ensemble(self) -> bool:
        """Whether the first axis of the heatmaps is that of the members of an ensemble."""
        return self.covariance in ("spread", "mixture")

    def __call__(self, heatmaps: NdarrayOrTensor) -> Any:
        """
        Args:
            heatmaps: (N, *spatial), or with any leading axes when ``spatial_dims`` is given; those of an ensemble with its
                members in front of all.

        Returns:
            points (N, D) in index coordinates; or a tuple of points and what was asked for, in the order points, score,
            covariance. Array type and device are those of the heatmaps.
        """
        tensor = convert_to_tensor(heatmaps, track_meta=False)
        dims = self.spatial_dims or tensor.ndim - 1 - self.of_ensemble
        if self.softmax:
            tensor = tensor.flatten(-dims).softmax(dim=-1, dtype=torch.float32).reshape(tensor.shape)
        decoded = self._decode(tensor, dims)
        results = [decoded.points]
        if self.return_score:
            results.append(decoded.scores)
        if self.return_covariance:
            results.append(decoded.covariances)
        # plain arrays: the heatmaps' affine is not the affine of the points
        if isinstance(heatmaps, np.ndarray):
            converted: list[Any] = [convert_to_dst_type(r, heatmaps, dtype=r.dtype)[0] for r in results]
        else:
            converted = results
        return converted[0] if len(converted) == 1 else tuple(converted)

    def _decode(self, heatmaps: torch.Tensor, dims: int) -> DecodedLandmarks:
        mean = heatmaps.mean(dim=0) if self.of_ensemble else heatmaps
        decoded = decode_heatmaps(mean, dims, self.method, self.threshold, self.radius)
        if self.covariance == "heatmap" or not self.return_covariance:
            return decoded
        if self.of_ensemble:
            members = decode_heatmaps(heatmaps, dims, self.method, self.threshold, self.radius)
            covariance = ensemble_covariance(
                members.points, members.covariances if self.covariance == "mixture" else None
            )
        else:
            covariance = self.of_sigma(decoded.covariances)
        absent = decoded.points.isnan().any(dim=-1)
        return decoded._replace(covariances=covariance.masked_fill(absent[..., None, None], torch.nan))

    def of_sigma(self, covariance: torch.Tensor) -> torch.Tensor:
        """The covariance (..., N, D, D) that sigma gives in the place of another."""
        sigma = expand_sigma(self.sigma, *covariance.shape[-3:-1])
        return sigma_covariance(sigma).to(covariance).expand_as(covariance)


class HeatmapToLandmarksd(MapTransform):
    """
    Dictionary form of :class:`HeatmapToLandmarks`, which also takes the points to the world.

    Args:
        keys: heatmaps (N, *spatial), such as a network's ``"pred"`` after decollation. Or what an inferer that ends in
            points gives in their place: ``points`` (N, D) in index coordinates of the image, ``scores`` (N,), and
            ``covariances`` (N, D, D); then ``method`` and ``radius`` are the inferer's.
        points_keys: where the points go, (1, N, D) MetaTensor; default ``"{key}_points"``.
        score_keys: where the scores go, (N,); default ``"{key}_scores"``.
        covariance_keys: where the covariances go, (N, D, D); default ``"{key}_covariances"``.
        refer_keys: image on whose grid the heatmaps lie, one for all keys or one per key; its affine leads to the world.
            None: use the affine of the heatmaps.
        space: ``"world"``: points in RAS mm, covariance in mm^2; ``"index"``: voxels.
        method: see :class:`HeatmapToLandmarks`.
        threshold: see :class:`HeatmapToLandmarks`.
        radius: see :class:`HeatmapToLandmarks`.
        softmax: see :class:`HeatmapToLandmarks`.
        allow_missing_keys: do not raise when a key is missing.
        covariance: see :class:`HeatmapToLandmarks`.
        sigma: see :class:`HeatmapToLandmarks`.

    Raises:
        ValueError: when world points are asked for and neither image nor heatmaps have an affine, or when the image has
            another grid than the heatmaps.
    """

    backend = HeatmapToLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        points_keys: KeysCollection | None = None,
        score_keys: KeysCollection | None = None,
        covariance_keys: KeysCollection | None = None,
        refer_keys: KeysCollection | None = "image",
        space: str = "world",
        method: str = "gaussian",
        threshold: float | None = 0.0,
        radius: int | None = None,
        softmax: bool = False,
        allow_missing_keys: bool = False,
        covariance: str = "heatmap",
        sigma: Any = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if space not in ("world", "index"):
            raise ValueError(f"space must be 'world' or 'index', got {space!r}.")
        self.space = space

        def names(suffix: str, given: KeysCollection | None) -> tuple:
            chosen = tuple(f"{key}_{suffix}" for key in self.keys) if given is None else ensure_tuple(given)
            if len(chosen) != len(self.keys):
                raise ValueError(f"{len(self.keys)} keys need as many keys of {suffix}, got {len(chosen)}.")
            return chosen

        self.points_keys = names("points", points_keys)
        self.score_keys = names("scores", score_keys)
        self.covariance_keys = names("covariances", covariance_keys)
        self.refer_keys = ensure_tuple_rep(refer_keys, len(self.keys))
        self.decoder = HeatmapToLandmarks(
            method,
            threshold,
            return_score=True,
            return_covariance=True,
            radius=radius,
            covariance=covariance,
            sigma=sigma,
            softmax=softmax,
        )

    @property
    def _first_axis(self) -> int:
        """The first spatial axis of the heatmaps."""
        return 2 if self.decoder.of_ensemble else 1

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add points, scores and covariances to ``data``."""
        d = dict(data)
        for key, points_key, score_key, covariance_key, refer_key in self.key_iterator(
            d, self.points_keys, self.score_keys, self.covariance_keys, self.refer_keys
        ):
            heatmaps = d[key]
            if refer_key is not None and refer_key not in d:
                raise KeyError(
                    f"The image {refer_key!r} of {key!r} is not in the item. Name the image in refer_keys, or pass "
                    "refer_keys=None to use the affine of the heatmaps."
                )
            has_maps = not isinstance(heatmaps, Mapping)
            if not has_maps and self.decoder.of_ensemble:
                raise ValueError(
                    f"'{key}' is points of an inferer, whose covariance is theirs; covariance={self.decoder.covariance!r}"
                    " needs heatmaps."
                )
            if has_maps and refer_key is not None and d[refer_key].shape[1:] != heatmaps.shape[self._first_axis :]:
                raise ValueError(
                    f"'{key}' of shape {tuple(heatmaps.shape)} does not lie on the grid of '{refer_key}', "
                    f"{tuple(d[refer_key].shape)}: its affine would lead to wrong points."
                )
            affine = affine_of(heatmaps if refer_key is None else d[refer_key])
            size = None if refer_key is None else tuple(d[refer_key].shape[1:])
            decoded = self.decode(heatmaps, affine) if has_maps else self._present(heatmaps, affine, size)
            points, scores, covariances = (convert_to_tensor(r) for r in decoded)
            points = points.to(torch.float64)
            points_affine = torch.eye(4, dtype=torch.float64) if affine is None else torch.as_tensor(affine)
            if self.space == "world":
                if affine is None:
                    raise ValueError(
                        f"world points of '{key}' need an affine: name an image in refer_keys, or pass space='index'."
                    )
                points = points_to_world(points, affine)
                covariances = covariances_to_world(covariances, affine)
                points_affine = torch.eye(4, dtype=torch.float64)
            d[points_key] = MetaTensor(points[None], affine=points_affine)
            d[score_key] = scores
            d[covariance_key] = covariances
        return d

    def decode(self, heatmaps: NdarrayOrTensor, affine: np.ndarray | None) -> Sequence[NdarrayOrTensor]:
        """Points (N, D) in index coordinates, score and covariance; a subclass may decode otherwise, and in mm."""
        return self.decoder(heatmaps)

    def _present(
        self, found: Mapping[str, torch.Tensor], affine: np.ndarray | None, size: Sequence[int] | None
    ) -> Sequence[torch.Tensor]:
        """Points, scores and covariances from an inferer, without what is not above the threshold."""
        points, scores, covariances = (found[name] for name in DecodedLandmarks._fields)
        if points.ndim == 3:  # of several candidates the highest
            points, scores, covariances = (values[:, 0] for values in (points, scores, covariances))
        if self.decoder.covariance == "sigma":
            covariances = self.decoder.of_sigma(covariances)
        if self.decoder.threshold is not None:
            absent = ~(scores > self.decoder.threshold)
            points = points.masked_fill(absent[:, None], torch.nan)
            covariances = covariances.masked_fill(absent[:, None, None], torch.nan)
        return points, scores, covariances


LandmarksToHeatmapD = LandmarksToHeatmapDict = LandmarksToHeatmapd
HeatmapToLandmarksD = HeatmapToLandmarksDict = HeatmapToLandmarksd
