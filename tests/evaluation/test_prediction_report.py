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

"""The report of predictions: doubtful images first, a bounded number of drawings, measurements and uncertainty."""

from __future__ import annotations

import numpy as np
import pytest
from browser import Page
from matplotlib.patches import Ellipse
from reports import IMAGES, NAMES, Content, skip_painting, write_image

from monai_landmarks.data import LandmarkSet
from monai_landmarks.evaluation import measure_images, write_prediction_report
from monai_landmarks.handlers import SavedPrediction
from monai_landmarks.schema import Landmark, LandmarkSchema, Measurement, MeasurementClass
from monai_landmarks.uncertainty import Doubt, LandmarkProbabilities
from monai_landmarks.visualize import report_page

AFFINES = {2: np.diag([-0.5, -0.5, 1.0, 1.0]), 3: np.diag([-0.5, -0.5, 1.0, 1.0])}


def predictions(folder, dims, count, doubtful=(), names=NAMES):
    """Points (3, 3), (4, 4), ... in pixels; the i-th image has variances of 0.25 + i mm^2."""
    random = np.random.RandomState(0)
    result = []
    for i in range(count):
        path = folder / "images" / IMAGES[dims].format(i)
        write_image(path, dims, random)
        index = np.tile(np.arange(3.0, 7.0)[:, None], (1, dims))
        points = LandmarkSet(names, index, "index").to_world(AFFINES[dims]).points.copy()
        points[3] = np.nan if i == 0 else points[3]
        covariances = np.tile((0.25 + i) * np.eye(dims), (4, 1, 1))
        landmarks = LandmarkSet(names, points, "RAS", scores=np.full(4, 0.5), covariances=covariances)
        doubt = Doubt(("upside <down>",), {1: "far away"}) if i in doubtful else Doubt()
        result.append(SavedPrediction(str(path), f"case_{i}", landmarks, AFFINES[dims], 0.0, doubt))
    return result


@pytest.mark.parametrize("dims", [2, 3])
def test_doubtful_images_first_and_few_drawings(dims, tmp_path, monkeypatch):
    drawn = []

    def looked_at(figure, alt, caption, format, kind):
        drawn.append((caption, sum(isinstance(patch, Ellipse) for axes in figure.axes for patch in axes.patches)))
        return ""

    monkeypatch.setattr(report_page, "_picture", looked_at)
    found = predictions(tmp_path, dims, 6, doubtful=(4,))
    out = tmp_path / "report.html"
    doubts = {found[4].image: "upside <down>; turned by 180 degrees, the film is not in doubt"}
    write_prediction_report(out, found, doubts, None, ["a note."], [("b.png", "damaged")], "Source", drawings=2)
    page = Content(out)
    assert [IMAGES[dims].format(i) in caption for (caption, _), i in zip(drawn, (4, 0))] == [True, True]
    planes = 1 if dims == 2 else 3
    assert [count for _, count in drawn] == [4 * planes, 3 * planes]  # the first image lacks a landmark
    said = ["1 of 6 predictions are in doubt", "In doubt: upside <down>; turned by 180 degrees", "of 24 landmarks"]
    for text in (*said, "2 of 6 images are shown", "far away", "A note.", "damaged"):
        assert text in page.text, text
    # 3 and 4 times 4 landmarks without the doubtful image; the 10th of 19 is one of the third image
    assert f"{(dims * 2.25) ** 0.5:.2f} mm median expected error in images without doubt" in page.text
    assert not {"script", "down"} & set(page.tags)
    rows = page.text[page.text.rindex("landmark of the largest") :]
    assert rows.index(IMAGES[dims].format(4)) < rows.index(IMAGES[dims].format(0)) < rows.index(IMAGES[dims].format(5))
    assert f"{(dims * 5.25) ** 0.5:.2f}" in rows  # root mean square distance of the last image


def test_measurements_and_a_missing_file(tmp_path, monkeypatch):
    skip_painting(monkeypatch)
    names = ("a", "b", "c", "d")
    classes = (MeasurementClass("short", below=1), MeasurementClass("long", at_least=1))
    schema = LandmarkSchema(
        "four",
        2,
        tuple(map(Landmark, names)),
        measurements=(Measurement("length", "distance(a, c)", "mm", classes=classes),),
    )
    found = predictions(tmp_path, 2, 2, names=names)
    (tmp_path / "images" / IMAGES[2].format(1)).unlink()
    measured = measure_images(schema, {one.image: one.landmarks for one in found})
    write_prediction_report(tmp_path / "report.html", found, {}, measured)
    text = Content(tmp_path / "report.html").text
    assert "in images without doubt" not in text
    assert "No prediction is in doubt." in text and text.count("cannot be drawn") == 1
    # from (3, 3) to (5, 5) in pixels of 0.5 mm
    low, high = (measured.measured["length"].lows[0], measured.measured["length"].highs[0])
    assert f"length {2**0.5:.2f} mm {low:.2f} to {high:.2f} long" in text


def test_probabilities_are_those_of_the_landmarks_found(tmp_path):
    """The first image lacks a landmark, so 5.5 of 7 landmarks are expected within 2 mm."""
    values = np.array([[0.5, 0.5, 0.5, np.nan], [1.0, 1.0, 1.0, 1.0]])
    found = [
        one._replace(probabilities=LandmarkProbabilities(own, 2.0))
        for one, own in zip(predictions(tmp_path, 2, 2), values)
    ]
    write_prediction_report(tmp_path / "report.html", found, {}, drawings=0)
    assert "within 2 mm 79 % of the landmarks found, expected" in Content(tmp_path / "report.html").text


def test_in_a_browser(tmp_path):
    write_prediction_report(tmp_path / "report.html", predictions(tmp_path, 2, 2), {}, drawings=1)
    with Page(tmp_path / "report.html", tmp_path / "profile") as page:
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith("data:")] == [(tmp_path / "report.html").as_uri()]
        assert page.run("[...document.images].map(i => i.complete && i.naturalWidth > 0)") == [True]
        assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
