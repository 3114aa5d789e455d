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

"""A reader of MONAI that reads pictures as every viewer shows them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader, ITKReader, PILReader
from monai.transforms import LoadImage
from monai.utils import MetaKeys, ensure_tuple

from .dicom_pixel_size import require_readable_size
from .dicom_series import require_volume
from .image_headers import NRRD_SUFFIXES
from .pictures import is_left_to_itk, is_picture, open_picture

__all__ = ["AS_SHOWN", "ImageFileReader"]

AS_SHOWN = "as_shown"
"""Metadata key of pictures that :class:`ImageFileReader` has read."""


class ImageFileReader(ImageReader):
    """Read image files like MONAI's default readers, but pictures as every viewer shows them.

    Pictures are turned as their EXIF orientation states. Gray palettes become gray, and color palettes, CMYK and other
    color spaces become RGB. Everything else goes to the reader that MONAI chooses for the file, but NRRD to ITK if it
    is installed, because MONAI's ``NrrdReader`` puts images of other spaces than LPS and RAS at a wrong place. The
    metadata of pictures has the entry ``as_shown``.

    Example:
        >>> from monai.transforms import LoadImaged
        >>> load = LoadImaged("image", reader="monai_landmarks.data.ImageFileReader", ensure_channel_first=True)
    """

    def __init__(self) -> None:
        super().__init__()
        self._others: LoadImage | None = None

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return True: all files that MONAI reads are supported."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[str, ...]:
        """Return the paths of the files.

        ``LoadImage`` tries its other readers if this method fails, and they would read what this reader refuses.
        Therefore, :meth:`get_data` reads.
        """
        return tuple(os.fspath(path) for path in ensure_tuple(data))

    def get_data(self, img: Sequence[str]) -> tuple[np.ndarray, dict]:
        """Read the files.

        Args:
            img: paths from :meth:`read`. Several files become channels.

        Returns:
            Pixels and metadata, as MONAI's readers return them.

        Raises:
            ValueError: if there is no reader for a file, a picture cannot be shown as brightness, a TIFF is a volume, or
                the DICOM files of a folder do not form one volume.
        """
        if all(is_picture(path) and not is_left_to_itk(path) for path in img):
            array, meta = PILReader().get_data([open_picture(path) for path in img])
            return array, {**meta, AS_SHOWN: True}
        for path in img:
            require_readable_size(path)
            require_volume(path)
        if self._others is None:  # sets up all readers
            self._others = LoadImage()
        readers = list(reversed(self._others.readers))
        if os.fspath(img[0]).lower().endswith(NRRD_SUFFIXES):
            readers.sort(key=lambda reader: not isinstance(reader, ITKReader))
        for reader in readers:
            if reader.verify_suffix(img):
                array, meta = reader.get_data(reader.read(img))
                if is_picture(img[0]) and len(meta[MetaKeys.SPATIAL_SHAPE]) > 2:
                    raise ValueError(
                        f"{img[0]}: has {meta[MetaKeys.SPATIAL_SHAPE][2]} pages; a TIFF does not state the voxel size of a"
                        " volume. Save it as NIfTI or NRRD, which do."
                    )
                return array, meta
        raise ValueError(f"{img[0]}: no installed package reads this format; most formats require itk.")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_others": None}
