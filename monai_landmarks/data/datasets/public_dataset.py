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

"""What is stated about a public benchmark, and what is found of it in a copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from monai_landmarks.data.images.image_files import read_header
from monai_landmarks.data.landmarks.landmark_io import read_landmarks
from monai_landmarks.data.landmarks.landmark_set import LandmarkSet

__all__ = ["CopiedImage", "PublicDataset", "number_of_points", "read_copied_image", "wrong_number"]


@dataclass(frozen=True)
class PublicDataset:
    """A public benchmark.

    Args:
        name: short, such as ``isbi2015``.
        title: what it is called.
        images: what the images are, and how many.
        landmarks: in each image; the largest number where it differs.
        licence: as its owners state it.
        citation: what to cite.
        sources: where to get images and landmarks.
        layout: of the official files.
        read_by: what in this package reads them.
        parts: images in each official part; several numbers where it may be either.
        remarks: what one has to know.
    """

    name: str
    title: str
    images: str
    landmarks: int
    licence: str
    citation: tuple[str, ...]
    sources: tuple[str, ...]
    layout: str
    read_by: str
    parts: dict[str, tuple[int, ...]]
    remarks: str = ""


class CopiedImage(NamedTuple):
    """An image of a part, or a fault in its place; landmarks are counted where they can be read."""

    part: str
    image: bool = False
    landmarks: int | None = None
    fault: str = ""
    note: str = ""


def read_copied_image(part: str, path: Path, image: Path | None, format: str, names: int | None = None) -> CopiedImage:
    """A case whose landmarks have a file of their own."""
    there = image is not None and image.is_file()
    try:
        if image is not None and not there:
            raise ValueError(f"{image}: no such image, though there are landmarks {path.name}.")
        if image is None:
            raise ValueError(f"{path}: there is no image of these landmarks.")
        if ".nii" in image.name:
            read_header(image)
        landmarks = read_landmarks(path, format=format, image=image)
    except (OSError, ValueError) as error:
        return CopiedImage(part, there, fault=str(error))
    return CopiedImage(part, True, number_of_points(landmarks), wrong_number(str(path), landmarks, names))


def number_of_points(landmarks: LandmarkSet) -> int:
    return int((~landmarks.missing).sum())


def wrong_number(where: str, landmarks: LandmarkSet, names: int | None) -> str:
    if names is None or len(landmarks) == names:
        return ""
    return f"{where}: {len(landmarks)} landmarks; expected {names}."
