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

"""ISBI 2015 cephalograms: facts, and the images in a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from monai_landmarks.data.datasets.public_dataset import CopiedImage, PublicDataset, number_of_points

from .datalist import read_isbi2015_part

__all__ = ["ISBI2015", "copied_images"]

ISBI2015 = PublicDataset(
    name="isbi2015",
    title="ISBI 2015 cephalograms",
    images="400 lateral cephalograms, 1935 x 2400 pixels of 0.1 mm, each annotated by two doctors",
    landmarks=19,
    licence="none stated; its authors make it available to the research community",
    citation=(
        "Wang CW et al., IEEE Transactions on Medical Imaging 34(9), 2015, doi:10.1109/TMI.2015.2412951",
        "Wang CW et al., Medical Image Analysis 31, 2016, doi:10.1016/j.media.2016.02.004",
        "Lindner C et al., Scientific Reports 6, 2016, doi:10.1038/srep33581",
    ),
    sources=("https://figshare.com/s/37ec464af8e81ae6ebbf",),
    layout="RawImage/{TrainingData,Test1Data,Test2Data}/*.bmp and AnnotationsByMD/{400_senior,400_junior}/*.txt",
    read_by="isbi2015_datalist; format isbi2015 of the annotations",
    parts={"training": (150,), "testing": (150,), "test2": (100,)},
    remarks="Except in test2 the doctors follow different definitions of the soft tissue pogonion; state whose points are the"
    " ground truth.",
)


def copied_images(root: Path) -> Iterator[CopiedImage]:
    """Yield the images of a copy of the benchmark."""
    for part in ISBI2015.parts:
        try:
            for landmarks in read_isbi2015_part(root, part).values():
                yield CopiedImage(part, True, number_of_points(landmarks))
        except ValueError as error:
            yield CopiedImage(part, fault=str(error))
