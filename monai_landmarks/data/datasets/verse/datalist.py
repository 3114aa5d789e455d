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
"""The CT volumes of VerSe by subject: 374 images, the centroids of their vertebrae, and the parts of the challenges.

Sekuboyina et al., VerSe: A Vertebrae labelling and segmentation benchmark for multi-detector CT images, Medical Image
Analysis 73 (2021), https://doi.org/10.1016/j.media.2021.102166; https://github.com/anjany/verse.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data.datalists.datalist import datalist_item, save_datalist
from monai_landmarks.data.datalists.datalist_format import check_datalist
from monai_landmarks.data.images.image_files import relative_path
from monai_landmarks.data.landmarks.landmark_io import read_landmarks
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .centroids import VERSE_LANDMARKS

__all__ = ["VERSE_CHAIN", "VERSE_LANDMARKS", "verse_datalist", "verse_files"]

# C1 to L6, labels 1 to 25: the vertebrae in their order, without those that only some people have between (T13)
VERSE_CHAIN = VERSE_LANDMARKS[:25]

# what VerSe'20 is called where it is got in another way
_OTHER_NAMES = {"01training": "verse20training", "02validation": "verse20validation", "03test": "verse20test"}

# of a challenge's folders: what "dataset-verse19" and "dataset-" go on with
_SECTIONS = {"training": "training", "validation": "validation", "testing": "test"}


def verse_files(root_dir: str | os.PathLike) -> Iterator[tuple[str, Path, Path | None]]:
    """
    The images below a folder in the structure by subject, ``dataset-<part>/rawdata/sub-*/*_ct.nii.gz``.

    Args:
        root_dir: any folder above them.

    Yields:
        part, such as ``"verse19training"``; image; centroids in ``derivatives``, None where there are none.
    """
    for raw in sorted(Path(root_dir).rglob("rawdata")):
        folder = raw.parent.name.removeprefix("dataset-")
        part = _OTHER_NAMES.get(folder, folder)
        for image in sorted(raw.glob("*/*_ct.nii*")):
            stem = image.name.partition("_ct.nii")[0]
            derivatives = raw.with_name("derivatives") / image.parent.name
            yield part, image, next(iter(sorted(derivatives.glob(f"{stem}_seg-*_ctd.json"))), None)


def verse_datalist(
    root_dir: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    editions: Sequence[str] = ("verse19",),
    names: Sequence[str] = VERSE_CHAIN,
    check: bool = False,
) -> dict[str, Any]:
    """Make the datalist of VerSe from its official folders by subject, with the parts of the challenge as sections.

    Points are voxel index of each image. A vertebra without a centroid is missing (None): it is not in the image, or not
    wholly, since only vertebrae that are fully seen have one. ``SCNLoss(missing="chain")`` is for that. Vertebrae that are
    not among ``names`` are left out.

    Args:
        root_dir: any folder above ``dataset-verse19training`` and so on.
        output: where to write the datalist; image paths become relative to it. Without it they are absolute.
        editions: ``"verse19"``, ``"verse20"`` or both. VerSe'20 by subject leaves out what is in VerSe'19.
        names: of the vertebrae, in the order wanted. Default: C1 to L6, without T13, sacrum and coccyx.
        check: read all images and check the datalist.

    Returns:
        the datalist, with those of the sections ``training``, ``validation`` and ``testing`` that have images.

    Raises:
        ValueError: if there is no training image, an image has no centroids, a file is malformed, or a name is no vertebra.
        DatalistError: if the check finds faults.

    Example:
        >>> verse_datalist("verse", "verse/datalist.json", editions=("verse19", "verse20"))  # doctest: +SKIP
    """
    unknown = [name for name in names if name not in VERSE_LANDMARKS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no vertebra of VerSe; they are {', '.join(VERSE_LANDMARKS)}.")
    base = None if output is None else Path(output).parent
    sections = {f"{edition}{part}": section for section, part in _SECTIONS.items() for edition in editions}
    found: dict[str, list[dict[str, Any]]] = {section: [] for section in _SECTIONS}
    for part, image, centroids in verse_files(root_dir):
        if part not in sections:
            continue
        if centroids is None:
            raise ValueError(f"{image}: no centroids of it in derivatives/{image.parent.name}.")
        landmarks = _all(read_landmarks(centroids, format="verse", image=image), names)
        found[sections[part]].append(datalist_item(relative_path(image, base), landmarks))
    if not found["training"]:
        wanted = " or ".join(f"dataset-{edition}training" for edition in editions)
        raise ValueError(f"{root_dir}: no image in {wanted}/rawdata/sub-*/*_ct.nii.gz below it.")
    datalist: dict[str, Any] = {
        "name": "VerSe",
        "landmarks": {"names": list(names), "pairs": [], "coordinate_system": "index"},
        **{section: items for section, items in found.items() if items},
    }
    if check:
        check_datalist(datalist, base)
    if output is not None:
        save_datalist(output, datalist)
    return datalist


def _all(landmarks: LandmarkSet, names: Sequence[str]) -> LandmarkSet:
    """In the order of the names; those that the image does not have are missing."""
    row = {name: point for name, point in zip(landmarks.names, landmarks.points)}
    points = np.array([row.get(name, [np.nan] * 3) for name in names])
    return LandmarkSet(tuple(names), points, CoordinateSystem.INDEX)
