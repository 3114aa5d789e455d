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

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ApplyTransformToPoints

from monai_landmarks.data import CoordinateSystem, LandmarkSet
from monai_landmarks.data.landmarks.landmark_set import join_landmark_sets, landmark_sets_of_table

NAN = float("nan")


def random_set(dims=3, system="RAS", **kwargs):
    points = np.random.RandomState(dims).uniform(-50, 50, (4, dims))
    points[2] = NAN
    return LandmarkSet(("a", "b", "c", "d"), points, system, **kwargs)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("keys", [(), ("scores",), ("scores", "covariances", "regions")])
def test_the_sets_of_a_table_are_those_of_its_images(dims, keys):
    random = np.random.RandomState(dims)
    points, scores = random.normal(size=(5, 2, dims)), random.uniform(size=(5, 2))
    points[1, 0] = points[3] = NAN
    roots = random.normal(size=(5, 2, dims, dims))
    beside = {
        "scores": scores,
        "covariances": roots @ roots.swapaxes(2, 3),
        "regions": np.eye(dims) * scores[..., None, None],
    }
    beside = {key: beside[key] for key in keys}
    images, coverage = [f"{i}.png" for i in range(5)], 0.9 if "regions" in keys else None
    found = landmark_sets_of_table((" a ", "b"), points, images, "LPS", [("b", "a")], coverage, **beside)
    for i, image in enumerate(images):
        of_image = {key: values[i] for key, values in beside.items()}
        assert found[image] == LandmarkSet(
            ("a", "b"), points[i], "LPS", (("b", "a"),), image, coverage=coverage, **of_image
        )
        assert not found[image].points.flags.writeable
        assert pickle.loads(pickle.dumps(found[image])) == found[image]
    points[4, 1, 0] = NAN
    with pytest.raises(ValueError, match="landmark 'b' is at"):
        landmark_sets_of_table((" a ", "b"), points, images, "LPS")
    assert landmark_sets_of_table((), np.zeros((0, 0, dims)), [], "RAS") == {}


@pytest.mark.parametrize("dims", [2, 3])
def test_ras_and_lps_differ_in_the_signs_of_x_and_y(dims):
    landmarks = random_set(dims)
    flipped = landmarks.to("LPS")
    assert flipped.coordinate_system is CoordinateSystem.LPS
    np.testing.assert_array_equal(flipped.points[:, :2], -landmarks.points[:, :2])
    np.testing.assert_array_equal(flipped.points[:, 2:], landmarks.points[:, 2:])
    assert flipped.to("RAS") == landmarks


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("system", ["RAS", "LPS"])
def test_index_and_world_undo_each_other(dims, system):
    affine = np.eye(4)
    affine[:3, :3] = np.random.RandomState(1).normal(size=(3, 3)) + 2 * np.eye(3)
    affine[:3, 3] = 5, -7, 11
    if dims == 2:  # a picture in space: its third axis is apart from the others
        affine[2, :2] = affine[:2, 2] = 0
    landmarks = random_set(dims, system)
    index = landmarks.to_index(affine)
    assert index.coordinate_system is CoordinateSystem.INDEX
    back = index.to_world(affine)
    assert back.coordinate_system is CoordinateSystem.RAS
    np.testing.assert_allclose(back.points, landmarks.to("RAS").points, atol=1e-12)
    if dims == 2:
        small = affine[np.ix_([0, 1, 3], [0, 1, 3])]
        np.testing.assert_allclose(landmarks.to_index(small).points, index.points, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_to_index_is_what_monai_does(dims):
    affine = np.diag([0.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = 1, 2, 3
    landmarks = random_set(dims)
    points = MetaTensor(torch.tensor(landmarks.points)[None], affine=torch.eye(4, dtype=torch.float64))
    expected = ApplyTransformToPoints(dtype=torch.float64, affine=torch.tensor(affine), invert_affine=True)(points)[0]
    np.testing.assert_allclose(landmarks.to_index(affine).points, expected.numpy(), atol=1e-12)


def test_missing_reorder_and_permutation():
    pairs = (("a", "c"), ("b", "d"))
    landmarks = random_set(scores=[0.1, 0.2, NAN, 0.4], pairs=pairs)
    assert landmarks.missing.tolist() == [False, False, True, False]
    assert landmarks.permutation().tolist() == [2, 3, 0, 1]
    assert random_set(pairs=(("d", "a"),)).permutation().tolist() == [3, 1, 2, 0]
    some = landmarks.reorder(["d", "new", "b"])
    assert some.names == ("d", "new", "b") and some.pairs == (("b", "d"),)
    assert some.missing.tolist() == [False, True, False]
    np.testing.assert_array_equal(some.points[[0, 2]], landmarks.points[[3, 1]])
    np.testing.assert_array_equal(some.scores, [0.4, NAN, 0.2])
    assert landmarks.reorder(landmarks.names) == landmarks


def test_equality_knows_nan_and_every_part():
    assert random_set() == random_set()
    assert random_set(scores=[NAN, 1, 2, 3]) == random_set(scores=[NAN, 1, 2, 3])
    for other in (random_set(system="LPS"), random_set(dims=2), random_set(image="a.png"), random_set(scores=[1] * 4)):
        assert random_set() != other
    assert random_set() != "landmarks"
    assert random_set(pairs=(("a", "b"),)) != random_set()


def test_is_not_changed_by_its_array_nor_through_it():
    points = np.zeros((1, 2))
    landmarks = LandmarkSet(["a"], points, "index")
    points += 1
    assert landmarks.points.tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="read-only"):
        landmarks.points[0] = 1
    with pytest.raises(AttributeError):
        landmarks.names = ("b",)


def test_spatial_dims():
    flat = random_set(2)
    assert flat.with_spatial_dims(2) is flat
    deep = flat.with_spatial_dims(3)
    assert deep.spatial_dims == 3 and deep.points[0, 2] == 0 and np.isnan(deep.points[2, 2])
    assert deep.with_spatial_dims(2) == flat
    with pytest.raises(ValueError, match="'a' has z = "):
        random_set(3).with_spatial_dims(2)
    with pytest.raises(ValueError, match="expected 2 or 3"):
        flat.with_spatial_dims(4)


def test_2d_points_in_another_plane():
    flat = random_set(2)
    deep = flat.with_spatial_dims(3, plane=-4.5)
    assert deep.points[0, 2] == -4.5 and np.isnan(deep.points[2]).all()
    assert deep.with_spatial_dims(2, plane=-4.5) == flat
    with pytest.raises(ValueError, match="z = -4.5; only points in the plane z = 0 can become 2-D"):
        deep.with_spatial_dims(2)
    with pytest.raises(ValueError, match="only points in the plane z = 4.5"):
        deep.with_spatial_dims(2, plane=4.5)
    volume = random_set(3)  # of no single plane
    assert np.array_equal(volume.with_spatial_dims(2, plane=None).points, volume.points[:, :2], equal_nan=True)
    with pytest.raises(ValueError, match="give its z"):
        flat.with_spatial_dims(3, plane=None)


@pytest.mark.parametrize(
    "names, points, kwargs, message",
    [
        (["a", "a"], [[0, 0], [1, 1]], {}, r"distinct.*\['a'\]"),
        (["a", " "], [[0, 0], [1, 1]], {}, "name is empty"),
        (["a" * 10_001], [[0, 0]], {}, "landmark 'aaa.*10001 characters"),
        (["a"], [[0, 0]], {"image": "1" * 10_001}, "image '111.*10001 characters"),
        ("ab", [[0, 0], [1, 1]], {}, "the string 'ab'"),
        (["a"], [[0, 0], [1, 1]], {}, r"shape \(2, 2\); expected \(1, 2\)"),
        (["a"], [0, 0], {}, r"shape \(2,\)"),
        (["a"], [[0, 0, 0, 0]], {}, r"shape \(1, 4\)"),
        (["a", "b"], [[0, NAN], [1, 1]], {}, "'a' is at"),
        (["a"], [[0, float("inf")]], {}, "'a' is at"),
        (["a"], [[0, 0]], {"scores": [1, 2]}, r"scores has shape \(2,\); expected \(1,\)"),
        (["a", "b"], [[0, 0]] * 2, {"pairs": [("a", "x")]}, "names 'x', which is not among"),
        (["a", "b", "c"], [[0, 0]] * 3, {"pairs": [("a", "b"), ("c", "a")]}, "'a' is in two"),
        (["a"], [[0, 0]], {"pairs": [("a", "a")]}, "twice in one"),
        (["a", "b"], [[0, 0]] * 2, {"pairs": ["ab"]}, "'ab' is not a pair"),
        (["a"], [[0, 0]], {"coordinate_system": "XYZ"}, "'XYZ' is unknown; expected one of RAS, LPS, index"),
    ],
)
def test_bad_input_is_refused(names, points, kwargs, message):
    with pytest.raises(ValueError, match=message):
        LandmarkSet(names, points, **kwargs)


def test_index_needs_an_image():
    with pytest.raises(ValueError, match=r"use to_world\(affine\)"):
        random_set(system="index").to("RAS")
    with pytest.raises(ValueError, match=r"use to_index\(affine\)"):
        random_set().to("index")
    with pytest.raises(ValueError, match=r"shape \(3, 3\); expected \(4, 4\)"):
        random_set().to_index(np.eye(3))


def test_no_landmarks_at_all():
    empty = LandmarkSet((), np.zeros((0, 3)))
    assert len(empty) == 0 and empty.reorder(["a"]).missing.tolist() == [True]


@pytest.mark.parametrize("dims", [2, 3])
def test_what_one_of_the_joined_sets_lacks_is_nan(dims):
    one = random_set(dims, scores=[0.1, 0.2, NAN, 0.4])
    covariances = np.tile(np.diag([1.0, 2.0, 3.0][:dims]), (2, 1, 1))
    other = LandmarkSet(("e", "f"), [[1.0] * dims, [2.0] * dims], "LPS", covariances=covariances)
    joined = join_landmark_sets([one, other])
    assert joined.names == tuple("abcdef") and joined.coordinate_system == "RAS" and joined.regions is None
    np.testing.assert_array_equal(joined.points[:4], one.points)
    np.testing.assert_array_equal(joined.points[4:], other.points * [-1, -1, 1][:dims])
    np.testing.assert_array_equal(joined.scores, [0.1, 0.2, NAN, 0.4, NAN, NAN])
    assert np.isnan(joined.covariances[:4]).all()
    np.testing.assert_array_equal(joined.covariances[4:], covariances)  # a diagonal one is the same in RAS and LPS


def region(coverage):
    return {"regions": np.eye(2)[None], "coverage": coverage}


@pytest.mark.parametrize(
    "one, other, said",
    [
        ({}, {"points": [[1.0, 2.0, 3.0]]}, "some points are 2-D and some 3-D"),
        (region(0.9), region(0.8), r"coverages \[0.8, 0.9\]"),
        ({"image_size": (9, 8)}, {"image_size": (8, 9)}, r"sizes \[\(8, 9\), \(9, 8\)\]"),
        ({}, {"coordinate_system": "RAS"}, "only be converted to index with the affine of an image"),
        ({}, {"names": ("a",)}, "'a'"),
    ],
)
def test_sets_that_cannot_be_joined(one, other, said):
    plain = {"points": [[1.0, 2.0]], "coordinate_system": "index"}
    sets = [LandmarkSet(**{"names": (name,), **plain, **more}) for name, more in (("a", one), ("b", other))]
    with pytest.raises(ValueError, match=said):
        join_landmark_sets(sets)
