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
"""Covariances and regions of a landmark set: they move with the points, and files keep them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monai_landmarks.data import LandmarkSet, read_landmark_table, read_landmarks, write_landmark_table, write_landmarks

NAN = float("nan")
NAMES = ("a", "b", "c", "d")


def make(dims=3, system="RAS", seed=0, coverage=0.9, **kwargs):
    """Four landmarks, the second missing, of the third nothing known but its place."""
    random = np.random.RandomState(seed)
    points = random.uniform(-50, 50, (4, dims)).round(3)
    roots = random.normal(size=(2, 4, dims, dims))
    covariances, regions = (root @ root.transpose(0, 2, 1) for root in roots)
    points[1] = covariances[2] = regions[2] = NAN
    return LandmarkSet(NAMES, points, system, (), None, None, covariances, regions, coverage, **kwargs)


def same(first, second, digits=5):
    assert (first.names, first.coordinate_system, first.coverage) == (
        second.names,
        second.coordinate_system,
        second.coverage,
    )
    for key in ("points", "covariances", "regions"):
        np.testing.assert_allclose(getattr(first, key), getattr(second, key), rtol=10**-digits, atol=10**-digits)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("key, radius", [("covariances", None), ("regions", 1)])
def test_matrices_move_as_a_cloud_of_points_does(dims, key, radius):
    """The covariance of moved samples is the moved covariance: an independent way to the same matrix."""
    affine = np.eye(4)
    affine[:dims, :dims] = np.random.RandomState(3).normal(size=(dims, dims)) + 2 * np.eye(dims)
    affine[:dims, 3] = np.arange(dims) + 5
    landmarks = make(dims)
    matrix = getattr(landmarks, key)[0]
    cloud = (
        np.linalg.cholesky(matrix) @ np.concatenate([np.eye(dims), -np.eye(dims)], axis=1)
        + landmarks.points[0][:, None]
    )
    for move in (lambda s: s.to("LPS"), lambda s: s.to_index(affine), lambda s: s.to("LPS").to_index(affine)):
        moved = move(landmarks)
        points = np.stack([move(LandmarkSet(("x",), point[None], "RAS")).points[0] for point in cloud.T], axis=1)
        expected = (points - moved.points[0][:, None]) @ (points - moved.points[0][:, None]).T / 2
        np.testing.assert_allclose(getattr(moved, key)[0], expected, atol=1e-9)
        assert np.isnan(getattr(moved, key)[1:3]).all() and np.isfinite(getattr(moved, key)[[0, 3]]).all()
    same(landmarks.to_index(affine).to_world(affine), landmarks)


def test_reorder_and_dimensions():
    landmarks = make(2)
    some = landmarks.reorder(["d", "new", "a"])
    for key in ("covariances", "regions"):
        np.testing.assert_array_equal(getattr(some, key)[[0, 2]], getattr(landmarks, key)[[3, 0]])
        assert np.isnan(getattr(some, key)[1]).all()
        deep = getattr(landmarks.with_spatial_dims(3), key)
        assert deep.shape == (4, 3, 3) and not deep[0, 2].any() and not deep[0, :, 2].any() and np.isnan(deep[2]).all()
    assert landmarks.with_spatial_dims(3).with_spatial_dims(2) == landmarks
    np.testing.assert_allclose(landmarks.with_spatial_dims(3).region_radius, landmarks.region_radius)
    assert landmarks != make(2, coverage=0.8) and landmarks != make(2, seed=1)


def test_uncertainty_and_radius_in_closed_form():
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    matrix = turn @ np.diag([9.0, 16.0]) @ turn.T
    landmarks = LandmarkSet(("a", "b"), [[0, 0], [NAN, NAN]], "RAS", (), None, None, [matrix] * 2, [matrix] * 2, 0.9)
    np.testing.assert_allclose(landmarks.uncertainty, [5, NAN])
    np.testing.assert_allclose(landmarks.region_radius, [4, NAN])
    plain = LandmarkSet(("a",), [[0, 0]])
    assert np.isnan(plain.uncertainty).all() and np.isnan(plain.region_radius).all()


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("covariances", np.eye(2), r"covariances has shape \(2, 2\); expected \(1, 2, 2\)"),
        ("covariances", [[[1, 2], [0, 1]]], "of landmark 'a' is .*expected a symmetric matrix"),
        ("covariances", [[[1, 2], [2, 1]]], "without negative eigenvalues"),
        ("covariances", [[[1, NAN], [NAN, 1]]], "all NaN if unknown"),
        ("regions", [[[np.inf, 0], [0, 1]]], "regions of landmark 'a'"),
        ("coverage", 1.0, "expected a probability between 0 and 1"),
        ("coverage", None, "belong together"),
    ],
)
def test_wrong_matrices(key, value, message):
    good = {"covariances": [np.eye(2)], "regions": [np.eye(2)], "coverage": 0.9}
    with pytest.raises(ValueError, match=message):
        LandmarkSet(("a",), [[0, 0]], **{**good, key: value})


@pytest.mark.parametrize("system", ["RAS", "LPS"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("suffix", ["mrk.json", "fcsv", "npz"])
def test_files_of_one_image_keep_them(tmp_path, suffix, dims, system):
    landmarks = make(dims, system)
    write_landmarks(tmp_path / f"a.{suffix}", landmarks)
    same(read_landmarks(tmp_path / f"a.{suffix}").with_spatial_dims(dims), landmarks)


def test_description_says_it_in_mm(tmp_path):
    landmarks = LandmarkSet(("a", "b"), [[1, 2], [3, 4]], "LPS", (), None, [0.5, 0.25], [np.diag([9, 16])] * 2)
    landmarks = landmarks.reorder(["a"])
    write_landmarks(tmp_path / "a.mrk.json", landmarks)
    [point] = json.loads((tmp_path / "a.mrk.json").read_text())["markups"][0]["controlPoints"]
    assert point["description"] == "score=0.5 uncertainty_mm=5 covariance_mm2=9,0,16"
    with_region = make(3)
    write_landmarks(tmp_path / "b.mrk.json", with_region)
    points = json.loads((tmp_path / "b.mrk.json").read_text())["markups"][0]["controlPoints"]
    assert [len(point["description"].split()) for point in points] == [5, 0, 0, 5]
    assert f"coverage=0.9 within_mm={with_region.region_radius[0]:.3g}" in points[0]["description"]


def test_point_lists_of_two_systems(tmp_path):
    """The second list is LPS, so that its xz and yz change their signs when it joins the first."""
    node = {"type": "Fiducial", "coordinateSystem": "RAS"}
    text = "covariance_mm2=4,1,0.5,4,0.25,4"
    nodes = [
        {
            **node,
            "coordinateSystem": system,
            "controlPoints": [{"label": system, "description": text, "position": [1, 2, 3]}],
        }
        for system in ("RAS", "LPS")
    ]
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": nodes}))
    first, second = read_landmarks(tmp_path / "a.mrk.json").covariances
    np.testing.assert_array_equal(first, [[4, 1, 0.5], [1, 4, 0.25], [0.5, 0.25, 4]])
    np.testing.assert_array_equal(second, [[4, 1, -0.5], [1, 4, -0.25], [-0.5, -0.25, 4]])


@pytest.mark.parametrize(
    "text, known",
    [
        ("covariance_mm2=1,0", False),
        ("covariance_mm2=1,0,x", False),
        ("covariance_mm2=inf,0,1", False),
        ("a note, covariance_mm2=1,0,1 and more", True),
        ("region_mm2=1,0,1", False),  # no coverage
    ],
)
def test_descriptions_are_free_text(tmp_path, text, known):
    point = {"label": "a", "description": text, "position": [1, 2, 3]}
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": [{"type": "Fiducial", "controlPoints": [point]}]}))
    landmarks = read_landmarks(tmp_path / "a.mrk.json")
    assert (landmarks.covariances is not None) == known and landmarks.regions is None


def test_one_file_states_one_coverage(tmp_path):
    points = [
        {"label": c, "description": f"coverage={c} region_mm2=1,0,1", "position": [1, 2, 3]} for c in ("0.9", "0.8")
    ]
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": [{"type": "Fiducial", "controlPoints": points}]}))
    with pytest.raises(ValueError, match="a.mrk.json: the regions state the coverages"):
        read_landmarks(tmp_path / "a.mrk.json")
    with pytest.raises(ValueError, match=r"state the coverages \[0.8, 0.9\]"):
        write_landmark_table(tmp_path / "a.csv", {"1": make(), "2": make(coverage=0.8)})


@pytest.mark.parametrize("form", ["long", "wide"])
@pytest.mark.parametrize("dims, system", [(2, "index"), (3, "LPS")])
def test_tables_keep_them(tmp_path, form, dims, system):
    """Together with a set that has none of them."""
    sets = {"1.png": make(dims, system), "2.png": LandmarkSet(NAMES, np.ones((4, dims)), system)}
    write_landmark_table(tmp_path / "t.csv", sets, form)
    found = read_landmark_table(tmp_path / "t.csv")
    same(found["1.png"], sets["1.png"])
    assert np.isnan(found["2.png"].covariances).all() and np.isnan(found["2.png"].region_radius).all()
    header = next(line for line in (tmp_path / "t.csv").read_text().splitlines() if line[0] != "#").split(",")
    entries = ["xx", "xy", "yy"] if dims == 2 else ["xx", "xy", "xz", "yy", "yz", "zz"]
    wanted = [f"{prefix}_{entry}" for prefix in ("cov", "region") for entry in entries]
    assert header[-len(wanted) :] == (wanted if form == "long" else [f"d_{name}" for name in wanted])


@pytest.mark.parametrize(
    "text, message",
    [
        ("landmark,x,y,cov_xx,cov_yy\na,1,2,1,1\n", "the columns are cov_xx,cov_yy; expected cov_xx,cov_xy,cov_yy"),
        ("landmark,x,y,cov_xx,cov_xy,cov_yy\na,1,2,1,,1\n", "covariances of landmark 'a'"),
        ("landmark,x,y,cov_xx,cov_xy,cov_yy\na,1,2,1,5,1\n", "without negative eigenvalues"),
        ("landmark,x,y,cov_xx,cov_xy,cov_yy\na,1,2,1,x,1\n", "line 2: column 'cov_xy' is 'x'"),
        ("landmark,x,y,region_xx,region_xy,region_yy\na,1,2,1,0,1\n", "expected a comment such as '# coverage=0.9'"),
    ],
)
def test_malformed_tables(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_landmarks(tmp_path / "t.csv")


def test_landmarks_with_such_names(tmp_path):
    names = ("score", "cov", "cov_x", "cov_xx")
    for form in ("long", "wide"):
        write_landmark_table(tmp_path / "t.csv", {"1": LandmarkSet(names, np.ones((4, 2)), "index")}, form)
        assert read_landmark_table(tmp_path / "t.csv")["1"].names == names
