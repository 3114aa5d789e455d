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

"""Reading of several annotators into one space, and their consensus."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import LandmarkSet, datalist_item, save_datalist, write_landmark_table, write_landmarks
from monai_landmarks.evaluation.annotators import geometric_median, read_annotators

NAN = float("nan")
NAMES = ("a", "b")


def table(path, points, names=NAMES, system="index"):
    """Write points (N, D) by image."""
    write_landmark_table(path, {image: LandmarkSet(names, place, system) for image, place in points.items()})
    return path


@pytest.fixture
def three(tmp_path):
    """Three annotators of two images; one of them writes mm for 3D Slicer, misses a landmark and has another order."""
    one, two, three = np.array([[1.0, 2.0], [30.0, 40.0]]), np.array([[3.0, 2.0], [30.0, 44.0]]), np.array([5.0, 8.0])
    paths = [
        table(tmp_path / "one.csv", {"x.png": one, "y.png": one + 1}),
        table(
            tmp_path / "two.csv",
            {name: place[::-1] for name, place in (("f/x", two), ("y", two + 1), ("z", two))},
            NAMES[::-1],
        ),
    ]
    for name, shift in (("x", 0), ("y", 1)):
        world = np.array([[*(-0.5 * (three + shift)), 0.0], [NAN] * 3])
        write_landmarks(tmp_path / "three" / f"{name}.mrk.json", LandmarkSet(NAMES, world, "RAS"))
    (tmp_path / "images").mkdir()
    for name in "xy":
        Image.new("L", (60, 50)).save(tmp_path / "images" / f"{name}.png")
    return [*paths, tmp_path / "three"], tmp_path / "images", np.stack([one, two, [three, [NAN, NAN]]])


def test_one_space(three):
    paths, images, points = three
    data = read_annotators(paths, images=images, spacing=0.5)
    assert data.annotators == ("one", "two", "three") and data.images == ("x.png", "y.png") and data.unit == "mm"
    np.testing.assert_allclose(data.points[:, 0], 0.5 * points)
    np.testing.assert_allclose(data.points[:, 1], 0.5 * (points + 1))
    absent, alone = data.notes
    assert absent == f"{paths[1]}: 1 of 3 images are not in {images} (z)."
    assert alone == "left out, because only one annotator has them: 1 images (z)."
    again = read_annotators(paths[::-1], images=images, spacing=0.5)
    np.testing.assert_allclose(again.points[::-1], data.points)


@pytest.mark.parametrize("images", [True, False])
def test_consensus_is_a_landmark_file_of_the_images(three, images):
    paths, folder, points = three
    data = read_annotators(paths[:2], images=folder if images else None, spacing=0.5 if images else None)
    assert data.unit == ("mm" if images else "px") and data.in_index
    found = data.consensus()
    assert found["x.png"].coordinate_system == "index"
    np.testing.assert_allclose(found["x.png"].points, points[:2].mean(axis=0))


def test_consensus_of_some(three):
    paths, images, points = three
    data = read_annotators(paths, images=images, spacing=0.5)
    mean = data.consensus()["x.png"]
    assert mean.coordinate_system == "RAS"  # not all annotations are in pixels
    np.testing.assert_allclose(mean.points[0], [-0.5 * points[:, 0, 0].mean(), -0.5 * points[:, 0, 1].mean()])
    assert np.isfinite(mean.points[1]).all() and np.isnan(data.consensus(at_least=3)["x.png"].points[1]).all()
    with pytest.raises(ValueError, match="expected 1 to 3"):
        data.consensus(at_least=4)
    with pytest.raises(ValueError, match="geometric-median"):
        data.consensus("median")


def test_consensus_of_those_who_have_the_image(tmp_path):
    """Four annotators share the images. Landmark b was marked by one of two in w, and by one of three in z."""
    rng = np.random.default_rng(0)
    readers = {"w": (0, 1), "x": (2, 3), "y": (1, 2), "z": (0, 1, 3)}
    points = {image: rng.uniform(0, 50, (len(who), 2, 2)) for image, who in readers.items()}
    points["w"][0, 1] = points["z"][:2, 1] = NAN
    paths = [
        table(tmp_path / f"{a}.csv", {image: points[image][who.index(a)] for image, who in readers.items() if a in who})
        for a in range(4)
    ]
    data = read_annotators(paths)
    found = data.consensus()
    for image in readers:
        expected = points[image].mean(axis=0)  # NaN for b in w and z
        np.testing.assert_allclose(found[image].points, expected)
    three = data.consensus(at_least=3)
    assert [image for image, one in three.items() if np.isfinite(one.points[0]).all()] == ["z"]
    np.testing.assert_allclose(data.consensus(at_least=1)["w"].points[1], points["w"][1, 1])


@pytest.mark.parametrize("dims", [2, 3])
def test_geometric_median(dims):
    rng = np.random.default_rng(dims)
    first, second, *_ = points = rng.normal(size=(5, 40, dims))
    np.testing.assert_allclose(geometric_median(points[:2]), (first + second) / 2)
    # Fermat point: the three directions sum to zero, or one point holds it
    three = geometric_median(points[:3])
    units = [(p - three) / np.maximum(np.linalg.norm(p - three, axis=-1, keepdims=True), 1e-12) for p in points[:3]]
    inside = np.linalg.norm(points[:3] - three, axis=-1).min(axis=0) > 1e-3
    assert 5 < inside.sum() < 40
    np.testing.assert_allclose(sum(units)[inside], 0, atol=2e-3)
    # no step in any direction shortens the sum of distances; an outlier hardly matters; missing points do not count
    points[4] = NAN
    five = geometric_median(points)

    def total(place):
        return np.nansum(np.linalg.norm(points - place, axis=-1), axis=0)

    for step in 0.01 * rng.normal(size=(20, dims)):
        assert (total(five + step) >= total(five) - 1e-9).all()
    np.testing.assert_allclose(geometric_median(points[:4]), five)
    far = points[:3].copy()
    far[2] += 1e6
    assert np.linalg.norm(geometric_median(far) - points[:2].mean(axis=0), axis=-1).max() < 10
    assert np.isnan(geometric_median(np.full((2, 1, dims), NAN))).all()


def test_the_same_point_three_times():
    points = np.array([[1.0, 2.0], [1.0, 2.0], [9.0, 9.0]])
    np.testing.assert_allclose(geometric_median(points), [1.0, 2.0], atol=1e-6)


def test_refused(three, tmp_path):
    paths, _, points = three
    other = table(tmp_path / "other.csv", {"q.png": points[0]})
    renamed = table(tmp_path / "renamed.csv", {"x.png": points[0]}, names=("c", "d"))
    for chosen, message in (
        ([paths[0]], "expected two or more"),
        ([paths[0], paths[0]], "the same annotator is given twice"),
        ([paths[0], other], "no image is in two of"),
        ([paths[0], renamed], r"no landmark in common \(one: a, b; renamed: c, d\)"),
        (paths, "some points are in pixels and others in mm"),
    ):
        with pytest.raises(ValueError, match=message):
            read_annotators(chosen)
    with pytest.raises(ValueError, match="none of its images"):
        read_annotators(paths[:2], model=other)
    with pytest.raises(ValueError, match="none of its landmarks"):
        read_annotators(paths[:2], model=renamed)


def test_names_and_notes(three, tmp_path):
    paths, _, points = three
    (tmp_path / "again").mkdir()
    more = table(tmp_path / "again" / "one.csv", {"x.png": np.vstack([points[0], [9, 9]])}, names=(*NAMES, "extra"))
    data = read_annotators([paths[0], more, paths[1]], model=table(tmp_path / "model.csv", {"x.png": points[0]}))
    assert data.annotators[1] == "again/one" and data.names == NAMES and np.isnan(data.model[1]).all()
    assert data.notes == (
        "left out, because only one annotator has them: 1 images (z).",
        "again/one lacks 1 of 2 images (y.png).",
        "landmarks left out, because only one annotator has them: extra.",
        "without predictions: 1 of 2 images (y.png).",
    )


@pytest.mark.parametrize("order", [1, -1])
def test_annotators_who_state_different_pixel_sizes(tmp_path, order):
    """The distance in mm would depend on their order."""
    paths = []
    for name, spacing in (("one", 0.1), ("two", 0.3), ("none", None)):
        item = datalist_item("x.png", LandmarkSet(("tip",), [[3.0, 2.0]], "index"), spacing)
        definition = {"names": ("tip",), "pairs": [], "coordinate_system": "index"}
        paths.append(tmp_path / f"{name}.json")
        save_datalist(paths[-1], {"landmarks": definition, "training": [item]})
    with pytest.raises(ValueError, match=r"x.png: the annotators state different pixel sizes, \(0\.\d, 0.*\) and \(0"):
        read_annotators(paths[::order])
    assert read_annotators(paths[::2]).unit == "mm"
