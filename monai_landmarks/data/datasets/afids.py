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

"""AFIDs: facts, and the images in a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from monai_landmarks.data.datasets.public_dataset import CopiedImage, PublicDataset, read_copied_image

__all__ = ["AFIDS", "copied_images"]

AFIDS = PublicDataset(
    name="afids",
    title="AFIDs, anatomical fiducials of the brain",
    images="132 T1-weighted MR volumes in four collections",
    landmarks=32,
    licence="landmarks CC BY 4.0; images of LHSCPD and SNSX CC BY 4.0, those of HCP and OASIS under their data use agreements",
    citation=(
        "Taha A et al., Scientific Data, 2023, doi:10.1038/s41597-023-02330-9",
        "Lau JC et al., Human Brain Mapping 40, 2019, doi:10.1002/hbm.24693",
    ),
    sources=("https://github.com/afids/afids-data",),
    layout="data/datasets/<collection>/derivatives/afids_groundtruth/sub-*/anat/*.fcsv beside <collection>/sub-*/anat/*.nii.gz",
    read_by="format afids of the .fcsv files",
    parts={"AFIDs-HCP": (30,), "AFIDs-OASIS": (30,), "LHSCPD": (40,), "SNSX": (32,)},
    remarks="Images are distributed with datalad; an image that was not fetched is a broken link.",
)


def copied_images(root: Path) -> Iterator[CopiedImage]:
    """Yield the images of a copy of the benchmark."""
    for truth in sorted(root.rglob("afids_groundtruth")):
        collection = truth.parents[1]
        for path in sorted(truth.glob("sub-*/anat/*.fcsv")):
            subject = path.parents[1].name
            images = sorted((collection / subject / "anat").glob("*.nii*"))
            case = read_copied_image(collection.name, path, next(iter(images), None), "afids", 32)
            short = case.landmarks is not None and case.landmarks < 32
            yield case._replace(note=f"{path}: {case.landmarks} of 32 landmarks." if short else "")
