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
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.config import DtypeLike, KeysCollection, NdarrayOrTensor, PathLike
from monai.transforms import MapTransform, Transform
from monai.transforms.traits import RandomizableTrait
from monai.utils import (
    TransformBackends,
    convert_to_dst_type,
    convert_to_tensor,
    ensure_tuple,
    ensure_tuple_rep,
    get_equivalent_dtype,
    look_up_option,
)
from numpy.typing import ArrayLike

from monai_landmarks.heatmaps import (
    DecodedLandmarks,
    DecodingMethod,
    Normalization,
    decode_heatmaps,
    expand_sigma,
    gaussian_heatmaps,
)
from monai_landmarks.spaces import affine_of, affine_spacing, points_as_index, points_of_image, spacing_of
from monai_landmarks.uncertainty import ensemble_covariance, load_sigma, sigma_covariance

from .decoding import DecodeLandmarksd, arrays_like
from .lost_affine import require_affines, require_index_points

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

CovarianceSource = Literal["heatmap", "sigma", "spread", "mixture"]
Sigma = ArrayLike | torch.Tensor


class LandmarksToHeatmap(Transform):
    """Index points to Gaussian heatmaps with exact, unrounded centers.

    The call is that of MONAI's ``GenerateHeatmap``, which rounds each point to a voxel.

    Args:
        sigma: standard deviation: a scalar; one value per landmark, (N,) or (N, 1); one per axis, (D,) or (1, D); or
            one per landmark and axis, (N, D). A flat list raises an error if N = D, since it could mean either.
        unit: of sigma, ``"voxel"`` or ``"mm"``. Millimeters need a spacing, from the call or from the affine of the
            points.
        normalize: ``"peak"``: the maximum of the Gaussian is ``amplitude``. ``"mass"``: its integral over voxels is.
        amplitude: see ``normalize``.
        spatial_shape: shape of the heatmaps, where the call does not pass one.
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
        sigma: Sigma = 3.0,
        unit: Literal["voxel", "mm"] = "voxel",
        normalize: Normalization = "peak",
        amplitude: float = 1.0,
        spatial_shape: Sequence[int] | int | None = None,
        dtype: DtypeLike | torch.dtype = torch.float32,
    ) -> None:
        if not bool((torch.as_tensor(sigma) > 0).all()):
            raise ValueError(f"sigma must be positive, got {sigma}.")
        if amplitude <= 0:
            raise ValueError(f"amplitude must be positive, got {amplitude}.")
        self.sigma = sigma
        self.unit = look_up_option(unit, ("voxel", "mm"))
        self.normalize: Normalization = normalize
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
        """Draw the heatmaps of an image's points.

        Args:
            points: (N, D) or (1, N, D) index coordinates, NaN where missing. NumPy array or tensor on any device.
            spatial_shape: D sizes, or one for all axes. Default: that of the constructor.
            spacing: voxel size in mm, one number or one per axis, for ``unit="mm"``.

        Returns:
            Heatmaps (N, *spatial_shape), of the array type and on the device of the points. A MetaTensor keeps its
            affine. The map of a missing landmark is zero.

        Raises:
            ValueError: if the shape is unknown, or the spacing where one is needed.
        """
        tensor = points_of_image(convert_to_tensor(points, track_meta=False))
        if not tensor.is_floating_point():
            tensor = tensor.to(torch.float32)
        shape = self.spatial_shape if spatial_shape is None else spatial_shape
        if shape is None:
            raise ValueError(
                "The shape of the heatmaps is unknown: pass spatial_shape to the constructor or to the call."
            )
        num_landmarks, spatial_dims = tensor.shape
        sigma = self.sigma
        if self.unit == "mm":
            if spacing is None:
                affine = affine_of(points)
                if affine is None:
                    raise ValueError(
                        "sigma in mm needs a spacing: pass spacing, or points with the affine of an image."
                    )
                spacing = affine_spacing(affine, spatial_dims).tolist()
            voxel = torch.as_tensor(ensure_tuple_rep(spacing, spatial_dims), dtype=torch.float64)
            sigma = expand_sigma(sigma, num_landmarks, spatial_dims).to("cpu", torch.float64) / voxel
        maps = gaussian_heatmaps(
            tensor, ensure_tuple_rep(shape, spatial_dims), sigma, self.normalize, self.amplitude, self.dtype
        )
        return convert_to_dst_type(maps, points, dtype=self.dtype)[0]


class LandmarksToHeatmapd(MapTransform, RandomizableTrait):
    """Dictionary-based version of :class:`LandmarksToHeatmap`.

    World points (RAS mm, as ``LoadLandmarksd`` returns them) are transformed to the index space of the image; index
    points stay. The heatmaps have the current shape of the image, after any resampling and cropping. The transform is
    marked as randomizable, so that caching datasets cache images and points, but no heatmaps.

    Args:
        keys: points, (N, D) or (1, N, D).
        sigma: see :class:`LandmarksToHeatmap`.
        heatmap_keys: keys of the heatmaps. Default: ``"{key}_heatmap"``.
        refer_keys: image (C, *spatial) that gives shape, affine and spacing, one for all keys or one per key. None: use
            ``spatial_shape``.
        unit: see :class:`LandmarksToHeatmap`.
        normalize: see :class:`LandmarksToHeatmap`.
        amplitude: see :class:`LandmarksToHeatmap`.
        spatial_shape: shape of the heatmaps, for ``refer_keys=None``.
        dtype: floating-point type of the heatmaps.
        allow_missing_keys: do not raise if a key is missing.
    """

    backend = LandmarksToHeatmap.backend

    def __init__(
        self,
        keys: KeysCollection,
        sigma: Sigma = 3.0,
        heatmap_keys: KeysCollection | None = None,
        refer_keys: KeysCollection | None = "image",
        unit: Literal["voxel", "mm"] = "voxel",
        normalize: Normalization = "peak",
        amplitude: float = 1.0,
        spatial_shape: Sequence[int] | int | None = None,
        dtype: DtypeLike | torch.dtype = torch.float32,
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
        """Add heatmaps to an item.

        Args:
            data: item with points, and the image they belong to.

        Returns:
            A copy of the item with the heatmaps.

        Raises:
            ValueError: for loaded world points without ``refer_keys``; see also :func:`require_affines`.
        """
        d = dict(data)
        for key, heatmap_key, refer_key in self.key_iterator(d, self.heatmap_keys, self.refer_keys):
            points = d[key]
            require_affines(d, key, refer_key)
            if refer_key is None:
                require_index_points(d, key)
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
    """Heatmaps to index points, with a fraction of a voxel.

    Args:
        method: ``"gaussian"``: a least-squares fit of a Gaussian around the maximum, accurate under noise and at the
            border of the image. ``"centroid"``: the center of mass of the part above half of the maximum. ``"argmax"``:
            the voxel of the maximum. See :func:`monai_landmarks.heatmaps.decode_heatmaps`.
        threshold: a landmark whose maximum is not above it is missing, and its point is NaN. None: no landmark is
            missing.
        spatial_dims: number of spatial axes, which are the last ones; any axes before them are a batch. None: all axes
            but the first.
        radius: of the neighborhood that the refinement uses, in voxels. Default: 8 in 2-D and 6 in 3-D.
        softmax: apply a softmax over the voxels of each map first, for a network that was trained with
            ``HeatmapCrossEntropyLoss`` and returns logits. Scores are then probabilities.
        covariance: source of the covariances. ``"heatmap"``: the shape of the peak. ``"sigma"``: a learned sigma.
            ``"spread"`` and ``"mixture"``: the members of an ensemble. Their heatmaps are (M, N, *spatial), the mean is
            decoded, and the covariance is that of the members' points, without or with the members' own covariances;
            see :func:`monai_landmarks.uncertainty.ensemble_covariance`.
        sigma: for ``"sigma"``, in voxels, in any form that :func:`monai_landmarks.heatmaps.expand_sigma` takes; or the
            file in which a training saved it, see :func:`monai_landmarks.uncertainty.load_sigma`.

    Raises:
        ValueError: for an unknown source of the covariance, ``"sigma"`` without a sigma, or a sigma with another
            source.

    Example:
        >>> heatmaps = LandmarksToHeatmap(sigma=3.0)(np.array([[100.2, 50.7]]), spatial_shape=(128, 128))
        >>> found = HeatmapToLandmarks()(heatmaps)
        >>> found.points.round(2), found.scores.round(2)
        (array([[100.2,  50.7]], dtype=float32), array([0.99], dtype=float32))
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(
        self,
        method: DecodingMethod = "gaussian",
        threshold: float | None = 0.0,
        spatial_dims: int | None = None,
        radius: int | None = None,
        softmax: bool = False,
        covariance: CovarianceSource = "heatmap",
        sigma: Sigma | PathLike | None = None,
    ) -> None:
        self.covariance = look_up_option(covariance, get_args(CovarianceSource))
        if (covariance == "sigma") != (sigma is not None):
            raise ValueError("covariance='sigma' needs a sigma, and other sources of the covariance take none.")
        self.method: DecodingMethod = method
        self.threshold = threshold
        self.spatial_dims = spatial_dims
        self.radius = radius
        self.softmax = softmax
        self.sigma = load_sigma(sigma) if isinstance(sigma, (str, os.PathLike)) else sigma

    @property
    def of_ensemble(self) -> bool:
        """Whether the first axis of the heatmaps is that of the members of an ensemble."""
        return self.covariance in ("spread", "mixture")

    def __call__(self, heatmaps: NdarrayOrTensor) -> DecodedLandmarks:
        """Decode heatmaps.

        Args:
            heatmaps: (N, *spatial), or with any axes before that if ``spatial_dims`` is given. The members of an
                ensemble are the first axis of all.

        Returns:
            :class:`monai_landmarks.heatmaps.DecodedLandmarks` with points (N, D) in index coordinates, scores (N,) and
            covariances (N, D, D) in square voxels. They are NumPy arrays if the heatmaps are one, else plain tensors on
            the device of the heatmaps.
        """
        tensor = convert_to_tensor(heatmaps, track_meta=False)
        dims = self.spatial_dims or tensor.ndim - 1 - self.of_ensemble
        if self.softmax:
            tensor = tensor.flatten(-dims).softmax(dim=-1, dtype=torch.float32).reshape(tensor.shape)
        return arrays_like(heatmaps, self._decode(tensor, dims))

    def _decode(self, heatmaps: torch.Tensor, dims: int) -> DecodedLandmarks:
        mean = heatmaps.mean(dim=0) if self.of_ensemble else heatmaps
        decoded = decode_heatmaps(mean, dims, self.method, self.threshold, self.radius)
        if self.covariance == "heatmap":
            return decoded
        if self.of_ensemble:
            members = decode_heatmaps(heatmaps, dims, self.method, self.threshold, self.radius)
            covariances = ensemble_covariance(
                members.points, members.covariances if self.covariance == "mixture" else None
            )
        else:
            covariances = self._of_sigma(decoded.covariances)
        missing = decoded.points.isnan().any(dim=-1)
        return decoded._replace(covariances=covariances.masked_fill(missing[..., None, None], torch.nan))

    def complete(self, found: DecodedLandmarks) -> DecodedLandmarks:
        """Apply threshold and sigma to points that an inferer has decoded.

        Args:
            found: points (N, D) in index coordinates, scores (N,) and covariances (N, D, D); or K candidates per
                landmark, of which the first one is taken.

        Returns:
            Points (N, D), scores (N,) and covariances (N, D, D), NaN for a landmark whose score is not above the
            threshold.
        """
        if found.points.ndim == 3:
            found = DecodedLandmarks(*(values[:, 0] for values in found))
        points, scores, covariances = found
        if self.covariance == "sigma":
            covariances = self._of_sigma(covariances)
        if self.threshold is not None:
            missing = ~(scores > self.threshold)
            points = points.masked_fill(missing[:, None], torch.nan)
            covariances = covariances.masked_fill(missing[:, None, None], torch.nan)
        return DecodedLandmarks(points, scores, covariances)

    def _of_sigma(self, covariances: torch.Tensor) -> torch.Tensor:
        """Return the covariances that sigma gives, in the shape of ``covariances``."""
        assert self.sigma is not None  # the constructor requires it for this covariance
        sigma = expand_sigma(self.sigma, *covariances.shape[-3:-1])
        return sigma_covariance(sigma).to(covariances).expand_as(covariances)


class HeatmapToLandmarksd(DecodeLandmarksd):
    """Dictionary-based version of :class:`HeatmapToLandmarks`, which also transforms the points to the world.

    Args:
        keys: heatmaps (N, *spatial), for example a network's ``"pred"`` after decollation. Or the result of an inferer
            that ends in points: ``points`` (N, D) in index coordinates of the image, ``scores`` (N,) and
            ``covariances`` (N, D, D). ``method``, ``radius`` and ``softmax`` are then those of the inferer.
        points_keys: keys of the points, (1, N, D) MetaTensor. Default: ``"{key}_points"``.
        score_keys: keys of the scores, (N,). Default: ``"{key}_scores"``.
        covariance_keys: keys of the covariances, (N, D, D). Default: ``"{key}_covariances"``.
        refer_keys: image on whose grid the heatmaps lie, one for all keys or one per key. Its affine leads to the
            world. None: use the affine of the heatmaps.
        space: ``"world"``: points in RAS mm, covariances in mm^2. ``"index"``: voxels and square voxels.
        method: see :class:`HeatmapToLandmarks`.
        threshold: see :class:`HeatmapToLandmarks`.
        radius: see :class:`HeatmapToLandmarks`.
        softmax: see :class:`HeatmapToLandmarks`. False for the result of an inferer that ends in points.
        allow_missing_keys: do not raise if a key is missing.
        covariance: see :class:`HeatmapToLandmarks`.
        sigma: see :class:`HeatmapToLandmarks`.

    Raises:
        ValueError: if world points are wanted and neither image nor heatmaps have an affine, if the image has another
            grid than the heatmaps, or if an option needs heatmaps, but an inferer returned points.
    """

    backend = HeatmapToLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        points_keys: KeysCollection | None = None,
        score_keys: KeysCollection | None = None,
        covariance_keys: KeysCollection | None = None,
        refer_keys: KeysCollection | None = "image",
        space: Literal["world", "index"] = "world",
        method: DecodingMethod = "gaussian",
        threshold: float | None = 0.0,
        radius: int | None = None,
        softmax: bool = False,
        allow_missing_keys: bool = False,
        covariance: CovarianceSource = "heatmap",
        sigma: Sigma | PathLike | None = None,
    ) -> None:
        super().__init__(keys, points_keys, score_keys, covariance_keys, refer_keys, space, allow_missing_keys)
        self.decoder = HeatmapToLandmarks(
            method, threshold, radius=radius, softmax=softmax, covariance=covariance, sigma=sigma
        )
        self.lead_axes = 2 if self.decoder.of_ensemble else 1

    def decode_maps(self, heatmaps: NdarrayOrTensor, affine: np.ndarray | None) -> DecodedLandmarks:
        """Decode heatmaps; the affine is not needed."""
        return self.decoder(heatmaps)

    def decode_points(
        self, found: DecodedLandmarks, affine: np.ndarray | None, size: Sequence[int] | None
    ) -> DecodedLandmarks:
        """Apply threshold and sigma to the points of an inferer."""
        if self.decoder.of_ensemble:
            raise ValueError(
                f"covariance={self.decoder.covariance!r} needs heatmaps, but an inferer returned points. Use "
                "covariance='heatmap' for the covariances of the inferer."
            )
        if self.decoder.softmax:
            raise ValueError(
                "softmax=True needs heatmaps, but an inferer returned points, which were found before. Use softmax=False here,"
                " and apply the softmax in the inferer if its network returns logits."
            )
        return self.decoder.complete(found)


LandmarksToHeatmapD = LandmarksToHeatmapDict = LandmarksToHeatmapd
HeatmapToLandmarksD = HeatmapToLandmarksDict = HeatmapToLandmarksd
