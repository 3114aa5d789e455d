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
"""What a datalist's files say, on files made for it."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_landmarks.planning import summarize_datalist


def save_volume(path, size, axes, spacing, values=(0, 500)):
    """A volume whose voxel axes run along the given world axes, such as ``"PIR"``: posterior, inferior, right."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (axis, step) in enumerate(zip(axes, spacing)):
        row, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}[axis]
        affine[row, column] = sign * step
    affine[:3, 3] = (5, -7, 11)
    pixels = np.random.default_rng(0).integers(*values, size).astype(np.int16)
    nib.save(nib.Nifti1Image(pixels, affine), path)
    return affine


def write(path, names, sections, system="index", pairs=()):
    definition = {"names": names, "pairs": [list(pair) for pair in pairs], "coordinate_system": system}
    path.write_text(json.dumps({"landmarks": definition, **sections}))
    return path


def volumes(folder, values=(0, 500)):
    """Three volumes of other axes, with two landmarks 30 mm apart to the right and 20 to superior."""
    items = []
    for i, (axes, size, spacing) in enumerate(
        [("RAS", (10, 20, 30), (3, 2, 1)), ("PIR", (20, 30, 10), (2, 1, 3)), ("SLA", (30, 10, 20), (1, 3, 2))]
    ):
        affine = save_volume(folder / f"{i}.nii.gz", size, axes, spacing, values)
        world = np.array([[5.0, 0, 20], [35.0, 0, 40]])
        index = np.linalg.solve(affine[:3, :3], (world - affine[:3, 3]).T).T
        items.append({"image": f"{i}.nii.gz", "label": [*index.tolist(), [None] * 3]})
    return write(folder / "datalist.json", ["a", "b", "c"], {"training": items[:2], "validation": items[2:]})


def test_volumes_are_turned(tmp_path):
    summary = summarize_datalist(volumes(tmp_path))
    assert summary.names == ("a", "b", "c") and summary.counts == (2, 1, 0) and summary.spatial_dims == 3
    assert summary.sizes == ((10, 20, 30),) * 3
    np.testing.assert_allclose(summary.spacings, [(3, 2, 1)] * 3)
    np.testing.assert_allclose(summary.point_extent, (30, 0, 20), atol=1e-6)
    assert (summary.modality, summary.unit, summary.finest_spacing) == ("MR", "mm", 1.0)
    assert summary.image_folder == str(tmp_path) and summary.picture_spacing is None


def test_air_tells_a_ct(tmp_path):
    assert summarize_datalist(volumes(tmp_path, (-1000, 1500))).modality == "CT"


@pytest.mark.parametrize("spacing, unit", [((0.2, 0.3), "mm"), ((1, 1), "px")])
def test_pictures(tmp_path, spacing, unit):
    for i in range(3):
        Image.fromarray(np.zeros((30 + i, 20), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.mrk.json").write_text(
        json.dumps(
            {
                "markups": [
                    {
                        "type": "Fiducial",
                        "coordinateSystem": "LPS",
                        "controlPoints": [
                            {"label": "left", "position": [1.0, 2.0, 0.0]},
                            {"label": "right", "position": [3.0, 7.0, 0.0]},
                        ],
                    }
                ]
            }
        )
    )
    labels = [[[1, 2], [9, 4]], [[None, None], [3, 3]], "2.mrk.json"]
    items = [{"image": f"{i}.png", "label": label, "spacing": spacing} for i, label in enumerate(labels)]
    path = tmp_path / "d.json"
    write(
        path,
        ["left", "right"],
        {"training": items[:1], "validation": items[1:], "testing": []},
        pairs=[("left", "right")],
    )
    summary = summarize_datalist(path)
    assert summary.sizes == ((20, 30), (20, 31), (20, 32)) and summary.spacings == (spacing,) * 3
    assert (summary.modality, summary.unit, summary.pairs) == ("X-ray", unit, (("left", "right"),))
    np.testing.assert_allclose(summary.point_extent, (max(8 * spacing[0], 2), max(2 * spacing[1], 5)))
    assert summary.picture_spacing == spacing


def test_a_training_needs_images_for_both(tmp_path):
    for sections in ({"training": []}, {"training": [{"image": "1.png", "label": []}], "validation": []}):
        with pytest.raises(ValueError, match="no image for (training|validation)"):
            summarize_datalist(write(tmp_path / "d.json", ["a"], sections))


def test_unreadable_images_are_named(tmp_path):
    item = {"image": "absent.png", "label": [[1, 2]], "spacing": [1, 1]}
    with pytest.raises(ValueError, match="absent.png cannot be read"):
        summarize_datalist(write(tmp_path / "d.json", ["a"], {"training": [item], "validation": [item]}))


def test_mixed_dimensions_are_refused(tmp_path):
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(tmp_path / "2.png")
    save_volume(tmp_path / "3.nii.gz", (8, 8, 8), "RAS", (1, 1, 1))
    sections = {
        "training": [{"image": "2.png", "label": [[1, 2]], "spacing": [1, 1]}],
        "validation": [{"image": "3.nii.gz", "label": [[1, 2, 3]]}],
    }
    with pytest.raises(ValueError, match="some images are 2-D and others 3-D"):
        summarize_datalist(write(tmp_path / "d.json", ["a"], sections))
