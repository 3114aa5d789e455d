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

"""What is drawn of an image: the part around the worst landmark, and ellipses of the right size."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import LandmarkSet, datalist_item, save_datalist, write_landmark_table, write_landmarks
from monai_landmarks.evaluation import case_figures, evaluate_predictions
from monai_landmarks.visualize import ReportPage, landmark_view

SPACING = 0.5
SIZE = (40, 30)


@pytest.fixture
def drawn(monkeypatch):
    """The arguments with which the views of the figures were made."""
    calls = []

    def spy(image, pred, true, **options):
        calls.append({"pred": pred, "true": true, **options})
        return landmark_view(image, pred, true, **options)

    monkeypatch.setattr(case_figures, "landmark_view", spy)
    return calls


def evaluate(folder, true, predicted, **more):
    """One picture with one landmark; points in pixels, and the prediction in mm where 3D Slicer has it."""
    (folder / "images").mkdir()
    Image.fromarray(np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE[::-1])).save(folder / "images" / "a.png")
    item = datalist_item("images/a.png", LandmarkSet(("tip",), [true], "index"), SPACING)
    definition = {"names": ("tip",), "pairs": [], "coordinate_system": "index"}
    save_datalist(folder / "datalist.json", {"landmarks": definition, "training": [], "validation": [item]})
    found = LandmarkSet(("tip",), SPACING * np.array([predicted]), "LPS", **more)
    write_landmarks(folder / "pred" / "a.mrk.json", found)
    return evaluate_predictions(folder / "pred", folder / "datalist.json", resamples=10)


@pytest.mark.parametrize(
    "true, predicted, side",
    [
        ((38.5, 28.0), (37.0, 26.5), 8),  # in a corner: a fifth of the longer side
        ((1.0, 1.0), (1.5, 1.0), 8),
        ((20.0, 15.0), (20.0, 15.5), 8),
        ((10.0, 14.0), (22.0, 14.0), 24),  # twice the distance
    ],
)
def test_the_enlarged_part_is_in_the_image_and_has_both_points(tmp_path, drawn, true, predicted, side):
    assert case_figures.add_case_figures(ReportPage("x"), evaluate(tmp_path, true, predicted), 1) == []
    whole, part = drawn
    assert whole["window"] is None
    low, high = np.array(part["window"])
    assert (low >= 0).all() and (high <= SIZE).all() and (high - low).tolist() == [side, side]
    for point in (true, predicted):
        assert (low - 0.5 <= point).all() and (point <= high - 0.5).all()
    # away from the border the middle of both points is in the middle of the part
    middle = (np.array(true) + predicted) / 2
    inside = (middle - side / 2 > 0) & (middle + side / 2 < SIZE)
    assert (np.abs((low + high) / 2 - middle) <= 1)[inside].all()


@pytest.mark.parametrize("stated", [True, False])
def test_two_standard_deviations_are_the_axes_of_the_region(tmp_path, drawn, stated):
    """Regions of 3 x 1 mm, or covariances of 1.5 x 0.5 mm, are ellipses with semi-axes of 6 x 2 pixels of 0.5 mm."""
    axes = np.array([3.0, 1.0])
    more = {"covariances": [np.diag((axes / 2) ** 2)]}
    if stated:
        more = {"covariances": [9 * np.eye(2)], "regions": [np.diag(axes**2)], "coverage": 0.9}
    case_figures.add_case_figures(ReportPage("x"), evaluate(tmp_path, (20, 15), (21, 15), **more), 1)
    for call in drawn:
        np.testing.assert_allclose(2 * np.sqrt(np.diag(call["covariances"][0])), axes / SPACING, rtol=1e-4)


@pytest.mark.parametrize(
    "images, count, median",
    [(1, 1, []), (2, 1, []), (3, 1, [1]), (3, 3, []), (5, 3, [3]), (6, 3, [3]), (8, 2, [3, 4]), (9, 3, [3, 4, 5])],
)
def test_images_in_the_middle_of_the_order(tmp_path, monkeypatch, images, count, median):
    """Image i has an error of 9 - i pixels, so that i is its rank."""
    (tmp_path / "images").mkdir()
    for name, far in (("truth", 0), ("pred", 1)):
        sets = {f"{i}.png": LandmarkSet(("tip",), [[9.0 + far * (9 - i), 7.0]], "index") for i in range(images)}
        write_landmark_table(tmp_path / f"{name}.csv", sets)
    for i in range(images):
        Image.new("L", SIZE).save(tmp_path / "images" / f"{i}.png")
    options = {"images": tmp_path / "images", "spacing": SPACING, "resamples": 1}
    result = evaluate_predictions(tmp_path / "pred.csv", tmp_path / "truth.csv", **options)
    drawn = {}
    monkeypatch.setattr(ReportPage, "heading", lambda _, text: drawn.setdefault(text, []))
    monkeypatch.setattr(case_figures, "_draw_case", lambda page, result, b, mean: [*drawn.values()][-1].append(b))
    case_figures.add_case_figures(ReportPage("x"), result, count)
    assert drawn.pop("Images with the largest mean error") == [*range(min(count, images))]
    assert drawn == ({"Images with a median mean error": median} if median else {})


def test_slicer_points_of_a_picture_are_drawn_at_their_pixels(tmp_path, drawn):
    """Both files hold 3-D points in mm, above the plane z = 0, where the picture is."""
    (tmp_path / "images").mkdir()
    Image.new("L", SIZE).save(tmp_path / "images" / "a.png")
    for folder, point in (("truth", (10.0, 7.0, 2.0)), ("pred", (12.0, 7.0, 2.0))):
        write_landmarks(tmp_path / folder / "a.mrk.json", LandmarkSet(("tip",), [point], "LPS"))
    options = {"images": tmp_path / "images", "spacing": SPACING, "resamples": 10}
    result = evaluate_predictions(tmp_path / "pred", tmp_path / "truth", **options)
    assert case_figures.add_case_figures(ReportPage("x"), result, 1) == []
    for call in drawn:
        np.testing.assert_allclose(call["true"], [[20, 14]])
        np.testing.assert_allclose(call["pred"], [[24, 14]])


def test_a_volume_of_one_slice_is_drawn_as_a_picture(tmp_path, drawn):
    (tmp_path / "images").mkdir()
    nib.save(nib.Nifti1Image(np.zeros((*SIZE, 1), np.uint8), np.diag([-1, -1, 1, 1])), tmp_path / "images" / "a.nii.gz")
    for name, point in (("truth", (10.0, 7.0)), ("pred", (12.0, 7.0))):
        write_landmark_table(tmp_path / f"{name}.csv", {"a.nii.gz": LandmarkSet(("tip",), [point], "index")})
    result = evaluate_predictions(
        tmp_path / "pred.csv", tmp_path / "truth.csv", images=tmp_path / "images", resamples=10
    )
    assert case_figures.add_case_figures(ReportPage("x"), result, 1) == [] and len(drawn) == 2
    np.testing.assert_allclose(drawn[0]["true"], [[10, 7]])
