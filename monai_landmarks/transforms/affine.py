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
"""Image affines for points: always 4x4, in RAS mm, with the true spacing."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys, convert_to_tensor, ensure_tuple_rep

from monai_landmarks.data.images.dicom_pixel_size import (
    SOP_CLASS,
    DicomPixelSize,
    pixel_scale,
    pixel_size_of,
    read_pixel_size,
    require_readable_size,
)
from monai_landmarks.data.images.image_files import has_spacing
from monai_landmarks.data.images.nifti_world import read_nifti_world
from monai_landmarks.data.images.picture_reader import AS_SHOWN
from monai_landmarks.data.images.pictures import is_picture, picture_orientation
from monai_landmarks.spaces import affine_4x4, in_xy_plane, picture_affine, slice_affine, spacing_of

__all__ = ["EnsureWorldAffine", "EnsureWorldAffineD", "EnsureWorldAffineDict", "EnsureWorldAffined"]

# key in the metadata of an image whose affine has been ensured
_SETTLED = "world_affine"


class EnsureWorldAffine(Transform):
    """Give an image the 4x4 affine to RAS mm that 3D Slicer and ITK use for its file.

    Use it right after ``LoadImage`` (channel first), and again after 2-D spatial transforms in lazy mode.

    * A 3x3 affine (2-D images of MONAI's ITKReader and NrrdReader, 2-D lazy mode) becomes 4x4: MONAI's point transforms
      fail on 3x3.
    * Photographic formats (PNG, JPEG, BMP, TIFF through MONAI's PILReader) have no world coordinates, and MONAI leaves
      the identity. Slicer and ITK put pixel (x, y) at LPS (s_x x, s_y y), so the affine becomes diag(-s_x, -s_y, 1, 1).
      Without this, a point that is saved for Slicer would be mirrored and lie outside the picture.
    * Pictures that viewers show turned (EXIF) must be loaded with :class:`~monai_landmarks.data.ImageFileReader`; one
      that was loaded as it is stored is refused.
    * DICOM images get the pixel size that the standard defines, see
      ``data.images.dicom_pixel_size``. ITK uses another attribute for radiographs.
    * NIfTI images get the affine that ITK reads, in mm, where it differs from that of nibabel, see
      ``data.images.nifti_world``.
    * ``spacing`` is for files without a spacing. These are photographic files, even with a print resolution (which ITK
      takes for the spacing of a TIFF), DICOM files that state no pixel size, and all files whose spacing is exactly 1,
      which is what readers assume for files without one.

    Args:
        spacing: distance of pixel centers in mm, one number or one per axis. None: that of the file, 1 mm if it has
            none.
        override: replace a different spacing of the file instead of raising an error.
        squeeze: make a 3-D image of a single slice, (C, n_1, n_2, 1), a 2-D image. ITK reads DICOM radiographs in this
            way.

    Example:
        >>> from monai.data import MetaTensor
        >>> image = MetaTensor(torch.zeros(1, 60, 40), meta={"space": None})  # as PILReader leaves it
        >>> EnsureWorldAffine(spacing=0.1)(image).affine.diagonal().tolist()
        [-0.1, -0.1, 1.0, 1.0]
    """

    def __init__(
        self, spacing: float | Sequence[float] | None = None, override: bool = False, squeeze: bool = False
    ) -> None:
        self.spacing = spacing
        self.override = override
        self.squeeze = squeeze

    def __call__(self, img: NdarrayOrTensor, spacing: float | Sequence[float] | None = None) -> MetaTensor:
        """Ensure the affine of an image.

        Args:
            img: channel-first image. One without an affine is treated as photographic.
            spacing: of this image. Default: that of the constructor.

        Returns:
            The image as a MetaTensor with a 4x4 affine in RAS mm. Its values are not copied.

        Raises:
            ValueError: if the file has a different spacing, a spacing is not positive or has the wrong length, or a
                squeezed slice does not lie in the x-y plane of the world, as 2-D points do; and if the image has lazy
                transforms that are not applied yet. A lazy ``Compose`` applies them before.
        """
        if isinstance(img, MetaTensor) and img.pending_operations:
            raise ValueError(
                f"The image has lazy transforms that are not applied yet ({len(img.pending_operations)}). Apply them first, "
                "with monai.transforms.ApplyPending."
            )
        image = _new_meta(img)
        if self.squeeze and image.ndim == 4 and image.shape[-1] == 1:
            image = _squeeze(image)
        dims = image.ndim - 1
        wanted = self._checked(spacing if spacing is not None else self.spacing, dims)
        # spacing is that of the file: it must not undo a resampling since the first time
        if not image.meta.get(_SETTLED):
            _require_as_shown(image)
        if image.meta.get(_SETTLED):
            _update(image)
        elif _is_photographic(image):
            _update(image, left=picture_affine(wanted))
        else:
            _follow_itk(image)
            self._set_spacing(image, wanted)
        image.meta[MetaKeys.SPACE] = SpaceKeys.RAS
        image.meta[_SETTLED] = True
        return image

    def _set_spacing(self, image: MetaTensor, wanted: np.ndarray | None) -> None:
        dims, name = image.ndim - 1, str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "an image"))
        _update(image)
        size = _dicom_size(image)
        if size is not None:
            require_readable_size(name)
            _update(image, right=pixel_scale(affine_4x4(image.affine), size.spacing or 1.0))
        known = spacing_of(image, dims)
        if wanted is None and is_picture(name):
            wanted = np.ones(dims)  # ITK takes the print resolution of a TIFF for its spacing
        if wanted is None or np.allclose(known, wanted, rtol=1e-3):
            return
        unknown = np.array_equal(known, np.ones(dims)) if size is None else size.spacing is None
        if not unknown and has_spacing(name) and not self.override:
            raise ValueError(
                f"{name}: the file's spacing is {known.round(6).tolist()} mm, but {wanted.tolist()} was given. "
                "Correct one of them, or use override=True to trust the one given."
            )
        scale = np.ones(4)
        scale[:dims] = wanted / known
        _update(image, right=np.diag(scale))

    @staticmethod
    def _checked(spacing: float | Sequence[float] | None, dims: int) -> np.ndarray | None:
        if spacing is None:
            return None
        result = np.asarray(spacing.tolist() if hasattr(spacing, "tolist") else spacing, dtype=np.float64)  # type: ignore
        result = np.repeat(result, dims) if result.ndim == 0 else result
        if result.shape != (dims,) or not (result > 0).all():
            raise ValueError(f"spacing must be a positive number or {dims} of them for this image, got {spacing}.")
        return result


def _update(image: MetaTensor, left: np.ndarray | None = None, right: np.ndarray | None = None) -> None:
    """Multiply the affine of an image, and that of its file, which MONAI's savers and inverses use."""

    def product(affine: NdarrayOrTensor) -> torch.Tensor:
        matrix = affine_4x4(affine)
        matrix = matrix if left is None else left @ matrix
        return torch.from_numpy(matrix if right is None else matrix @ right)

    original = image.meta.get(MetaKeys.ORIGINAL_AFFINE)
    if original is None and not image.applied_operations and not image.pending_operations:
        # PILReader does not set it, but the way back to the pixels of the file needs it
        original = image.affine.numpy()
    image.affine = product(image.affine)
    if original is not None:
        # in the array type that the reader chose
        image.meta[MetaKeys.ORIGINAL_AFFINE] = (
            product(original) if isinstance(original, torch.Tensor) else product(original).numpy()
        )


def _require_as_shown(image: MetaTensor) -> None:
    """Raise an error for a picture that ``PILReader`` has read as it is stored, but viewers show turned."""
    path = str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, ""))
    if image.meta.get(AS_SHOWN) or not is_picture(path) or not os.path.isfile(path):
        return
    orientation = picture_orientation(path)
    if orientation != 1:
        raise ValueError(
            f"{path}: viewers show this picture turned (EXIF orientation {orientation}), but it was loaded as it is stored."
            " Use LoadImaged with reader='monai_landmarks.data.ImageFileReader', or save the picture upright."
        )


def _follow_itk(image: MetaTensor) -> None:
    """Give a NIfTI image that nibabel has read the affine that ITK reads; see ``nifti_world``."""
    path = str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, ""))
    original = image.meta.get(MetaKeys.ORIGINAL_AFFINE)
    if "as_closest_canonical" not in image.meta or original is None or not os.path.isfile(path):
        return  # another reader, or no file
    wanted, stored = read_nifti_world(path).affine, affine_4x4(original)
    if np.allclose(wanted, stored, rtol=1e-6, atol=1e-6):
        return
    if np.array_equal(affine_4x4(image.affine), stored, equal_nan=True):
        image.affine = torch.from_numpy(wanted.copy())
        image.meta[MetaKeys.ORIGINAL_AFFINE] = wanted.copy()
    else:  # the reader has exchanged or turned axes
        _update(image, left=wanted @ np.linalg.inv(stored))


def _dicom_size(image: MetaTensor) -> DicomPixelSize | None:
    """Return the pixel size that a DICOM image states; None for other images."""
    size = read_pixel_size(str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "")))
    # without the file: ITK passes most attributes on
    return pixel_size_of(image.meta) if size is None and SOP_CLASS in image.meta else size


def _is_photographic(image: MetaTensor) -> bool:
    """Return whether PILReader read the image."""
    # it sets no ``space``; a copy of the MetaTensor sets one, but keeps the keys of PILReader
    return image.meta.get(MetaKeys.SPACE) is None or image.meta.keys() >= {"format", "mode", "width", "height"}


def _new_meta(img: NdarrayOrTensor) -> MetaTensor:
    """Return the same values with a new metadata dictionary, without ``space`` if the input has none."""
    if not isinstance(img, MetaTensor):
        image = MetaTensor(convert_to_tensor(img, track_meta=False))
        image.meta[MetaKeys.SPACE] = None
        return image
    image = MetaTensor(img.as_tensor(), meta=dict(img.meta), applied_operations=img.applied_operations)
    image.meta[MetaKeys.SPACE] = img.meta.get(MetaKeys.SPACE)  # the constructor fills it in
    return image


def _squeeze(image: MetaTensor) -> MetaTensor:
    """Return an image of a single slice as a 2-D image."""
    affine = affine_4x4(image.affine)
    if not in_xy_plane(affine):
        raise ValueError(
            "The slice does not lie in the x-y plane of the world (LPS or RAS), so that its points cannot be 2-D. "
            f"Its affine is {affine.round(4).tolist()}; keep it 3-D (squeeze=False)."
        )
    result = MetaTensor(image.as_tensor()[..., 0], meta=image.meta, applied_operations=image.applied_operations)
    result.affine = torch.from_numpy(slice_affine(affine))
    # MONAI batches only images whose metadata have the same shapes, and photographic images are 2-D from the start
    result.meta[MetaKeys.SPATIAL_SHAPE] = np.asarray(result.shape[1:])
    return result


class EnsureWorldAffined(MapTransform):
    """Dictionary-based version of :class:`EnsureWorldAffine`.

    Args:
        keys: images.
        spacing: see :class:`EnsureWorldAffine`, for items without ``spacing_key``.
        spacing_key: key of the spacing of an image in the item, for example from the datalist; one or one per image.
        override: see :class:`EnsureWorldAffine`.
        squeeze: see :class:`EnsureWorldAffine`.
        allow_missing_keys: do not raise if an image is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing: float | Sequence[float] | None = None,
        spacing_key: str | Sequence[str] = "spacing",
        override: bool = False,
        squeeze: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing_key = ensure_tuple_rep(spacing_key, len(self.keys))
        self.converter = EnsureWorldAffine(spacing, override, squeeze)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Ensure the affines of the images of an item.

        Args:
            data: item with channel-first images.

        Returns:
            A copy of the item with MetaTensor images whose affines are 4x4.

        Raises:
            ValueError: see :class:`EnsureWorldAffine`.
        """
        d = dict(data)
        for key, spacing_key in self.key_iterator(d, self.spacing_key):
            d[key] = self.converter(d[key], d.get(spacing_key))
        return d


EnsureWorldAffineD = EnsureWorldAffineDict = EnsureWorldAffined
