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

"""The report: right numbers, escaped text, and a page that a browser shows without loading anything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from browser import Page
from matplotlib.patches import Ellipse
from reports import FEW, IMAGES, NAMES, SPACING, Content, make, skip_painting

from monai_landmarks.data import LandmarkSet, read_landmarks, write_landmarks
from monai_landmarks.evaluation import evaluate_predictions, html_report, write_report
from monai_landmarks.schema import Landmark, LandmarkSchema, Measurement, compare_measurements
from monai_landmarks.visualize import report_page


@pytest.fixture
def words_only(monkeypatch):
    skip_painting(monkeypatch)


def run(pred, datalist, out, cases=3, title="Landmark report", **options):
    """Evaluate with few resamples and write the report."""
    return write_report(evaluate_predictions(pred, datalist, **FEW, **options), out, title, cases=cases)


@pytest.mark.parametrize("dims", [2, 3])
def test_in_a_browser(tmp_path, dims):
    pred, datalist = make(tmp_path, dims)
    out = tmp_path / "out" / "report.html"
    assert run(pred, datalist, out, cases=1, title="<b>Spine & hand</b>") == []
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    with Page(out, tmp_path / "profile", dark=dims == 3) as page:
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith("data:")] == [out.as_uri()]
        pictures = page.run(
            "[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt, i.src.slice(0, 5)])"
        )
        # two curves beside each other, the rate, the boxes; an image in 2-D is one picture and in 3-D two
        assert len(pictures) == 4 + (2 if dims == 2 else 4)
        assert all(loaded and len(alt) > 20 and source == "data:" for loaded, alt, source in pictures)
        assert page.run("document.title") == "<b>Spine & hand</b>" == page.run("document.querySelector('h1').innerText")
        assert page.run("document.querySelectorAll('script, main b, iframe, link[rel=stylesheet]').length") == 0
        text = page.run("document.body.textContent")
        assert all(name in text for name in NAMES) and IMAGES[dims].format(3) in text
        tables = page.run(
            "[...document.querySelectorAll('table')].map(t => !!t.caption && t.querySelectorAll('th[scope]').length)"
        )
        assert len(tables) == 5 and all(tables)
        assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        dark = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 20, 20)"
        assert dark == (dims == 3)
        # the keyboard alone: the first stop skips the navigation, and a folded table opens
        page.press("Tab", 9)
        assert page.run("document.activeElement.className") == "skip"
        page.run("document.querySelector('summary').focus()")
        page.press("Enter", 13)
        assert page.run("document.querySelector('details').open")


def test_numbers_are_those_of_the_evaluation(tmp_path, words_only):
    pred, datalist = make(tmp_path, 2)
    evaluation = evaluate_predictions(pred, datalist, **FEW)
    assert write_report(evaluation, tmp_path / "report.html", source="these and those") == []
    page = Content(tmp_path / "report.html")
    rows = {row["metric"]: row for row in evaluation.summary()}
    assert (
        f"mean error {rows['MRE']['value']:.2f} mm {rows['MRE']['low']:.2f} to {rows['MRE']['high']:.2f}" in page.text
    )
    assert f"within 2 mm {rows['SDR 2 mm']['value']:.1f} %" in page.text and "missed 1 of 32" in page.text
    assert "these and those" in page.text
    worst = max(evaluation.per_image(), key=lambda row: row["mean"])
    assert f"{worst['image']}: mean error {worst['mean']:.2f} mm" in page.text
    held = int((evaluation.errors <= 1.0).sum())
    share = 100 * held / 31
    assert (
        f"they should contain 90 % of the landmarks. They contain {share:.1f} %" in page.text
        and f": {held} of 31 in 8 images" in page.text
    )
    root = np.sqrt(np.mean(evaluation.errors[np.isfinite(evaluation.errors)] ** 2))
    assert f"error of {np.sqrt(2 * 0.64):.2f} mm. The observed one is {root:.2f} mm" in page.text
    # in a plane the region of level c of a Gaussian ends where 1 - exp(-r^2 / (2 variance)) = c
    levels = 1 - np.exp(-(evaluation.errors[np.isfinite(evaluation.errors)] ** 2) / (2 * 0.64))
    for level in (0.5, 0.9):
        assert f" {100 * level:g} {100 * np.mean(levels <= level):.1f} " in page.text
    assert page.tags.count("script") == 0 and all(picture["src"].startswith("data:image/") for picture in page.pictures)


def test_tables_of_many_images_are_limited(tmp_path, words_only, monkeypatch):
    monkeypatch.setattr(html_report, "_MOST_ROWS", 3)
    pred, datalist = make(tmp_path, 2)
    evaluation = evaluate_predictions(pred, datalist, **FEW)
    write_report(evaluation, tmp_path / "report.html", cases=0)
    text = Content(tmp_path / "report.html").text
    worst = sorted(evaluation.per_image(), key=lambda row: -row["mean"])
    assert "sorted by decreasing mean (the first 3 of 8 images)" in text
    assert [row["image"] in text for row in worst] == [True] * 3 + [False] * 5


@pytest.mark.parametrize(
    "radius, said",
    [
        (0.1, "the regions are too small"),
        (1.7, "agrees with the stated coverage"),
        (50.0, "larger than necessary for these images"),
    ],
)
def test_coverage_is_judged(tmp_path, words_only, radius, said):
    """Noise of 0.8 mm along each of two axes: 90 % lie within 1.7 mm."""
    pred, datalist = make(tmp_path, 2, count=40, radius=radius)
    run(pred, datalist, tmp_path / "report.html", cases=0)
    assert said in Content(tmp_path / "report.html").text


@pytest.mark.parametrize("radius, inside", [(50.0, 39), (1e-6, 0)])
def test_few_images_that_are_all_inside_are_no_surprise(tmp_path, words_only, radius, inside):
    """If 69.2 % of all images are inside, 10 of 10 are with a probability of 2.5 %."""
    run(*make(tmp_path, 2, count=10, radius=radius), tmp_path / "report.html", cases=0)
    end = 100 * 0.025**0.1
    ends, said = (f"{end:.1f} to 100.0", "agrees with") if inside else (f"0.0 to {100 - end:.1f}", "is less than")
    text = f"({ends}, 95 % interval): {inside} of 39 in 10 images. This {said}"
    assert text in Content(tmp_path / "report.html").text


def test_a_comparison_says_what_each_side_missed(tmp_path, words_only):
    """The predictions miss one landmark. The others find only the first one, and lack an image."""
    pred, datalist = make(tmp_path, 2)
    for path in sorted(pred.iterdir())[:7]:
        points = read_landmarks(path).to("RAS").points.copy()
        points[1:] = np.nan
        write_landmarks(tmp_path / "other" / path.name, LandmarkSet(NAMES, points, "RAS"))
    run(pred, datalist, tmp_path / "report.html", cases=0, compare=tmp_path / "other")
    text = Content(tmp_path / "report.html").text
    assert "of the landmarks that both found" in text
    assert "Missed: 1 of 28 landmarks (predictions) and 21 of 28 (other predictions)." in text


@pytest.mark.parametrize(
    "sure, stated, there, absent",
    [
        (False, False, "have no covariances and no regions", "root mean square"),
        (True, False, "they predict a root mean square error of", "Stated regions"),
        (False, True, "Stated regions", "root mean square"),
    ],
)
def test_says_what_the_predictions_do_not_hold(tmp_path, words_only, sure, stated, there, absent):
    pred, datalist = make(tmp_path, 2, count=3, sure=sure, stated=stated)
    assert run(pred, datalist, tmp_path / "report.html", cases=1) == []
    page = Content(tmp_path / "report.html")
    assert there in page.text and absent not in page.text
    ellipses = "a stated coverage of 90 %" if stated else "two standard deviations" if sure else None
    assert ("Ellipses:" in page.text) == (ellipses is not None) and (ellipses or "") in page.text


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stated", [True, False])
def test_ellipses_are_the_regions_in_pixels(tmp_path, monkeypatch, dims, stated):
    """Regions and covariances are in mm, pixels of 0.5 mm and in a volume twice as long up: along each axis as far as stated."""
    figures = []

    def keep(figure, *_):
        figures.append(figure)
        return ""

    monkeypatch.setattr(report_page, "_picture", keep)
    pred, datalist = make(tmp_path, dims, count=2, radius=3.0, stated=stated)
    assert run(pred, datalist, tmp_path / "report.html", cases=2) == []
    steps = np.array([SPACING, SPACING, 2 * SPACING if dims == 3 else SPACING])
    radius = 3.0 if stated else 2 * 0.8  # mm: of the region, or two standard deviations
    drawn = [
        (patch, axes)
        for figure in figures
        for panel, axes in zip(figure.axes, ((0, 1), (0, 1)) if dims == 2 else ((0, 1), (0, 2), (1, 2)))
        for patch in panel.patches
        if isinstance(patch, Ellipse)
    ]
    # two images, whole and closer, of all four landmarks, of which the first image misses one
    assert len(drawn) == 2 * (4 + 3) * (1 if dims == 2 else 3)
    for ellipse, (a, b) in drawn:
        ends = np.array([[radius / steps[a], 0], [0, radius / steps[b]]]) + ellipse.center
        on_it = ellipse.get_patch_transform().inverted().transform(ends)
        np.testing.assert_allclose(np.linalg.norm(on_it, axis=1), 1)


def test_measurements_stand_in_the_report(tmp_path, words_only):
    evaluation = evaluate_predictions(*make(tmp_path, 2), **FEW)
    write_report(evaluation, tmp_path / "report.html")
    assert "Measurements" not in Content(tmp_path / "report.html").text
    apart = Measurement("apart", "distance(a, b)", "mm")
    schema = LandmarkSchema("two", 2, (Landmark("a"), Landmark("b")), measurements=(apart,))
    true = np.array([[[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 10.0]]])
    evaluation.measurements = compare_measurements(schema, true * [[[1.1]], [[0.8]]], true)
    write_report(evaluation, tmp_path / "report.html")
    # 0.5 mm too long and 2 mm too short
    assert "apart mm 2 0 1.25 -0.75 1.25" in Content(tmp_path / "report.html").text


def test_the_same_predictions_are_the_same_file(tmp_path, words_only):
    pred, datalist = make(tmp_path, 2, count=2)
    for name in ("a", "b"):
        run(pred, datalist, tmp_path / name, compare=pred)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "other predictions: mean error" in Content(tmp_path / "a").text


def test_rank_correlation_with_ties(tmp_path, words_only):
    """Against mean ranks counted one by one: two levels of uncertainty, each of many landmarks."""
    evaluation = evaluate_predictions(*make(tmp_path, 2), **FEW)
    scales = np.random.default_rng(0).choice([0.5, 2.0], evaluation.errors.shape)
    evaluation.cases = [
        replace(case, predicted=replace(case.predicted, covariances=scale[:, None, None] ** 2 * np.eye(2)))
        for case, scale in zip(evaluation.cases, scales)
    ]
    write_report(evaluation, tmp_path / "report.html", cases=0)
    known = np.isfinite(evaluation.errors)

    def ranks(values):
        return [np.sum(values < value) + (np.sum(values == value) + 1) / 2 for value in values]

    expected = np.corrcoef(ranks(scales[known]), ranks(evaluation.errors[known]))[0, 1]
    assert f"(Spearman): {expected:.2f}." in Content(tmp_path / "report.html").text


def test_what_one_image_or_none_does_not_show(tmp_path, words_only):
    """One image has no interval, so no judgment; regions and covariances of nothing are not compared with anything."""
    evaluation = evaluate_predictions(*make(tmp_path, 2, count=1), **FEW)
    write_report(evaluation, tmp_path / "report.html", cases=0)
    text = Content(tmp_path / "report.html").text
    assert "They contain" in text and "This agrees" not in text and "This is" not in text
    [case] = evaluation.cases
    unknown = np.full_like(case.predicted.covariances, np.nan)
    evaluation.cases = [replace(case, predicted=replace(case.predicted, covariances=unknown, regions=unknown))]
    write_report(evaluation, tmp_path / "report.html", cases=0)
    text = Content(tmp_path / "report.html").text
    assert "No landmark has both an error and a covariance." in text and "Stated regions" not in text
