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

"""Digital Hand Atlas: facts, and the images in a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from monai_landmarks.data.datasets.public_dataset import (
    CopiedImage,
    PublicDataset,
    find_topmost,
    number_of_points,
    wrong_number,
)
from monai_landmarks.data.files.safe_files import read_lines
from monai_landmarks.data.images.image_folder import list_images
from monai_landmarks.data.images.name_index import NameIndex
from monai_landmarks.data.landmarks.landmark_io import read_landmark_table

__all__ = ["HAND", "copied_images"]

HAND = PublicDataset(
    name="hand",
    title="Digital Hand Atlas",
    images="1400 left-hand radiographs, of which 910 are annotated and 895 are in the folds",
    landmarks=37,
    licence="images offered for research by their owners; landmarks in a repository under GPL-3.0",
    citation=(
        "Gertych A et al., Computerized Medical Imaging and Graphics 31(4-5), 2007, PMC1978493 (the images)",
        "Payer C et al., Medical Image Analysis 54, 2019, doi:10.1016/j.media.2019.03.007 (landmarks and folds)",
    ),
    sources=(
        "https://ipilab.org/BAAweb/",
        "https://github.com/christianpayer/MedicalDataAugmentationTool-HeatmapRegression (hand_xray)",
    ),
    layout="all.csv and cv/set{1,2,3}/{train,test}.txt of the repository, and the images, named by their numbers",
    read_by="format payer of all.csv",
    parts={
        "all.csv": (895, 910),
        "set1 train": (597,),
        "set1 test": (298,),
        "set2 train": (597,),
        "set2 test": (298,),
        "set3 train": (596,),
        "set3 test": (299,),
    },
    remarks="No image states its pixel size. By convention landmarks 1 and 5 of each image, counted from 0, are 50 mm apart;"
    " some papers use 0 and 4, with which the same errors appear smaller.",
)


def copied_images(root: Path) -> Iterator[CopiedImage]:
    """Yield the images of a copy of the benchmark."""
    table = find_topmost(root, "all.csv")
    if table is None:
        yield CopiedImage("all.csv", fault=f"{root}: no file all.csv in it.")
        return
    try:
        sets = read_landmark_table(table, format="payer")
    except ValueError as error:
        yield CopiedImage("all.csv", fault=str(error))
        return
    images = NameIndex(map(str, list_images(root)))
    absent = {name for name in sets if not images.find(name)}
    for name, landmarks in sets.items():
        yield CopiedImage(
            "all.csv", name not in absent, number_of_points(landmarks), wrong_number(f"{table}: {name}", landmarks, 37)
        )
    lists = {path.parts[-2:]: path for path in sorted(root.rglob("set[123]/*.txt"))}
    for fold in ("set1", "set2", "set3"):
        for name in ("train", "test"):
            part, path = f"{fold} {name}", lists.get((fold, f"{name}.txt"))
            if path is None:
                yield CopiedImage(part, fault=f"{root}: no list {fold}/{name}.txt in it.")
                continue
            for number in filter(None, map(str.strip, read_lines(path))):
                fault = "" if number in sets else f"{path}: image {number!r} is not in {table.name}."
                yield CopiedImage(
                    part, number not in absent, number_of_points(sets[number]) if number in sets else None, fault
                )
