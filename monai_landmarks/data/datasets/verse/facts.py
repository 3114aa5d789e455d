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

"""VerSe: facts, and the images in a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from monai_landmarks.data.datasets.public_dataset import CopiedImage, PublicDataset, read_copied_image

from .datalist import verse_files

__all__ = ["VERSE", "copied_images"]

VERSE = PublicDataset(
    name="verse",
    title="VerSe, vertebrae in CT",
    images="374 CT volumes of 355 patients, with the centroids of the vertebrae that are fully visible",
    landmarks=28,
    licence="CC BY-SA 4.0; the volumes sub-gl* are said to be under CC BY-NC-ND",
    citation=(
        "Sekuboyina A et al., Medical Image Analysis 73, 2021, doi:10.1016/j.media.2021.102166",
        "Löffler M et al., Radiology: Artificial Intelligence, 2020, doi:10.1148/ryai.2020190138",
        "Liebl H, Schinz D et al., Scientific Data, 2021, doi:10.1038/s41597-021-01060-0",
    ),
    sources=("https://github.com/anjany/verse", "https://osf.io/nqjyw/", "https://osf.io/t98fz/"),
    layout="dataset-<part>/rawdata/sub-*/*_ct.nii.gz and dataset-<part>/derivatives/sub-*/*_ctd.json, the structure by subject",
    read_by="verse_datalist; format verse of the centroids, with their image; the challenge's own files (iso-ctd) are refused",
    parts={
        "verse19training": (80,),
        "verse19validation": (40,),
        "verse19test": (40,),
        "verse20training": (61,),
        "verse20validation": (73, 80),
        "verse20test": (73, 80),
    },
    remarks="VerSe'20 by subject leaves out what is in VerSe'19. Of its last two parts one has 73 volumes and the other 80.",
)


def copied_images(root: Path) -> Iterator[CopiedImage]:
    """Yield the images of a copy of the benchmark."""
    for part, image, centroids in verse_files(root):
        if centroids is None:
            derivatives = f"derivatives/{image.parent.name}/{image.name.partition('_ct.nii')[0]}"
            yield CopiedImage(part, True, fault=f"{image}: no centroids {derivatives}_seg-*_ctd.json.")
        else:
            yield read_copied_image(part, centroids, image, "verse")
