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

"""Mandibular molar landmarks: facts, and the images in a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from monai_landmarks.data.datasets.public_dataset import CopiedImage, PublicDataset, read_copied_image

__all__ = ["MML", "copied_images"]

MML = PublicDataset(
    name="mml",
    title="Mandibular molar landmarks",
    images="658 CT volumes by their parts; the authors also state 648",
    landmarks=14,
    licence="none stated for the data",
    citation=("Toward Robust Landmark Detection with Anchor Ball Regression Model on CT Volumes, Sichuan University",),
    sources=("https://github.com/ithet1007/mmld_code",),
    layout="mmld_dataset/{train,val,test}/*_volume.nrrd, *_label.npy, *_spacing.npy",
    read_by="format mml of the *_label.npy files; volumes require the extra itk",
    parts={"train": (458,), "val": (100,), "test": (100,)},
    remarks="A molar may be absent, and then its landmarks. The spacing is in *_spacing.npy.",
)


def copied_images(root: Path) -> Iterator[CopiedImage]:
    """Yield the images of a copy of the benchmark."""
    for image in sorted(root.rglob("*_volume.nrrd")):
        path = image.with_name(image.name.replace("_volume.nrrd", "_label.npy"))
        if not path.is_file():
            yield CopiedImage(image.parent.name, True, fault=f"{image}: no landmarks {path.name} in the same folder.")
            continue
        yield read_copied_image(image.parent.name, path, image, "mml", 14)
        spacing = path.with_name(path.name.replace("_label", "_spacing"))
        if not spacing.is_file():
            yield CopiedImage(image.parent.name, fault=f"{image}: no {spacing.name} in the same folder.")
