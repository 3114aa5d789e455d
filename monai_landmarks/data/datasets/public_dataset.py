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

"""Classes of public benchmarks: the known facts, and the images found in a copy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from monai_landmarks.data.images.image_files import read_header
from monai_landmarks.data.landmarks.landmark_io import read_landmarks
from monai_landmarks.data.landmarks.landmark_set import LandmarkSet

__all__ = ["CopiedImage", "PublicDataset", "find_topmost", "number_of_points", "read_copied_image", "wrong_number"]


@dataclass(frozen=True)
class PublicDataset:
    """A public benchmark.

    Args:
        name: short name, for example ``isbi2015``.
        title: full name.
        images: kind and number of images.
        landmarks: number of landmarks per image; the largest number if it varies.
        licence: licence as the owners state it.
        citation: publications to cite.
        sources: where to get images and landmarks.
        layout: layout of the official files.
        read_by: what in this package reads them.
        parts: number of images in each official part; several numbers if more than one is official.
        remarks: what a user should know.
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
    """An image of a part, or a fault instead; landmarks are counted if they can be read."""

    part: str
    image: bool = False
    landmarks: int | None = None
    fault: str = ""
    note: str = ""


def find_topmost(root: Path, pattern: str) -> Path | None:
    """Return the file or folder below ``root`` that matches the pattern, closest to ``root``; None if there is none."""
    return min(root.rglob(pattern), key=lambda path: len(path.parts), default=None)


def read_copied_image(part: str, path: Path, image: Path | None, format: str, names: int | None = None) -> CopiedImage:
    """Read an image whose landmarks have a file of their own."""
    there = image is not None and image.is_file()
    try:
        if image is not None and not there:
            raise ValueError(f"{image}: no such image, but there are landmarks {path.name}.")
        if image is None:
            raise ValueError(f"{path}: there is no image of these landmarks.")
        if ".nii" in image.name:
            read_header(image)
        landmarks = read_landmarks(path, format=format, image=image)
    except (OSError, ValueError) as error:
        return CopiedImage(part, there, fault=str(error))
    return CopiedImage(part, True, number_of_points(landmarks), wrong_number(str(path), landmarks, names))


def number_of_points(landmarks: LandmarkSet) -> int:
    """Count the landmarks that are not missing."""
    return int((~landmarks.missing).sum())


def wrong_number(where: str, landmarks: LandmarkSet, names: int | None) -> str:
    """Return a fault if the number of names differs from the expected one; otherwise an empty string."""
    if names is None or len(landmarks) == names:
        return ""
    return f"{where}: {len(landmarks)} landmarks; expected {names}."
