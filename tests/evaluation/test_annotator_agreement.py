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

"""Agreement of annotators, with numbers by hand."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pytest

from monai_landmarks.data import LandmarkSet, write_landmark_table
from monai_landmarks.evaluation import compare_annotators
from monai_landmarks.metrics import signed_rank_test
from monai_landmarks.schema import Landmark, LandmarkSchema, Measurement, MeasurementClass, parse_landmark_schema

NAN = float("nan")
NAMES = ("a", "b", "c")
SCHEMA = parse_landmark_schema(
    {
        "name": "two",
        "spatial_dims": 2,
        "landmarks": [{"name": name} for name in NAMES],
        "measurements": [
            {
                "name": "side",
                "expression": "distance(a, b)",
                "unit": "mm",
                "classes": [{"name": "short", "below": 20}, {"name": "long", "at_least": 20}],
            }
        ],
    }
)


@pytest.fixture(scope="module")
def points():
    """Three annotators and a model (last), 8 images, 3 landmarks; the second annotator shifts landmark b by (4, -3)."""
    rng = np.random.default_rng(0)
    true = rng.uniform(20, 60, (8, 3, 2))
    points = true + rng.normal(0, [[[[1.0]]], [[[1.0]]], [[[2.0]]], [[[0.5]]]], (4, 8, 3, 2))
    points[1, :, 1] += (4, -3)
    points[2, 5, 2] = NAN
    points[0, 5, 2] = NAN
    points[3, 1, 0] = NAN
    return points


@pytest.fixture(scope="module")
def paths(points, tmp_path_factory):
    folder = tmp_path_factory.mktemp("agreement")
    paths = []
    for name, place in zip(("one", "two", "three", "found"), points):
        sets = {f"{i}.png": LandmarkSet(NAMES, place[i], "index") for i in range(8)}
        paths.append(folder / f"{name}.csv")
        write_landmark_table(paths[-1], sets)
    return paths


@pytest.fixture(scope="module")
def agreement(paths):
    return compare_annotators(paths[:3], model=paths[3], schema=SCHEMA, resamples=100)


def test_distances(agreement, points):
    rows = {(row["first"], row["second"]): row for row in agreement.distance_rows()}
    length = np.linalg.norm
    assert len(rows) == 3 + 3 + 3 + 1
    assert rows["one", "three"]["mean"] == pytest.approx(np.nanmean(length(points[0] - points[2], axis=-1)))
    others = np.where(np.isnan(points[0]), points[2], (points[0] + points[2]) / 2)
    distances = length(points[1] - others, axis=-1)
    assert rows["two", "mean of the others"]["mean"] == pytest.approx(np.nanmean(distances))
    row = rows["two", "mean of the others"]
    assert row["sdr_3px_percent"] == pytest.approx(100 * (distances[np.isfinite(distances)] <= 3).mean())
    assert row["n"] == 23 and row["mean_low"] < row["mean"] < row["mean_high"]
    single = [row for row in agreement.landmark_distance_rows() if row["second"] == "mean of the others"]
    assert [row["mean"] for row in single if row["first"] == "two"] == pytest.approx(np.nanmean(distances, axis=0))


def test_bias_and_limits(agreement, points):
    rows = {(r["first"], r["second"], r["quantity"], r["coordinate"]): r for r in agreement.difference_rows()}
    difference = points[0, :, 1, 0] - points[1, :, 1, 0]
    row = rows["one", "two", "b", "x"]
    assert (row["bias"], row["std"]) == pytest.approx((difference.mean(), difference.std(ddof=1)))
    assert row["bias_low"] < row["bias"] < row["bias_high"] < 0  # the shift of 4 is seen
    side = np.linalg.norm(points[:, :, 0] - points[:, :, 1], axis=-1)
    assert rows["one", "two", "side", ""]["bias"] == pytest.approx((side[0] - side[1]).mean())
    others = rows["three", "mean of the others", "side", ""]
    assert others["bias"] == pytest.approx((side[2] - side[:2].mean(axis=0)).mean())
    model = rows["model", "mean of the annotators", "side", ""]
    assert model["images"] == 7 and model["bias"] == pytest.approx(np.nanmean(side[3] - side[:3].mean(axis=0)))


def test_lengths_in_pixels_are_in_no_class(agreement, paths, points):
    """The classes are divided at 20 mm, which are 25 pixels of 0.8 mm."""
    sized = compare_annotators(paths[:3], spacing=0.8, schema=SCHEMA, resamples=20)
    for found, unit in ((agreement, "px"), (sized, "mm")):
        rows = [*found.correlation_rows(), *found.difference_rows()]
        assert {row["unit"] for row in rows if row["quantity"] == "side"} == {unit}
    assert agreement.class_rows() == []
    [classes] = sized.class_rows()
    side = np.linalg.norm(points[:3, :, 0] - points[:3, :, 1], axis=-1)
    assert classes["same_class_percent"] == pytest.approx(100 * np.isin((side < 25).sum(axis=0), (0, 3)).mean())


def test_where_they_disagree(agreement, points):
    pairs = [np.linalg.norm(points[i] - points[j], axis=-1) for i, j in ((0, 1), (0, 2), (1, 2))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # landmark c of image 5 has one annotator, so no pair
        mean = np.nanmean(pairs, axis=0)
    rows = agreement.landmark_rows()
    assert [row["mean"] for row in rows] == sorted(np.nanmean(mean, axis=0), reverse=True) and rows[0][
        "landmark"
    ] == "b"
    marks = {row["landmark"]: (row["marked_by_all"], row["marked_by_some"]) for row in rows}
    assert marks == {"a": (8, 0), "b": (8, 0), "c": (7, 1)}
    images = {row["image"]: row for row in agreement.image_rows()}
    assert images["3.png"]["mean"] == pytest.approx(np.nanmean(mean[3])) and images["5.png"]["landmarks"] == 2
    assert images["3.png"]["landmark_of_max"] == NAMES[int(mean[3].argmax())]
    worst, *_, last = agreement.point_rows()
    assert worst["mean"] == np.nanmax(mean)
    assert (last["image"], last["landmark"], last["marked_by"]) == ("5.png", "c", "two") and np.isnan(last["mean"])


def test_a_model_has_the_same_references_as_each_annotator(agreement, points):
    length = np.linalg.norm
    rows = dict(agreement.model_comparisons())
    others = np.nanmean(points[[0, 1]], axis=0)
    person, model = length(points[2] - others, axis=-1), length(points[3] - others, axis=-1)
    both = np.isfinite(person) & np.isfinite(model)
    means = [np.array([v[b][both[b]].mean() for b in range(8)]) for v in (person, model)]
    found = rows["three"]
    assert (found.first, found.second) == pytest.approx((means[0].mean(), means[1].mean()))
    assert found.p_value == pytest.approx(signed_rank_test(means[1] - means[0]))
    assert list(rows) == ["one", "two", "three", "all"] and rows["all"].second_better > 6


def test_images_that_someone_was_never_given_are_not_missed(points, tmp_path):
    """Images 0 and 1 are of the first two annotators, 2 and 3 of the others. The model does not have image 3."""
    readers = {"one": (0, 1), "two": (0, 1), "three": (2, 3), "four": (2, 3), "found": (0, 1, 2)}
    place = points[1, :4]
    for name, images in readers.items():
        own = place.copy()
        if name in ("one", "found"):
            own[1 if name == "one" else 0, 1] = NAN  # these points are really missed
        write_landmark_table(tmp_path / f"{name}.csv", {f"{i}": LandmarkSet(NAMES, own[i], "index") for i in images})
    people = [tmp_path / f"{name}.csv" for name in list(readers)[:4]]
    missed = compare_annotators(people, model=tmp_path / "found.csv", resamples=20).model_missed()
    assert missed == {"one": (1, 1), "two": (0, 1), "three": (0, 0), "four": (0, 0), "all": (1, 2)}


def test_two_annotators_are_each_other_s_reference(points, tmp_path):
    paths = []
    for name, place in zip(("one", "two"), points):
        paths.append(tmp_path / f"{name}.csv")
        write_landmark_table(paths[-1], {f"{i}": LandmarkSet(NAMES, place[i], "index") for i in range(8)})
    found = compare_annotators(paths, resamples=20)
    assert list(found.lines()) == [("one", "two")] and found.model_rows() == [] and found.class_rows() == []
    written = [path.name for path in found.write(tmp_path / "out")]
    assert "model.csv" not in written and "classes.csv" not in written
    with open(tmp_path / "out" / "icc.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["quantity"], row["coordinate"]) for row in rows[:3]] == [("a", "x"), ("a", "y"), ("b", "x")]
    assert rows[4]["images"] == "7" and rows[0]["unit"] == "px"


def test_values_in_no_class_disagree_with_those_in_one(tmp_path):
    classes = (MeasurementClass("short", below=10), MeasurementClass("long", above=20))
    schema = LandmarkSchema(
        "s",
        2,
        (Landmark("a"), Landmark("b")),
        measurements=(Measurement("d", "distance(a, b)", "mm", classes=classes),),
    )
    for name, length in (("x", 5), ("y", 5.5), ("z", 15)):
        rows = "".join(f"{image},a,0,0\n{image},b,{length},0\n" for image in (1, 2))
        (tmp_path / f"{name}.csv").write_text(f"# coordinate_system=RAS\nimage,landmark,x,y\n{rows}")
    found = compare_annotators([tmp_path / f"{name}.csv" for name in "xyz"], schema=schema, resamples=20)
    assert [row["same_class_percent"] for row in found.class_rows()] == [0]


def test_tables_of_the_user_are_not_removed(tmp_path):
    """A comparison without a model removes the table of an earlier one, but not the landmarks of a model."""
    text = "# coordinate_system=RAS\nimage,landmark,x,y\n1,a,0,0\n2,a,0,1\n"
    for name in ("model", "classes", "other"):
        (tmp_path / f"{name}.csv").write_text(text)
    out = tmp_path / "out"
    sources = [tmp_path / "model.csv", tmp_path / "other.csv"]
    compare_annotators(sources, model=tmp_path / "classes.csv", resamples=20).write(out)
    assert (out / "model.csv").is_file()
    compare_annotators(sources, resamples=20).write(out)
    assert not (out / "model.csv").exists()
    compare_annotators(sources, resamples=20).write(tmp_path)
    assert (tmp_path / "model.csv").read_text() == (tmp_path / "classes.csv").read_text() == text
