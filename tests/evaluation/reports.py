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

"""A datalist with images and predictions of known noise, and a report read without a browser."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import LandmarkSet, datalist_item, save_datalist, write_landmarks
from monai_landmarks.visualize import report_page

NAN = float("nan")
NAMES = ("<script>alert(1)</script>", 'tip" onload="x', "$\\frac{1", "plain & simple")
IMAGES = {2: "<img src=x> {}.png", 3: "case $_{}.nii.gz"}
SIZES = {2: (40, 30), 3: (14, 12, 16)}
SPACING = 0.5
FEW = {"resamples": 30}


def write_image(path, dims, random):
    pixels = random.randint(0, 255, SIZES[dims]).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if dims == 2:
        Image.fromarray(pixels.T).save(path)
    else:
        nib.save(nib.Nifti1Image(pixels, np.diag([-SPACING, -SPACING, 2 * SPACING, 1])), path)


def make(folder, dims, count=8, radius=1.0, sure=True, stated=True):
    """A datalist with images, and predictions whose noise has the covariance that they state; the first misses a landmark."""
    random = np.random.RandomState(dims)
    items = []
    for i in range(count):
        path = folder / "images" / IMAGES[dims].format(i)
        write_image(path, dims, random)
        index = random.uniform(0.2, 0.8, (4, dims)) * SIZES[dims]
        true = LandmarkSet(NAMES, index, "index")
        affine = np.diag([-SPACING, -SPACING, 1.0 if dims == 2 else 2 * SPACING, 1.0])
        world = true.to_world(affine)
        points = world.points + random.normal(0, 0.8, index.shape)
        if i == 0:
            points[3] = NAN
        unit = np.broadcast_to(np.eye(dims), (4, dims, dims))
        found = LandmarkSet(
            NAMES,
            points,
            "RAS",
            covariances=0.64 * unit if sure else None,
            regions=radius**2 * unit if stated else None,
            coverage=0.9 if stated else None,
        )
        write_landmarks(folder / "pred" / path.name.replace(".png", ".mrk.json").replace(".nii.gz", ".mrk.json"), found)
        items.append(datalist_item(f"images/{path.name}", true, SPACING if dims == 2 else None))
    definition = {"names": NAMES, "pairs": [], "coordinate_system": "index"}
    save_datalist(folder / "datalist.json", {"landmarks": definition, "training": [], "validation": items})
    return folder / "pred", folder / "datalist.json"


def skip_painting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make figures without painting them, which takes most of the time. The tests with a browser look at real ones."""

    def unpainted(figure, alt, caption, format, kind):
        return f'<figure><img src="data:image/{format}" alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>'

    monkeypatch.setattr(report_page, "_picture", unpainted)


class Content(HTMLParser):
    """What is on a page, without a browser."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.pictures, self.words = [], [], []
        self._hidden = False
        self.feed(path.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._hidden = tag == "style"
        if tag == "img":
            self.pictures.append(dict(attrs))

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)
