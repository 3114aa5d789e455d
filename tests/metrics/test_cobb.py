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

"""Spines of known tilts, a plain loop as second implementation, invariances, and the table of the AASCE challenge."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.data import AASCE_LANDMARKS, read_landmark_table
from monai_landmarks.metrics import CobbAngleMetric, angle_smape, cobb_angles

NAN = float("nan")


def spine(tilts, width=40.0, height=20.0, gap=8.0, start=(200.0, 30.0)):
    """Corners (4 V, 2) of vertebrae with the given tilts in degrees, each upright on the line through them."""
    center, corners = np.array(start), []
    for tilt in np.deg2rad(tilts):
        right, down = np.array([np.cos(tilt), np.sin(tilt)]), np.array([-np.sin(tilt), np.cos(tilt)])
        center = center + down * (height + gap) / 2
        corners += [center + right * x * width / 2 + down * y * height / 2 for y in (-1, 1) for x in (-1, 1)]
        center = center + down * (height + gap) / 2
    return torch.tensor(np.array(corners))


def tilts_through(places, values):
    """17 tilts that change evenly between some vertebrae."""
    return np.interp(range(17), places, values)


def loop_angles(points, rows):
    """The challenge's rule for one spine, step by step."""
    vertebrae = np.asarray(points).reshape(-1, 4, 2)
    lines = [(v[1] + v[3] - v[0] - v[2]) / 2 for v in vertebrae]
    plates = [(v[k] + v[k + 1]) / 2 for v in vertebrae for k in (0, 2)]

    def angle(a, b):
        a, b = lines[a], lines[b]
        return math.degrees(math.acos(max(-1.0, min(1.0, a @ b / math.sqrt((a @ a) * (b @ b))))))

    count = len(lines)
    main, i, j = max(((angle(a, b), a, b) for a in range(count) for b in range(a + 1, count)), key=lambda x: x[0])
    first, last = plates[0], plates[-1]
    sides = [(p[1] - last[1]) / (first[1] - last[1]) - (p[0] - last[0]) / (first[0] - last[0]) for p in plates[:-2]]
    if not (max(sides) > 0 > min(sides)):
        return [main, angle(0, i), angle(count - 1, j)]
    second, k = max((angle(i, a), -a) for a in range(i + 1))
    if plates[2 * i + 1][1] + plates[2 * j + 1][1] < rows - 1:
        return [main, second, max(angle(j, b) for b in range(j, count))]
    return [main, second, max(angle(-k, a) for a in range(-k + 1))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "tilts, height, expected",
    [
        (np.zeros(17), 600, (0, 0, 0)),
        (np.full(17, 25.0), 600, (0, 0, 0)),  # a straight spine that leans
        (np.linspace(-20, 20, 17), 600, (40, 0, 0)),  # C: the ends are the first and the last vertebra
        (tilts_through([0, 3, 12, 16], [-5, -20, 30, 10]), 600, (50, 15, 20)),  # C within: angles with first and last
        (tilts_through([0, 4, 10, 16], [5, -20, 25, -10]), 2000, (45, 25, 35)),  # S, main curve in the upper half
        (tilts_through([0, 3, 7, 12, 16], [10, -10, 20, -25, 10]), 2000, (45, 30, 35)),
        (tilts_through([0, 3, 7, 12, 16], [10, -10, 20, -25, 10]), 300, (45, 30, 20)),  # in the lower half: above twice
        (np.linspace(60, -60, 17), 600, (120, 0, 0)),  # more than a right angle
    ],
)
def test_spines_of_known_tilts(tilts, height, expected, dtype, device):
    angles = cobb_angles(spine(tilts).to(device, dtype), height)
    assert angles.dtype == dtype and angles.device.type == device.type
    torch.testing.assert_close(angles.cpu().double(), torch.tensor(expected).double(), atol=2e-4, rtol=0)


def test_against_a_loop_in_a_batch():
    rng = np.random.default_rng(0)
    batch = torch.stack(
        [spine(tilts_through([0, 4, 8, 12, 16], rng.normal(0, 15, 5)) + rng.normal(0, 2, 17)) for _ in range(60)]
    )
    rows = torch.tensor(rng.choice([350.0, 520.0, 900.0], 60))
    expected = [loop_angles(points, row) for points, row in zip(batch, rows.tolist())]
    angles = cobb_angles(batch.reshape(3, 20, 68, 2), rows.reshape(3, 20))
    torch.testing.assert_close(angles.reshape(60, 3), torch.tensor(expected).double(), atol=1e-4, rtol=0)
    single = cobb_angles(batch[:, None], 520)[:, 0]
    torch.testing.assert_close(single, torch.stack([cobb_angles(points, 520.0) for points in batch]))


BENT = [
    tilts_through([0, 4, 10, 16], [5, -20, 25, -10]),
    tilts_through([0, 3, 7, 12, 16], [10, -10, 20, -25, 10]),
    tilts_through([0, 6, 12, 16], [10, 8, -12, 40]),
    np.linspace(-20, 20, 17),
]


@pytest.mark.parametrize("tilts", BENT)
def test_what_must_not_matter(tilts):
    points = spine(tilts)
    swap = torch.arange(68).reshape(-1, 2).flip(1).reshape(-1)  # left and right corners change places in a mirror
    without, rows = cobb_angles(points), 500.0
    for moved in (
        3.7 * points,
        points + torch.tensor([-1000.0, 77.0]),
        (points * torch.tensor([-1.0, 1.0]))[swap],
        -points,  # world points of a picture
        MetaTensor(-0.3 * points, affine=torch.eye(4)),
    ):
        torch.testing.assert_close(cobb_angles(moved), without)
    # pixel centers are whole numbers: a finer image has its first center further up
    finer = (points + 0.5) * 2 - 0.5
    torch.testing.assert_close(cobb_angles(finer, 2 * rows), cobb_angles(points, rows))
    torch.testing.assert_close(cobb_angles((points * torch.tensor([-1.0, 1.0]))[swap], rows), cobb_angles(points, rows))


def test_middle_of_the_points_or_of_the_image():
    points = spine(BENT[1])
    middle = (points[:, 1].min() + points[:, 1].max()).item()
    torch.testing.assert_close(cobb_angles(points), cobb_angles(points, middle + 1))
    # the ends of the main curve are the vertebrae 7 and 12; the middle of rows 0 to h - 1 is (h - 1) / 2
    ends = points.reshape(17, 4, 2)[[7, 12], 2:, 1].mean().item()
    assert cobb_angles(points, 2 * ends + 1.1)[2].item() == pytest.approx(35)
    assert cobb_angles(points, 2 * ends + 0.9)[2].item() == pytest.approx(20)


def test_missing_corner():
    points = torch.stack([spine(tilts) for tilts in BENT])
    points[1, 40] = NAN
    points[2, 0, 1] = float("inf")
    angles = cobb_angles(points)
    assert angles.isnan().all(-1).tolist() == [False, True, True, False]
    torch.testing.assert_close(angles[3], cobb_angles(points[3]))


@pytest.mark.parametrize("shape", [(68, 3), (67, 2), (4, 2), (2,), (3, 66, 2)])
def test_shapes_are_checked(shape):
    with pytest.raises(ValueError, match=r"four corners of each of V vertebrae, got \("):
        cobb_angles(torch.zeros(shape))


def test_whole_numbers_and_few_vertebrae():
    points = torch.tensor([[0, 0], [10, 0], [0, 5], [10, 5], [0, 10], [10, 20], [0, 15], [10, 25]])
    assert cobb_angles(points).tolist() == pytest.approx([45, 0, 0])


def test_the_angles_of_the_challenge(aasce_spine_root):
    """The table was made from the corners in the order of their files, which qc_flags.csv names where it is wrong."""
    table = read_landmark_table(aasce_spine_root / "landmarks.csv")
    with open(aasce_spine_root / "splits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(aasce_spine_root / "qc_flags.csv", newline="") as file:
        sorted_since = {row["image"] for row in csv.DictReader(file) if "re-sorted" in row["issue"]}
    points = np.array([table[row["image"]].reorder(AASCE_LANDMARKS).points for row in rows])
    wrong_order = np.array([row["image"] in sorted_since for row in rows])
    points[wrong_order] = np.roll(points[wrong_order], -4, axis=1)
    expected = torch.tensor([[float(row[f"cobb{i}"]) for i in (1, 2, 3)] for row in rows])
    angles = cobb_angles(torch.tensor(points), 768)
    assert len(rows) == 481 and wrong_order.sum() == 18
    assert (angles - expected).abs().max() < 0.1  # corners are rounded to 0.01 pixel
    # in the right order the main angle is the same, the others are not
    again = cobb_angles(torch.tensor(np.roll(points[wrong_order], 4, axis=1)), 768)
    assert (again - expected[wrong_order])[:, 0].abs().max() < 0.1
    assert ((again - expected[wrong_order])[:, 1:].abs().amax(1) > 0.5).sum() >= 17


def test_smape_in_closed_form():
    pred = torch.tensor([[30.0, 10.0, 0.0], [5.0, 5.0, 5.0], [1.0, 2.0, NAN], [0.0, 0.0, 0.0]])
    target = torch.tensor([[40.0, 10.0, 10.0], [5.0, 5.0, 5.0], [1.0, 2.0, 3.0], [60.0, 0.0, 0.0]])
    assert angle_smape(pred, target).tolist() == pytest.approx([20.0, 0.0, NAN, 100.0], nan_ok=True)


@pytest.mark.parametrize("as_points", [True, False])
def test_metric(as_points, device):
    tilts = [np.linspace(-a, a, 17) for a in (5, 10, 20)]
    wrong = [np.linspace(-a, a, 17) for a in (6, 10, 15)]
    pred, target = (torch.stack([spine(t) for t in all_tilts]).to(device) for all_tilts in (wrong, tilts))
    truth = target if as_points else cobb_angles(target)
    metric = CobbAngleMetric()
    metric(pred[:2], truth[:2])
    metric([pred[2][None]], [truth[2][None] if as_points else truth[2]])
    assert metric.get_buffer().shape == (3, 2, 3)
    assert metric.aggregate().item() == pytest.approx((2 + 0 + 10) / 9, abs=1e-4)
    assert metric.aggregate("mae_batch").tolist() == pytest.approx([4, 0, 0], abs=1e-4)
    assert metric.aggregate("smape").item() == pytest.approx(100 * (2 / 22 + 0 + 10 / 70) / 3, abs=1e-4)
    with pytest.raises(ValueError, match="mae, mae_batch, smape, got 'mean'"):
        metric.aggregate("mean")
    metric.reset()
    with pytest.raises(ValueError, match="not called on any points"):
        metric.aggregate()


def test_what_is_not_known_does_not_count():
    pred = torch.stack([spine(np.linspace(-a, a, 17)) for a in (5, 10, 20)])
    truth = torch.tensor([[12.0, 1.0, NAN], [20.0, 0.0, 0.0], [40.0, 0.0, 0.0]])
    pred[2, 7] = NAN
    metric = CobbAngleMetric()
    metric(pred, truth)
    assert metric.aggregate().item() == pytest.approx((2 + 1) / 5, abs=1e-4)
    assert metric.aggregate("mae_batch").tolist() == pytest.approx([1, 0.5, 0], abs=1e-4)
    assert metric.aggregate("smape").item() == pytest.approx(0.0, abs=1e-4)
    with pytest.raises(ValueError, match="requires the ground truth"):
        metric._compute_tensor(pred)


def test_metric_in_the_lower_half_of_an_image():
    points = spine(BENT[1])[None]
    for height, third in ((2000, 35), (300, 20)):
        metric = CobbAngleMetric("mae_batch", height=height)
        metric(points, torch.zeros(1, 3))
        assert metric.aggregate()[2].item() == pytest.approx(third, abs=1e-4)
