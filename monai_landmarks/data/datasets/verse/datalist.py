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
"""Datalist of VerSe by subject: 374 CT volumes, the centroids of their vertebrae, and the parts of the challenges.

References:
    Sekuboyina et al., VerSe: A Vertebrae labelling and segmentation benchmark for multi-detector CT images, Medical
    Image Analysis 73 (2021), https://doi.org/10.1016/j.media.2021.102166; https://github.com/anjany/verse
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from monai_landmarks.data.datalists.datalist import LabeledImage, assemble_datalist
from monai_landmarks.data.landmarks.landmark_io import read_landmarks

from .centroids import VERSE_LANDMARKS

__all__ = ["VERSE_CHAIN", "VERSE_LANDMARKS", "verse_datalist", "verse_files"]

# C1 to L6, labels 1 to 25, from top to bottom; T13, which few people have, lies between them and is left out
VERSE_CHAIN = VERSE_LANDMARKS[:25]

# names of VerSe'20 in another distribution
_OTHER_NAMES = {"01training": "verse20training", "02validation": "verse20validation", "03test": "verse20test"}

# section of the datalist: end of the folder's name, after "dataset-verse19" or "dataset-verse20"
_SECTIONS = {"training": "training", "validation": "validation", "testing": "test"}


def verse_files(root_dir: str | os.PathLike) -> Iterator[tuple[str, Path, Path | None]]:
    """Find the images of the structure by subject, ``dataset-<part>/rawdata/sub-*/*_ct.nii.gz``.

    Args:
        root_dir: any folder above the parts.

    Yields:
        part, for example ``"verse19training"``; image; centroids in ``derivatives``, None if there are none.
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
    editions: Sequence[Literal["verse19", "verse20"]] = ("verse19",),
    names: Sequence[str] = VERSE_CHAIN,
    check: bool = False,
) -> dict[str, Any]:
    """Make the datalist of VerSe from its official folders by subject, with the parts of the challenge as sections.

    Points are voxel index of each image. A vertebra without centroid is missing (None): it is not in the image, or only
    partly, because VerSe annotates only vertebrae that are fully visible. ``SCNLoss(missing="chain")`` is made for such
    labels. Vertebrae that are not among ``names`` are left out.

    Args:
        root_dir: any folder above ``dataset-verse19training`` and the other parts.
        output: file to write. Image paths become relative to it. Without it they are absolute.
        editions: ``"verse19"``, ``"verse20"`` or both. VerSe'20 by subject leaves out the images of VerSe'19.
        names: names of the vertebrae in the order wanted. Default: C1 to L6, without T13, sacrum and coccyx.
        check: whether to read all images and raise an error if the datalist has faults.

    Returns:
        the datalist with those of the sections ``training``, ``validation`` and ``testing`` that have images.

    Raises:
        ValueError: if there is no training image, an image has no centroids, a file is malformed, or a name is no
            vertebra.
        DatalistError: if the check finds faults.

    Example:
        >>> verse_datalist("verse", "verse/datalist.json", editions=("verse19", "verse20"))  # doctest: +SKIP
    """
    unknown = [name for name in names if name not in VERSE_LANDMARKS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a vertebra of VerSe; they are {', '.join(VERSE_LANDMARKS)}.")
    sections = {f"{edition}{part}": section for section, part in _SECTIONS.items() for edition in editions}
    found: dict[str, list[LabeledImage]] = {section: [] for section in _SECTIONS}
    for part, image, centroids in verse_files(root_dir):
        if part not in sections:
            continue
        if centroids is None:
            raise ValueError(f"{image}: no centroids of it in derivatives/{image.parent.name}.")
        landmarks = read_landmarks(centroids, format="verse", image=image)
        found[sections[part]].append(LabeledImage(image, landmarks))
    if not found["training"]:
        wanted = " or ".join(f"dataset-{edition}training" for edition in editions)
        raise ValueError(f"{root_dir}: no image in {wanted}/rawdata/sub-*/*_ct.nii.gz below it.")
    given = {section: images for section, images in found.items() if images}
    return assemble_datalist("VerSe", names, given, output, check=check)
