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

"""AASCE 2019 spine radiographs: facts, and the images in a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from monai_landmarks.data.datasets.public_dataset import CopiedImage, PublicDataset

from .datalist import read_aasce_part

__all__ = ["AASCE", "copied_images"]

AASCE = PublicDataset(
    name="aasce",
    title="AASCE 2019 spine radiographs (BoostNet, SpineWeb dataset 16)",
    images="609 frontal spine radiographs of unknown pixel size, each with three Cobb angles",
    landmarks=68,
    licence="released for research by its owners; no licence is known that covers other uses",
    citation=(
        "Wu H et al., MICCAI 2017, doi:10.1007/978-3-319-66182-7_15",
        "Wang L et al., Medical Image Analysis 72, 2021, doi:10.1016/j.media.2021.102115",
    ),
    sources=("https://aasce19.github.io/",),
    layout="boostnet_labeldata/data/{training,test}/*.jpg and labels/{training,test}/{filenames,landmarks,angles}.csv",
    read_by="aasce_datalist; format aasce of landmarks.csv",
    parts={"training": (481,), "testing": (128,)},
    remarks="Some annotations cannot be correct; aasce_datalist corrects them or leaves them out, and logs it.",
)


def copied_images(root: Path) -> Iterator[CopiedImage]:
    """Yield the images of a copy of the benchmark."""
    for part in AASCE.parts:
        try:
            for file, fault in read_aasce_part(root, part).items():
                note = f"{part}: {file}: {fault}; aasce_datalist leaves it out." if fault else ""
                yield CopiedImage(part, True, AASCE.landmarks, note=note)
        except ValueError as error:
            yield CopiedImage(part, fault=str(error))
