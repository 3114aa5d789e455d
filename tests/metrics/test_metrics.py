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
"""Closed forms, plain numpy loops as second implementation, and what must not count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate

from monai_landmarks.metrics import (
    ImageSpecificErrorMetric,
    OutlierMetric,
    PointErrorMetric,
    SuccessDetectionRateMetric,
    error_is_lower,
    outlier_count,
    point_error,
    points_error_batch,
    success_detection_rate,
)
from monai_landmarks.spaces import world_points

NAN, INF = float("nan"), float("inf")


def make_points(images, landmarks, dims, seed=0, dtype=torch.float64):
    """Predicted and true points, with landmarks that have no truth and some that were not predicted."""
    rng = np.random.RandomState(seed)
    target = rng.uniform(0, 100, (images, landmarks, dims))
    pred = target + rng.normal(0, 2, target.shape)
    target[rng.rand(images, landmarks) < 0.2] = NAN
    pred[rng.rand(images, landmarks) < 0.1] = NAN
    return torch.as_tensor(pred, dtype=dtype), torch.as_tensor(target, dtype=dtype)


def loop_errors(pred, target, spacing=None):
    """Distances by plain loops: (found errors by landmark, number missed)."""
    found = [[] for _ in range(pred.shape[1])]
    missed = 0
    for p_image, t_image in zip(pred.tolist(), target.tolist()):
        for n, (p, t) in enumerate(zip(p_image, t_image)):
            if any(math.isnan(c) for c in t):
                continue
            if any(math.isnan(c) for c in p):
                missed += 1
                continue
            steps = spacing or [1.0] * len(t)
            found[n].append(math.sqrt(sum(((a - b) * s) ** 2 for a, b, s in zip(p, t, steps))))
    return found, missed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dims", [2, 3])
def test_point_error_against_loops(dims, dtype, device):
    pred, target = make_points(7, 5, dims, dtype=dtype)
    spacing = [0.5, 2.0, 3.0][:dims]
    for step in (None, spacing):
        found, missed = loop_errors(pred, target, step)
        values = [value for values in found for value in values]
        metric = PointErrorMetric(spacing=step)
        metric(pred[:3].to(device), target[:3].to(device))
        metric(list(pred[3:].to(device)), list(target[3:, None].squeeze(1).to(device)))
        expected = {"mean": np.mean(values), "std": np.std(values), "median": np.median(values), "max": max(values)}
        for reduction, value in expected.items():
            assert metric.aggregate(reduction).item() == pytest.approx(value, rel=1e-5)
        torch.testing.assert_close(
            metric.aggregate("mean_batch").cpu().double(),
            torch.tensor([np.mean(v) for v in found]).double(),
            rtol=1e-5,
            atol=0,
        )
        errors = point_error(pred, target, step)
        assert int(errors.isinf().sum()) == missed
        assert int(errors.isnan().sum()) == int(target.isnan().any(-1).sum())


def test_plain_numbers():
    pred = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [NAN, NAN]], [[1.0, 0.0], [9.0, 9.0], [0.0, 2.0]]])
    target = torch.zeros(2, 3, 2)
    target[1, 1] = NAN
    # errors: 5, 0, missed / 1, without truth, 2
    metric = PointErrorMetric()
    metric(pred, target)
    assert metric.aggregate() == 2.0
    assert metric.aggregate("median") == 1.5
    torch.testing.assert_close(metric.aggregate("mean_channel"), torch.tensor([2.5, 1.5]))
    torch.testing.assert_close(metric.aggregate("none"), torch.tensor([[5, 0, NAN], [1, NAN, 2]]), equal_nan=True)
    ipe = ImageSpecificErrorMetric()
    ipe(pred, target)
    assert [ipe.aggregate(r).item() for r in ("mean", "std", "median", "max")] == [2.0, 0.5, 2.0, 2.5]
    assert ipe.aggregate("none").tolist() == [2.5, 1.5]
    penalized = PointErrorMetric(missing_prediction=7.0)
    penalized(pred, target)
    assert penalized.aggregate() == 3.0
    infinite = PointErrorMetric(missing_prediction="inf")
    infinite(pred, target)
    assert infinite.aggregate() == INF


@pytest.mark.parametrize("strict", [False, True])
def test_found_and_lost_are_complementary_and_missed_is_lost(strict):
    pred, target = make_points(6, 4, 2)
    pred[0, 0], target[0, 0] = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0])  # exactly at a threshold
    thresholds = (1.0, 2.0, 4.0)
    errors = point_error(pred, target)
    counted = int((~errors.isnan()).sum())
    rate = success_detection_rate(errors, thresholds, strict)
    lost = outlier_count(errors, thresholds, strict)
    torch.testing.assert_close(rate * counted + lost, torch.full((3,), float(counted), dtype=rate.dtype))
    found, missed = loop_errors(pred, target)
    values = [value for values in found for value in values] + [INF] * missed
    for radius, r, n in zip(thresholds, rate, lost):
        inside = sum(value < radius if strict else value <= radius for value in values)
        assert r.item() == pytest.approx(inside / len(values))
        assert n.item() == len(values) - inside
    assert (success_detection_rate(errors[:1, :1], 2.0, strict).item() == 1.0) is not strict


def test_rates_and_counts_by_landmark_and_image():
    errors = torch.tensor([[0.5, 3.0, NAN], [INF, 1.0, 5.0]])
    for thresholds, shape in ((2.0, ()), ((2.0, 4.0), (2,))):
        sdr, outliers = SuccessDetectionRateMetric(thresholds), OutlierMetric(thresholds)
        for metric in (sdr, outliers):
            metric.extend(errors)
        assert sdr.aggregate().shape == outliers.aggregate().shape == shape
        assert sdr.aggregate("mean_batch").shape == outliers.aggregate("sum_batch").shape == (*shape, 3)
        assert sdr.aggregate("mean_channel").shape == outliers.aggregate("sum_channel").shape == (*shape, 2)
    torch.testing.assert_close(sdr.aggregate("mean_batch"), torch.tensor([[0.5, 0.5, 0.0], [0.5, 1.0, 0.0]]))
    assert outliers.aggregate("sum_channel").tolist() == [[1, 2], [0, 2]]


@pytest.mark.parametrize("dims", [2, 3])
def test_metatensors_are_compared_in_the_world(dims):
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = torch.tensor([[0.0, -0.5, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 1.5]])
    affine[:2, 3] = torch.tensor([10.0, -20.0])
    index = torch.rand(4, dims, dtype=torch.float64) * 50
    homogeneous = torch.cat([index, torch.zeros(4, 3 - dims), torch.ones(4, 1)], dim=1)
    world = (homogeneous @ affine.T)[:, :dims]
    pred = MetaTensor(world[None] + 3.0 / math.sqrt(dims), affine=torch.eye(4))
    label = MetaTensor(index[None].float(), affine=affine)
    torch.testing.assert_close(world_points(label)[0], world, rtol=0, atol=1e-4)
    metric = PointErrorMetric()
    metric([pred, pred], [label, label])
    assert metric.aggregate().item() == pytest.approx(3.0, abs=1e-5)
    batch = list_data_collate([{"label": label}, {"label": label}])["label"]  # affine (2, 4, 4)
    torch.testing.assert_close(world_points(batch)[1, 0], world, rtol=0, atol=1e-4)
    # pixels: coordinates as they stand
    shifted = MetaTensor(label.as_tensor() + 1.0, affine=affine)
    torch.testing.assert_close(
        points_error_batch(shifted, label, space="index"), torch.full((1, 4), math.sqrt(dims)), rtol=1e-5, atol=0
    )


def test_points_of_different_spaces_are_refused():
    affine = torch.diag(torch.tensor([0.5, 0.5, 1.0, 1.0]))
    index, world = MetaTensor(torch.zeros(1, 3, 2), affine=affine), MetaTensor(
        torch.zeros(1, 3, 2), affine=torch.eye(4)
    )
    with pytest.raises(ValueError, match="not known"):
        points_error_batch(torch.zeros(1, 3, 2), index)
    with pytest.raises(ValueError, match="different spaces"):
        points_error_batch(world, index, space="index")
    with pytest.raises(ValueError, match="different spaces"):
        points_error_batch(world, index, spacing=0.5)
    points_error_batch(world, torch.zeros(1, 3, 2))


@pytest.mark.parametrize(
    "pred, target", [((4, 2), (4, 2)), ((2, 4, 2), (2, 5, 2)), ((2, 3, 4, 2), (2, 3, 4, 2)), ((1, 4, 4), (1, 4, 4))]
)
def test_wrong_shapes_are_refused(pred, target):
    with pytest.raises(ValueError, match="shape"):
        PointErrorMetric()(torch.zeros(pred), torch.zeros(target))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="missing_prediction"):
        PointErrorMetric(missing_prediction="drop")
    with pytest.raises(ValueError, match="nothing to aggregate"):
        PointErrorMetric().aggregate()
    for metric in (PointErrorMetric("avg"), ImageSpecificErrorMetric("mean_batch"), OutlierMetric(reduction="mean")):
        metric(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))
        with pytest.raises(ValueError, match="reduction must be one of"):
            metric.aggregate()
    with pytest.raises(ValueError, match="requires the true points"):
        PointErrorMetric()(torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="space"):
        PointErrorMetric(space="voxel")(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))


def test_nothing_known_is_nan_and_not_an_error():
    metric = PointErrorMetric()
    metric(torch.zeros(2, 3, 2), torch.full((2, 3, 2), NAN))
    for reduction in ("mean", "std", "median", "max"):
        assert math.isnan(metric.aggregate(reduction))
    assert math.isnan(success_detection_rate(metric.errors(), 2.0))


def test_error_is_lower_never_holds_on_to_nan():
    assert error_is_lower(1.0, 2.0) and not error_is_lower(2.0, 1.0) and not error_is_lower(1.0, 1.0)
    assert error_is_lower(5.0, NAN) and not error_is_lower(NAN, 5.0) and not error_is_lower(NAN, NAN)
