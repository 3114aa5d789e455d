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
"""Random spatial augmentation of an image with its landmarks: one warp, one resampling, exact points."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform, create_rotate, create_shear
from monai.utils import (
    GridSampleMode,
    GridSamplePadMode,
    TransformBackends,
    convert_to_dst_type,
    convert_to_tensor,
    ensure_tuple,
    ensure_tuple_rep,
    look_up_option,
)

from monai_landmarks.spaces import points_as_index, spacing_of

from .lost_affine import require_affines
from .spline_warp import SplineWarp

__all__ = ["RandLandmarkWarp", "RandLandmarkWarpD", "RandLandmarkWarpDict", "RandLandmarkWarpd"]

Ranges = float | Sequence[float | Sequence[float]] | None


def _limits(ranges: Ranges, count: int, name: str) -> np.ndarray:
    """Return the ranges of ``count`` parameters as an array (count, 2) of lower and upper limits."""
    if ranges is None:
        return np.zeros((count, 2))
    entries: Sequence[Any] = ranges if isinstance(ranges, Sequence) else [ranges] * count
    if count == 1 and len(entries) == 2:
        entries = [entries]
    shapes = [len(entry) if isinstance(entry, Sequence) else 0 for entry in entries]
    if len(entries) != count or not set(shapes) <= {0, 2}:
        raise ValueError(
            f"{name} must be a number or {count} numbers or (low, high) pairs for this image, got {ranges}."
        )
    limits = np.array([(-abs(e), abs(e)) if n == 0 else e for e, n in zip(entries, shapes)], dtype=np.float64)
    if (limits[:, 0] > limits[:, 1]).any():
        raise ValueError(f"{name} has a lower limit above its upper limit: {ranges}.")
    return limits


class RandLandmarkWarp(RandomizableTransform):
    r"""Move, rotate, scale, shear and elastically deform an image with its landmarks.

    All parts are composed into one :class:`~monai_landmarks.transforms.SplineWarp`. The image is resampled
    once, and the points go through the inverse of the sampling map, with an error below 1e-6 voxel. The image keeps its
    affine: its content moves in the world, and so do world points; index points move in the index. The content moves by

    .. math::
        u \to R H S u + t

    and then by the elastic field. Here :math:`u` is the position relative to the image center in mm along the axes of
    the image. The point is scaled first (S), then sheared (H), then rotated (R), as in MONAI's ``create_scale``,
    ``create_shear`` and ``create_rotate``. Because :math:`u` is in mm, a rotation is one in the world, even if voxels
    are not cubes.

    A range is a number ``r`` for a uniform draw from (-r, r), or a list with one entry per parameter, each a number or
    a (low, high) pair. For a single parameter (a 2-D rotation, ``scale_range``), a pair is (low, high). None switches a
    part off.

    Args:
        translate_range: translation along each image axis, in ``unit``.
        rotate_range: angles in radians, one in 2-D and three in 3-D. In 2-D, a positive angle turns the first axis
            towards the second.
        scale_range: isotropic scaling by 1 + a draw.
        axis_scale_range: scaling of each axis by 1 + a draw, multiplied with the isotropic one.
        shear_range: 2 shear factors in 2-D, 6 in 3-D.
        elastic_range: displacement of each control point of a cubic B-spline along each axis, in ``unit``.
        elastic_grid: number of control points per axis, one number or one per axis, at least 4. As in the published
            augmentation, this includes those beyond the edges of the image: 5 points are 2 intervals across the image.
        unit: ``"voxel"`` or ``"mm"``. Without an affine, a voxel is 1 mm.
        prob: probability of a warp.
        mode: interpolation, ``"bilinear"`` (also for 3-D), ``"nearest"`` or ``"bicubic"`` (2-D).
        padding_mode: values beyond the image, ``"zeros"``, ``"border"`` or ``"reflection"``. With reflection, a
            landmark may be visible twice.
        max_gradient: largest gradient of the elastic field relative to the affine part, at most 0.9. Larger fields
            are scaled down, so that they never fold; see :class:`~monai_landmarks.transforms.SplineWarp`.
        outside: ``"keep"``: keep points that leave the field of view, which ends half a voxel beyond the centers of the
            outer voxels. ``"missing"``: make them missing (NaN).

    Note:
        Published ranges (Payer et al., Medical Image Analysis 54, 2019, and code; all uniform):

        * hand radiographs 256x256: translate 10, rotate 0.2, elastic 20, grid 5, voxel;
        * cephalograms: translate 10, rotate 0.25, scale 0.2, axis_scale 0.2, elastic 10, grid 5, mm;
        * spine CT: translate 20, rotate 0.2, axis_scale 0.1, elastic 15, grid 5, mm.

    Example:
        >>> import torch
        >>> warp = RandLandmarkWarp(rotate_range=0.2, elastic_range=4, elastic_grid=5, unit="voxel", prob=1.0)
        >>> image, points = warp(torch.rand(1, 64, 48), torch.tensor([[20.0, 30.0], [float("nan"), float("nan")]]))
        >>> image.shape, points.shape
        (torch.Size([1, 64, 48]), torch.Size([2, 2]))
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        translate_range: Ranges = None,
        rotate_range: Ranges = None,
        scale_range: Ranges = None,
        axis_scale_range: Ranges = None,
        shear_range: Ranges = None,
        elastic_range: Ranges = None,
        elastic_grid: int | Sequence[int] = 5,
        unit: Literal["voxel", "mm"] = "voxel",
        prob: float = 0.1,
        mode: GridSampleMode | str = GridSampleMode.BILINEAR,
        padding_mode: GridSamplePadMode | str = GridSamplePadMode.ZEROS,
        max_gradient: float = 0.8,
        outside: Literal["keep", "missing"] = "keep",
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        self.translate_range = translate_range
        self.rotate_range = rotate_range
        self.scale_range = scale_range
        self.axis_scale_range = axis_scale_range
        self.shear_range = shear_range
        self.elastic_range = elastic_range
        self.elastic_grid = elastic_grid
        self.unit = look_up_option(unit, ("voxel", "mm"))
        self.mode = look_up_option(mode, GridSampleMode)
        self.padding_mode = look_up_option(padding_mode, GridSamplePadMode)
        self.max_gradient = max_gradient
        self.outside = look_up_option(outside, ("keep", "missing"))
        self.warp: SplineWarp | None = None

    def randomize(self, data: NdarrayOrTensor) -> None:
        """Draw whether to warp, and the warp for an image (C, n_1, ..., n_D) of this size and spacing."""
        super().randomize(None)
        self.warp = None
        if self._do_transform:
            self.warp = self._draw(tuple(int(n) for n in data.shape[1:]), data)

    def _draw(self, shape: tuple[int, ...], image: NdarrayOrTensor) -> SplineWarp:
        dims = len(shape)
        if dims not in (2, 3):
            raise ValueError(
                f"An image must be channel-first with 2 or 3 spatial axes, got shape {tuple(image.shape)}."
            )
        spacing = spacing_of(image, dims)
        step = spacing if self.unit == "voxel" else np.ones(dims)

        def draw(name: str, count: int, size: tuple[int, ...] = ()) -> np.ndarray:
            low, high = _limits(getattr(self, name), count, name).T
            return self.R.uniform(low, high, (*size, count))

        scale = (1 + draw("scale_range", 1)) * (1 + draw("axis_scale_range", dims))
        if (scale <= 0).any():
            raise ValueError(f"Scaling ranges must keep the factors 1 + scale above 0, but {scale.tolist()} was drawn.")
        rotate = np.asarray(create_rotate(dims, draw("rotate_range", 1 if dims == 2 else 3).tolist()))[:dims, :dims]
        shear = np.asarray(create_shear(dims, draw("shear_range", 2 if dims == 2 else 6).tolist()))[:dims, :dims]
        translation = draw("translate_range", dims) * step
        control = None
        if self.elastic_range is not None:
            control = draw("elastic_range", dims, ensure_tuple_rep(self.elastic_grid, dims)) * step
        return SplineWarp(shape, spacing, rotate @ shear * scale, translation, control, self.max_gradient)

    def __call__(
        self,
        img: NdarrayOrTensor,
        points: NdarrayOrTensor | None = None,
        randomize: bool = True,
        mode: GridSampleMode | str | None = None,
        padding_mode: GridSamplePadMode | str | None = None,
    ) -> tuple[NdarrayOrTensor, NdarrayOrTensor | None]:
        """Warp an image and its points.

        Args:
            img: channel-first image (C, n_1, ..., n_D), array or tensor on any device.
            points: (N, D) or (1, N, D), in the space of their affine (index without one). NaN rows stay NaN.
            randomize: draw a new warp. False: use the last one again.
            mode: interpolation of this image. Default: that of the constructor.
            padding_mode: padding of this image. Default: that of the constructor.

        Returns:
            The warped image and the moved points, of the array types and on the devices of the inputs. Floating types
            are kept, others become float32.

        Raises:
            ValueError: if a range does not fit the number of axes of the image, or for points or an image of a wrong
                shape.
        """
        if randomize:
            self.randomize(img)
        return self.warp_image(img, mode, padding_mode), None if points is None else self.warp_points(points, img)

    def warp_image(
        self,
        img: NdarrayOrTensor,
        mode: GridSampleMode | str | None = None,
        padding_mode: GridSamplePadMode | str | None = None,
    ) -> NdarrayOrTensor:
        """Resample an image with the last warp."""
        tensor = convert_to_tensor(img, track_meta=False)
        dtype = tensor.dtype if tensor.dtype.is_floating_point else torch.float32
        if self.warp is not None:
            if tuple(tensor.shape[1:]) != self.warp.spatial_shape:
                raise ValueError(
                    f"Images of one warp must have the same size, got {tuple(tensor.shape[1:])} after "
                    f"{self.warp.spatial_shape}."
                )
            # half precision is too coarse for sampling positions
            work = torch.float64 if dtype == torch.float64 else torch.float32
            tensor = torch.nn.functional.grid_sample(
                tensor[None].to(work),
                self.warp.grid(tensor.device, work),
                mode=str(look_up_option(mode or self.mode, GridSampleMode).value),
                padding_mode=str(look_up_option(padding_mode or self.padding_mode, GridSamplePadMode).value),
                align_corners=False,
            )[0]
        return convert_to_dst_type(tensor.to(dtype), img, dtype=dtype)[0]

    def warp_points(self, points: NdarrayOrTensor, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Move points (N, D) or (1, N, D) of an image with the last warp."""
        if self.warp is None and self.outside == "keep":
            return points
        index, give_back = points_as_index(points, img)
        if self.warp is not None:
            index = self.warp.inverse(index)
        if self.outside == "missing":
            # voxels are areas: the image extends half a voxel beyond the centers of its outer voxels
            index[((index < -0.5) | (index > np.asarray(img.shape[1:]) - 0.5)).any(1)] = np.nan
        return give_back(index)


class RandLandmarkWarpd(RandomizableTransform, MapTransform):
    """Dictionary-based version of :class:`RandLandmarkWarp`. All images and all points share one warp.

    All images must have the same size. The first one gives the spacing, and the index space of points without an
    affine.

    Args:
        keys: images.
        points_keys: landmarks, (1, N, D) or (N, D).
        mode: interpolation, one for all images or one per image, for example ``("bilinear", "nearest")`` for an image
            and a mask.
        padding_mode: padding, one for all images or one per image.
        allow_missing_keys: do not raise if an image or landmarks are missing.
        kwargs: see :class:`RandLandmarkWarp`.
    """

    backend = RandLandmarkWarp.backend

    def __init__(
        self,
        keys: KeysCollection,
        points_keys: KeysCollection,
        translate_range: Ranges = None,
        rotate_range: Ranges = None,
        scale_range: Ranges = None,
        axis_scale_range: Ranges = None,
        shear_range: Ranges = None,
        elastic_range: Ranges = None,
        elastic_grid: int | Sequence[int] = 5,
        unit: Literal["voxel", "mm"] = "voxel",
        prob: float = 0.1,
        mode: GridSampleMode | str | Sequence[str] = GridSampleMode.BILINEAR,
        padding_mode: GridSamplePadMode | str | Sequence[str] = GridSamplePadMode.ZEROS,
        max_gradient: float = 0.8,
        outside: Literal["keep", "missing"] = "keep",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.points_keys = ensure_tuple(points_keys)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.padding_mode = ensure_tuple_rep(padding_mode, len(self.keys))
        self.warp = RandLandmarkWarp(
            translate_range=translate_range,
            rotate_range=rotate_range,
            scale_range=scale_range,
            axis_scale_range=axis_scale_range,
            shear_range=shear_range,
            elastic_range=elastic_range,
            elastic_grid=elastic_grid,
            unit=unit,
            prob=1.0,
            max_gradient=max_gradient,
            outside=outside,
        )

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandLandmarkWarpd:
        """Set the random state, also that of the array transform."""
        super().set_random_state(seed, state)
        self.warp.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Warp the images and landmarks of an item.

        Args:
            data: item with channel-first images and landmarks.

        Returns:
            A copy of the item with warped images and moved landmarks.

        Raises:
            KeyError: if a key is missing and ``allow_missing_keys`` is False.
            ValueError: see :class:`RandLandmarkWarp`.
        """
        d = dict(data)
        reference = self.first_key(d)
        if reference == ():
            return d
        self.randomize(None)
        self.warp.warp = None
        first = d[reference]
        if self._do_transform:
            self.warp.randomize(first)
        for key in self.points_keys:
            if key in d:
                require_affines(d, key, reference)
                d[key] = self.warp.warp_points(d[key], first)
            elif not self.allow_missing_keys:
                raise KeyError(
                    f"RandLandmarkWarpd: the landmarks {key!r} are not in the item, which has {sorted(map(str, d))}."
                )
        for key, mode, padding_mode in self.key_iterator(d, self.mode, self.padding_mode):
            d[key] = self.warp.warp_image(d[key], mode, padding_mode)
        return d


RandLandmarkWarpD = RandLandmarkWarpDict = RandLandmarkWarpd
