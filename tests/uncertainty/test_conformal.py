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
"""Regions hold what they state: exactly where it can be counted, within the sampling error where it is drawn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from monai_landmarks.data import LandmarkSet
from monai_landmarks.heatmaps import decode_heatmaps, gaussian_heatmaps
from monai_landmarks.uncertainty import ConformalRegions, conformal_quantile, covered

NAN = float("nan")
NAMES = ("a", "b", "c")


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("count", [4, 19, 20, 57])
def test_finite_sample_bound_counted_out(coverage, count):
    """Each of n + 1 exchangeable scores is as likely the new one: the coverage is a count, without sampling error."""
    scores = np.random.RandomState(count).permutation(count + 1).astype(float)
    held = [score <= conformal_quantile(np.delete(scores, i), coverage) for i, score in enumerate(scores)]
    share = np.mean(held)
    enough = count >= coverage / (1 - coverage) - 1e-9
    assert share >= coverage - 1e-12
    assert share <= coverage + 1 / (count + 1) + 1e-12 if enough else share == 1


@pytest.mark.parametrize("coverage", [0.7, 0.9])
def test_pooled_bound_counted_out(coverage):
    """Each of n + 1 images may be the new one, and each of its landmarks the one that is asked for; numbers differ."""
    random = np.random.RandomState(1)
    for _ in range(20):
        scores = random.gamma(2, size=(24, 5)) * random.uniform(0.2, 3, (24, 1))  # of one image alike
        scores[random.uniform(size=scores.shape) < 0.4] = NAN
        scores[:, 0] = np.where(np.isnan(scores).all(axis=1), 1.0, scores[:, 0])
        bounds = [conformal_quantile(np.delete(scores, i, axis=0), coverage) for i in range(len(scores))]
        held = [np.nanmean(np.where(np.isnan(row), NAN, row <= bound)) for row, bound in zip(scores, bounds)]
        assert np.mean(held) >= coverage - 1e-12


def test_quantile_in_closed_form():
    assert conformal_quantile(np.arange(1, 10.0), 0.9) == 9 and math.isinf(conformal_quantile(np.arange(1, 9.0), 0.9))
    assert conformal_quantile(np.array([3, NAN, 1, 2.0]), 0.5) == 2  # the second of three: ceil(4 * 0.5)
    assert math.isinf(conformal_quantile(np.full(50, NAN), 0.5))
    # one landmark an image, written as a column, is the plain rule
    scores = np.random.RandomState(0).normal(size=33)
    assert conformal_quantile(scores[:, None], 0.8) == np.sort(scores)[math.ceil(34 * 0.8) - 1]
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_quantile(scores, 90)


def simulate(count, dims, random, names=NAMES):
    """Truth, and predictions whose covariances are right, and differ from image to image."""
    true, found = [], []
    for _ in range(count):
        points = random.uniform(0, 100, (len(names), dims))
        roots = random.normal(size=(len(names), dims, dims)) * random.gamma(1.5, size=(len(names), 1, 1))
        offsets = np.einsum("nij,nj->ni", roots, random.normal(size=points.shape))
        true.append(LandmarkSet(names, points))
        found.append(LandmarkSet(names, points + offsets, covariances=roots @ roots.transpose(0, 2, 1)))
    return found, true


def coverage_of(regions, found, true):
    return np.array([covered(regions.add_to(first), second) for first, second in zip(found, true)])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("shape", ["ball", "ellipse"])
@pytest.mark.parametrize("pooled", [False, True])
def test_held_out_coverage_of_known_noise(dims, shape, pooled):
    """90 % stated, 90 % found in 800 new images, within four standard errors of calibration and test together."""
    random = np.random.RandomState(dims)
    calibration, test = 199, 800
    regions = ConformalRegions.calibrate(*simulate(calibration, dims, random), 0.9, shape, pooled, min_std=0.0)
    assert regions.cases == (calibration,) * 3 and (len(set(regions.bounds)) == 1) == pooled
    held = coverage_of(regions, *simulate(test, dims, random))
    # Beta(180, 20) for the calibration, binomial for the test; landmarks are independent here
    error = math.sqrt(0.9 * 0.1 * (1 / (calibration + 2) + 1 / test))
    assert np.abs(held.mean(axis=0) - 0.9).max() < 4 * error
    if shape == "ellipse":  # the noise is Gaussian of this covariance: the bound is known, and squares chi-squared
        level = 1 - np.exp(-0.5 * np.square(regions.bounds))
        if dims == 3:
            level -= [
                math.erfc(b / math.sqrt(2)) - math.exp(-(b**2) / 2) + math.sqrt(2 / math.pi) * b * math.exp(-(b**2) / 2)
                for b in regions.bounds
            ]
        assert np.abs(level - 0.9).max() < 4 * math.sqrt(0.09 / calibration)


def test_ellipses_know_which_image_is_hard():
    random = np.random.RandomState(5)
    data, new = simulate(300, 2, random), simulate(300, 2, random)
    areas = []
    for shape in ("ball", "ellipse"):
        regions = ConformalRegions.calibrate(*data, 0.9, shape)
        areas.append(np.mean([np.sqrt(np.linalg.det(regions.add_to(found).regions)) for found in new[0]]))
    assert areas[1] < 0.5 * areas[0]


@pytest.mark.parametrize("dims", [2, 3])
def test_heatmaps_of_noisy_images(dims):
    """From heatmaps to regions: peaks that were moved by known noise, decoded with their own covariance."""
    generator = torch.Generator().manual_seed(dims)
    size, count = (24,) * dims, 120 if dims == 2 else 60
    true = torch.rand(count, 1, dims, generator=generator) * 8 + 8
    sigma = 1.0 + torch.rand(count, 1, 1, generator=generator)
    moved = true + 0.5 * sigma * torch.randn(true.shape, generator=generator)
    maps = torch.cat([gaussian_heatmaps(points, size, float(width)) for points, width in zip(moved, sigma)])
    maps = maps + 0.01 * torch.randn(maps.shape, generator=generator)
    decoded = decode_heatmaps(maps[:, None], dims)
    found = [
        LandmarkSet(("a",), points.double(), covariances=covariance.double())
        for points, covariance in zip(decoded.points, decoded.covariances)
    ]
    truth = [LandmarkSet(("a",), points.double()) for points in true]
    half = count // 2
    regions = ConformalRegions.calibrate(found[:half], truth[:half], 0.9, "ellipse")
    held = coverage_of(regions, found[half:], truth[half:])
    assert abs(held.mean() - 0.9) < 4 * math.sqrt(0.09 * 2 / half)
    assert regions.bounds[0] < 2.0  # the heatmap is twice as wide as the noise: 0.5 * 2.15 in 2-D, 0.5 * 2.5 in 3-D


def test_missing_stays_missing_and_does_not_count():
    found, true = simulate(30, 2, np.random.RandomState(0))
    lost = found[0].points.copy()
    lost[1] = NAN
    found[0] = LandmarkSet(NAMES, lost, covariances=found[0].covariances)
    true[1] = true[1].reorder(["a", "c"])
    regions = ConformalRegions.calibrate(found, true, 0.9, "ellipse")
    assert dict(zip(regions.names, regions.cases)) == {"a": 30, "b": 28, "c": 30}
    stated = regions.add_to(found[0].reorder(["b", "new", "a"]))
    assert np.isfinite(stated.region_radius).tolist() == [False, False, True]
    np.testing.assert_array_equal(covered(stated, true[0].reorder(stated.names))[:2], [NAN, NAN])
    without = ConformalRegions.calibrate(found, true).add_to(LandmarkSet(NAMES, true[0].points))
    assert np.isfinite(without.region_radius).all()
    assert np.isnan(regions.add_to(LandmarkSet(NAMES, true[0].points)).region_radius).all()


def test_too_few_cases_are_an_error():
    found, true = simulate(9, 2, np.random.RandomState(0))
    ConformalRegions.calibrate(found, true, 0.9)
    true[3] = true[3].reorder(["a", "c"])
    with pytest.raises(ValueError, match=r"coverage of 0.9, which takes at least 9 .*: b \(8\)\. Add images"):
        ConformalRegions.calibrate(found, true, 0.9)
    ConformalRegions.calibrate(found, true, 0.9, pooled=True)
    with pytest.raises(ValueError, match="at least 19"):
        ConformalRegions.calibrate(found, true, 0.95, pooled=True)


def test_region_of_an_overconfident_prediction():
    """A covariance of zero has the region that min_std gives it, and no error is divided by zero."""
    true = [LandmarkSet(("a",), [[float(i), 0.0]]) for i in range(12)]
    found = [LandmarkSet(("a",), case.points + [[0.3, 0.4]], covariances=np.zeros((1, 2, 2))) for case in true]
    regions = ConformalRegions.calibrate(found, true, 0.9, "ellipse", min_std=0.25)
    assert regions.bounds == pytest.approx((2.0,)) and regions.add_to(found[0]).region_radius == pytest.approx([0.5])
    for pooled in (False, True):  # every truth is infinitely far
        with pytest.raises(ValueError, match="errors of a, because the covariances are zero.*min_std above 0"):
            ConformalRegions.calibrate(found, true, 0.9, "ellipse", pooled, min_std=0.0)


def test_points_of_pictures_in_slicer_files():
    """z = 0 in all of them: the regions are those of 2-D points."""
    found, true = simulate(40, 2, np.random.RandomState(0))
    deep = [[landmarks.with_spatial_dims(3) for landmarks in sets] for sets in (found, true)]
    regions = ConformalRegions.calibrate(found, true, 0.8, "ellipse")
    again = ConformalRegions.calibrate(deep[0], true, 0.8, "ellipse")
    assert again.spatial_dims == 2 and again.bounds == pytest.approx(regions.bounds)
    stated = regions.add_to(deep[0][0].to("LPS"))
    assert stated.spatial_dims == 3 and stated.coordinate_system == "LPS"
    np.testing.assert_allclose(stated.to("RAS").regions[:, :2, :2], regions.add_to(found[0]).regions)


@pytest.mark.parametrize("shape", ["ball", "ellipse"])
def test_file(tmp_path, shape):
    regions = ConformalRegions.calibrate(*simulate(20, 3, np.random.RandomState(0)), 0.85, shape, min_std=0.2)
    regions.save(tmp_path / "regions.json")
    assert ConformalRegions.load(tmp_path / "regions.json") == regions


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "datalist"}, "contains no conformal regions"),
        ({"coverage": 90}, "between 0 and 1"),
        ({"coverage": None}, "must be numbers"),
        ({"landmarks": []}, "'landmarks' is malformed"),
        ({"landmarks": {"a": {"bound": "2"}}}, "must be numbers"),
        ({"landmarks": {"a": {"bound": -1, "cases": 3}}}, "not negative"),
        ({"shape": "cube"}, "shape is 'cube'"),
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3"),
        ({"min_std": -1}, "min_std is -1"),
    ],
)
def test_malformed_file(tmp_path, change, message):
    path = tmp_path / "regions.json"
    ConformalRegions(("a",), 0.9, (2.0,), (20,), 2).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message) as error:
        ConformalRegions.load(path)
    assert str(path) in str(error.value)


def test_errors():
    found, true = simulate(12, 2, np.random.RandomState(0))
    with pytest.raises(ValueError, match="12 predictions and 11 truths"):
        ConformalRegions.calibrate(found, true[1:])
    with pytest.raises(ValueError, match="no covariances"):
        ConformalRegions.calibrate(true, true, shape="ellipse")
    with pytest.raises(ValueError, match="pixels"):
        ConformalRegions.calibrate([case.to_index(np.eye(4)) for case in found], true)
    with pytest.raises(ValueError, match="no landmark"):
        ConformalRegions.calibrate([case.reorder(["x"]) for case in found], true)
    off = [LandmarkSet(case.names, np.pad(case.points, ((0, 0), (0, 1)), constant_values=57.0)) for case in found]
    for pair in ((off, true), (true, off)):
        with pytest.raises(ValueError, match="z = 57 mm cannot be compared with 2-D"):
            ConformalRegions.calibrate(*pair)
    regions = ConformalRegions.calibrate(found, true)
    with pytest.raises(ValueError, match="pixels"):
        regions.add_to(found[0].to_index(np.eye(4)))
    for names, cases in ((("a", "a"), (20, 20)), (("a", "b"), (20,))):
        with pytest.raises(ValueError, match="same length, and the names must be distinct"):
            ConformalRegions(names, 0.9, (1.0, 2.0), cases, 2)
    with pytest.raises(ValueError, match="are 2-D"):
        ConformalRegions(("a",), 0.9, (1.0,), (20,), 3).add_to(found[0])
