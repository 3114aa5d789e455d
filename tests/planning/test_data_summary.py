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
from summaries import save_volume, volumes, write

from monai_landmarks.planning import summarize_datalist


def test_volumes_are_turned(tmp_path):
    summary = summarize_datalist(volumes(tmp_path))
    assert summary.names == ("a", "b", "c") and summary.counts == (2, 1, 0) and summary.spatial_dims == 3
    assert summary.sizes == ((10, 20, 30),) * 3
    np.testing.assert_allclose(summary.spacings, [(3, 2, 1)] * 3)
    np.testing.assert_allclose(summary.point_extent, (30, 0, 20), atol=1e-6)
    assert (summary.modality, summary.unit, summary.finest_spacing) == ("MR", "mm", 1.0)
    assert summary.image_folder == str(tmp_path) and summary.picture_spacing is None
    # the axes run to right, anterior, superior from the corner of the volume, whatever those of the file
    for path, points in zip(sorted(tmp_path.glob("*.nii.gz")), summary.training_voxels):
        volume = nib.load(path)
        corners = nib.affines.apply_affine(volume.affine, np.stack([np.zeros(3), np.array(volume.shape) - 1]))
        expected = (np.array([[5.0, 0, 20], [35.0, 0, 40]]) - corners.min(axis=0)) / (3, 2, 1)
        np.testing.assert_allclose(points[:2], expected, atol=1e-5)
        assert np.isnan(points[2]).all()


def test_air_tells_a_ct(tmp_path):
    assert summarize_datalist(volumes(tmp_path, (-1000, 1500))).modality == "CT"


@pytest.mark.parametrize("spacing, unit", [((0.2, 0.3), "mm"), ((1, 1), "px"), (0.2, "mm")])
def test_pictures(tmp_path, spacing, unit, write_picture):
    for i in range(3):
        write_picture(tmp_path / f"{i}.png", 20, 30 + i)
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
    spacing = tuple(np.broadcast_to(spacing, 2))
    assert summary.sizes == ((20, 30), (20, 31), (20, 32)) and summary.spacings == (spacing,) * 3
    assert (summary.modality, summary.unit, summary.pairs) == ("X-ray", unit, (("left", "right"),))
    np.testing.assert_allclose(summary.point_extent, (max(8 * spacing[0], 2), max(2 * spacing[1], 5)))
    assert summary.picture_spacing == spacing
    np.testing.assert_allclose(summary.training_voxels, [items[0]["label"]], atol=1e-6)


def test_slices_and_images_without_landmarks(tmp_path):
    """A volume of one slice counts as a picture; landmarks that are missing, or not there, have no extent."""
    labels = [[[1, 2], [4, 6]], [[None, None]] * 2, None]
    items = [{"image": f"{i}.nii.gz", "label": label} for i, label in enumerate(labels)]
    for item in items:
        save_volume(tmp_path / item["image"], (20, 30, 1), "LPS", (2, 3, 5))
    sections = {"training": items[:1], "validation": items[1:2], "testing": [{"image": items[2]["image"]}]}
    summary = summarize_datalist(write(tmp_path / "d.json", ["a", "b"], sections))
    assert (summary.sizes, summary.spacings) == (((20, 30),) * 3, ((2.0, 3.0),) * 3)
    assert summary.counts == (1, 1, 1) and summary.point_extent == pytest.approx((6, 12))


def test_a_slice_outside_of_the_xy_plane_is_refused(tmp_path):
    """Its x and y in the world are not those of the image."""
    item = {"image": "sagittal.nii.gz", "label": [[1, 2, 0], [4, 6, 0]]}
    save_volume(tmp_path / item["image"], (20, 30, 1), "PSR", (2, 3, 5))
    with pytest.raises(ValueError, match=r"sagittal\.nii\.gz: the slice does not lie in the x-y plane"):
        summarize_datalist(write(tmp_path / "d.json", ["a", "b"], {"training": [item], "validation": [item]}))


def test_a_section_that_is_no_list_is_refused(tmp_path):
    path = write(tmp_path / "d.json", ["a"], {"training": {}})
    with pytest.raises(ValueError, match="d.json: no section 'training'"):
        summarize_datalist(path)


def test_a_training_needs_images_for_both(tmp_path):
    for sections in ({"training": []}, {"training": [{"image": "1.png", "label": []}], "validation": []}):
        with pytest.raises(ValueError, match="no image for (training|validation)"):
            summarize_datalist(write(tmp_path / "d.json", ["a"], sections))


def test_unreadable_images_are_named(tmp_path):
    item = {"image": "absent.png", "label": [[1, 2]], "spacing": [1, 1]}
    with pytest.raises(ValueError, match="absent.png cannot be read"):
        summarize_datalist(write(tmp_path / "d.json", ["a"], {"training": [item], "validation": [item]}))


def test_mixed_dimensions_are_refused(tmp_path, write_picture):
    write_picture(tmp_path / "2.png", 20, 30)
    save_volume(tmp_path / "3.nii.gz", (8, 8, 8), "RAS", (1, 1, 1))
    sections = {
        "training": [{"image": "2.png", "label": [[1, 2]], "spacing": [1, 1]}],
        "validation": [{"image": "3.nii.gz", "label": [[1, 2, 3]]}],
    }
    with pytest.raises(ValueError, match="some images are 2-D and others 3-D"):
        summarize_datalist(write(tmp_path / "d.json", ["a"], sections))
