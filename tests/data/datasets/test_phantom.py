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
"""The phantoms: exact landmarks, the same files every time, files that MONAI reads back."""

from __future__ import annotations

import json
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from monai.transforms import LoadImage

from monai_landmarks.data import read_landmark_table, read_landmarks
from monai_landmarks.data.datasets.phantom import (
    HAND_LANDMARKS,
    SPINE_LANDMARKS,
    SPINE_PAIRS,
    HandPose,
    hand_phantom,
    hand_skeleton,
    place_hand,
    spine_phantom,
    write,
    write_hand_phantom,
    write_spine_phantom,
)
from monai_landmarks.data.datasets.phantom.hand import _add_marker
from monai_landmarks.data.datasets.phantom.radiograph import Bone, Canvas, blur, closed_spline, signed_distance


def _placed(seed: int, extent: float = 240.0):
    return place_hand(hand_skeleton(HandPose.random(np.random.default_rng(seed))), (extent, extent), rotation=8)


def _draw(skeleton, size: int, spacing: float) -> np.ndarray:
    canvas = Canvas((size, size), spacing)
    canvas.add_soft_tissue(skeleton.chains, 0.02)
    for bone in skeleton.bones:
        canvas.add_bone(bone, 0.1)
    return canvas.bone + canvas.soft


def _sample(volume: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Linear interpolation at index points (N, D), written out independently of any library's grid convention."""
    low = np.floor(index).astype(int)
    total = np.zeros(len(index))
    for corner in np.ndindex(*(2,) * index.shape[1]):
        at = low + corner
        weight = np.prod(1 - np.abs(index - at), axis=1)
        total += weight * volume[tuple(np.clip(at, 0, np.array(volume.shape) - 1).T)]
    return total


# ---------------------------------------------------------------------------------------------------- drawing


def test_spline_goes_through_its_points_and_distance_is_euclidean():
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    control = 10 * np.stack([np.cos(angle), np.sin(angle)], 1)
    outline = closed_spline(control, samples=8)
    assert np.allclose(outline[::8], control)
    x, y = np.random.default_rng(0).uniform(-15, 15, (2, 500))
    assert np.allclose(signed_distance(x, y, outline), 10 - np.hypot(x, y), atol=0.02)


def test_solid_ball_attenuates_by_its_path_length():
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    ball = Bone(20 + 10 * np.stack([np.cos(angle), np.sin(angle)], 1), 10.0, (1.0, 1.0), (0.1, 0.1))
    canvas = Canvas((400, 400), 0.1)
    canvas.add_bone(ball, cortical=0.1)
    distance = np.hypot(canvas.x[:, None] - 20, canvas.y - 20)
    expected = 0.2 * np.sqrt(np.maximum(100 - distance**2, 0))
    assert np.abs(canvas.bone - expected)[np.abs(distance - 10) > 0.3].max() < 0.02
    # what is drawn is the bone's volume, edges included
    assert canvas.bone.sum() * 0.1**2 == pytest.approx(0.1 * 4 / 3 * np.pi * 1000, rel=0.005)


@pytest.mark.parametrize("sigma", [0.4, 2.0, 9.0])
def test_blur_keeps_a_blob_in_place_and_adds_variance(sigma: float):
    grid = np.arange(121) - np.array([[57.3], [64.1]])
    blob = np.exp(-0.5 * (grid[0][:, None] ** 2 + grid[1] ** 2) / 4.0**2)
    result = blur(blob, sigma)
    mass = result.sum()
    assert mass == pytest.approx(blob.sum(), rel=2e-3)
    for offset in (grid[0][:, None], grid[1][None]):
        assert abs((offset * result).sum() / mass) < 0.05
        assert (offset**2 * result).sum() / mass == pytest.approx(4.0**2 + sigma**2, rel=0.06)


# ------------------------------------------------------------------------------------------------------- hand


def test_what_lies_outside_of_the_canvas_is_not_drawn():
    """The canvas shows the part of a larger one that it covers, also where a bone or a chain is outside of it."""
    skeleton = _placed(0)
    whole, part = _draw(skeleton, 120, 2.0), _draw(skeleton, 40, 2.0)
    for outlines in ([bone.outline for bone in skeleton.bones], [points for points, _ in skeleton.chains]):
        assert max(outline.min() for outline in outlines) > 100
    assert part.any()
    np.testing.assert_allclose(part, whole[:40, :40], atol=1e-5)


def test_the_lead_letter_needs_room():
    canvas, rng = Canvas((100, 120), 1.0), np.random.default_rng(0)
    corners = np.array([(10.0, 12.0), (90.0, 12.0), (10.0, 108.0), (90.0, 108.0)])
    empty = np.zeros((100, 120))
    for chain, room in ((corners, False), (corners[:3], True)):
        marked = _add_marker(empty, SimpleNamespace(chains=[(chain, np.ones(len(chain)))]), canvas, rng)
        assert bool(marked.any()) == room
        # the letter has the free corner to itself
        assert not marked[:50].any() and not marked[:, :60].any()


def test_hand_has_37_different_landmarks_inside_and_varies():
    assert len(set(HAND_LANDMARKS)) == 37
    points = []
    for seed in range(40):
        _, found = hand_phantom(seed, size=(64, 64))
        assert found.names == HAND_LANDMARKS and found.coordinate_system == "index" and not found.missing.any()
        points.append(found.points)
    points = np.array(points)
    assert points.min() > 1 and points.max() < 62
    assert (points.std(0) > 1.5).all()  # of 64 pixels
    shape = points - points.mean(1, keepdims=True)
    assert np.linalg.norm(shape - shape.mean(0), axis=-1).mean() > 1  # not only a shift


def test_hand_image_is_an_image_and_depends_on_the_seed_only():
    image, found = hand_phantom(3, size=(96, 128))
    again, found_again = hand_phantom(3, size=(96, 128))
    assert image.shape == (96, 128) and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.1
    assert np.array_equal(image, again) and found == found_again
    assert not np.array_equal(image, hand_phantom(4, size=(96, 128))[0])


def test_hand_is_articulated_as_a_left_hand():
    points = dict(zip(HAND_LANDMARKS, _placed(1).landmarks))  # y downward
    for finger in range(2, 6):
        chain = [
            points[f"{part}_{finger}_base"]
            for part in ("metacarpal", "proximal_phalanx", "middle_phalanx", "distal_phalanx")
        ]
        heights = [p[1] for p in [*chain, points[f"distal_phalanx_{finger}_tip"]]]
        assert heights == sorted(heights, reverse=True)
    assert np.all(np.diff([points[f"distal_phalanx_{finger}_tip"][0] for finger in range(1, 6)]) < 0)
    assert points["radius_styloid"][0] > points["ulna_styloid"][0]


def test_every_landmark_lies_on_the_border_of_a_bone():
    skeleton = hand_skeleton(HandPose.random(np.random.default_rng(5)))
    for name, point in zip(HAND_LANDMARKS, skeleton.landmarks):
        # away from the outline by 0.3 mm there is the bone on one side and none on the other
        ring = point + 0.3 * np.stack([np.cos(a := np.arange(0, 2 * np.pi, 0.2)), np.sin(a)], 1)
        inside = [(_winding(ring, bone.outline) != 0).mean() for bone in skeleton.bones]
        assert any(0.15 < share < 0.75 for share in inside), name


def _winding(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Turns of a polygon around each point, from the angles between its corners."""
    to = polygon[None] - points[:, None]
    angle = np.unwrap(np.arctan2(to[..., 1], to[..., 0]), axis=1)
    last = np.arctan2(to[:, :1, 1], to[:, :1, 0])
    full = np.unwrap(np.concatenate([angle, last], 1), axis=1)
    return np.rint((full[:, -1] - full[:, 0]) / (2 * np.pi))


def test_fingertip_is_where_the_bone_ends_in_the_picture():
    skeleton, spacing = _placed(2), 0.1
    for finger in range(1, 6):
        tip, base = (
            skeleton.landmarks[HAND_LANDMARKS.index(f"distal_phalanx_{finger}_{end}")] for end in ("tip", "base")
        )
        canvas = Canvas((2400, 2400), spacing)
        # the bone whose center is nearest to the middle of the phalanx
        bone = min(skeleton.bones, key=lambda b: np.linalg.norm(b.outline.mean(0) - (tip + base) / 2))
        canvas.add_bone(bone, 0.1)
        along = (tip - base) / np.linalg.norm(tip - base)
        for end, outward in ((tip, along), (base, -along)):
            steps = np.arange(-2, 2, 0.05)
            profile = _sample(canvas.bone, (end + steps[:, None] * outward) / spacing - 0.5)
            assert steps[profile > 1e-3].max() == pytest.approx(0, abs=0.2)


def test_a_finer_picture_shows_the_same_by_the_half_pixel_rule():
    skeleton = _placed(3)
    coarse, fine = _draw(skeleton, 120, 2.0), _draw(skeleton, 480, 0.5)
    pooled = fine.reshape(120, 4, 120, 4).mean((1, 3))
    error = np.abs(coarse - pooled).mean()
    for shift in (-1, 1):  # an eighth of a millimeter less or more would not fit better
        for axis in (0, 1):
            moved = np.roll(fine, shift, axis).reshape(120, 4, 120, 4).mean((1, 3))
            assert error < 0.8 * np.abs(coarse - moved).mean()
    # hand_phantom draws the same hand at any size
    small, large = hand_phantom(8, (128, 128), 1.8)[1].points, hand_phantom(8, (512, 512), 0.45)[1].points
    assert np.allclose(large, (small + 0.5) * 4 - 0.5)


def test_turning_the_skeleton_turns_picture_and_landmarks_alike():
    skeleton = _placed(4)
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])  # (x, y) -> (240 - y, x)
    turned = skeleton.moved(quarter, np.array([240.0, 0.0]))
    image, image_turned = _draw(skeleton, 160, 1.5), _draw(turned, 160, 1.5)
    assert np.allclose(image_turned, np.rot90(image, 1), atol=2e-3)
    index, index_turned = skeleton.landmarks / 1.5 - 0.5, turned.landmarks / 1.5 - 0.5
    assert np.allclose(index_turned, np.stack([159 - index[:, 1], index[:, 0]], 1))
    assert np.allclose(_sample(image, index), _sample(image_turned, index_turned), atol=2e-3)
    shifted = skeleton.moved(np.eye(2), np.array([3.0, -4.5]))
    assert np.allclose(_draw(shifted, 160, 1.5)[4:, :-5], np.roll(image, (2, -3), (0, 1))[4:, :-5], atol=2e-3)


def test_pose_moves_what_it_names():
    neutral = HandPose.neutral()
    straight = hand_skeleton(neutral)
    tilted = HandPose(**{**vars(neutral), "flexion": np.full((5, 4), 60.0)})
    assert straight.landmarks.shape == (37, 2)
    ends = [HAND_LANDMARKS.index(f"distal_phalanx_3_{end}") for end in ("base", "tip")]
    length = [np.linalg.norm(np.diff(hand_skeleton(p).landmarks[ends], axis=0)) for p in (neutral, tilted)]
    assert length[1] == pytest.approx(0.5 * length[0])
    bent = HandPose(**{**vars(neutral), "wrist": 10.0})
    moved = np.linalg.norm(hand_skeleton(bent).landmarks - straight.landmarks, axis=1) > 1e-6
    assert {name for name, m in zip(HAND_LANDMARKS, moved) if m} == {
        name for name in HAND_LANDMARKS if name.startswith(("radius", "ulna"))
    }


# ------------------------------------------------------------------------------------------------ hand, files


def _content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_hand_files_are_the_same_every_time_and_read_back(tmp_path: Path):
    options = {"size": (80, 96), "missing_fraction": 0.2, "val_frac": 0.25, "test_frac": 0.25}
    datalist = write_hand_phantom(tmp_path / "a", 4, seed=5, **options)
    write_hand_phantom(tmp_path / "b", 4, seed=5, **options)
    assert datalist == tmp_path / "a" / "datalist.json"
    assert _content(tmp_path / "a") == _content(tmp_path / "b")

    content = json.loads(datalist.read_text())
    assert [len(content[section]) for section in ("training", "validation", "testing")] == [2, 1, 1]
    assert content["landmarks"] == {"names": list(HAND_LANDMARKS), "pairs": [], "coordinate_system": "index"}
    table = read_landmark_table(tmp_path / "a" / "landmarks.csv")
    missing = 0
    for index, item in enumerate(content["training"] + content["validation"] + content["testing"]):
        expected, found = hand_phantom(np.random.default_rng([5, index]), size=(80, 96))
        image = LoadImage(reader="PILReader", image_only=True)(tmp_path / "a" / item["image"])
        assert np.array_equal(np.asarray(image), np.rint(expected * 255))
        label = np.array(item["label"], float)
        missing += np.isnan(label[:, 0]).sum()
        known = ~np.isnan(label[:, 0])
        assert np.allclose(label[known], found.points[known], atol=1e-4)
        row = table[Path(item["image"]).name].reorder(HAND_LANDMARKS)
        assert np.array_equal(row.points, label, equal_nan=True)
        # as the hand is about 50 mm wide at the wrist
        scale = np.array(item["spacing"])
        wrist = (
            found.points[found.names.index("radius_styloid")] - found.points[found.names.index("ulna_styloid")]
        ) * scale
        assert 35 < np.linalg.norm(wrist) < 60
    assert 10 < missing < 60  # 0.2 * 148 = 30 expected


def test_the_command_writes_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    arguments = ["hand", str(tmp_path / "a"), "--num_images", "2", "--size", "(48, 64)", "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["phantom", *arguments])
    runpy.run_module("monai_landmarks.data.datasets.phantom", run_name="__main__")
    write_hand_phantom(tmp_path / "b", 2, size=(48, 64), seed=3)
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "a", tmp_path / "b")
    )
    assert first == second and len(first) > 3


def test_labels_jitter_as_they_are_told(tmp_path: Path):
    """Same pictures, exact labels for testing, and elsewhere errors of the given size in mm, different for each landmark."""
    options = {"size": (32, 40), "spacing": 5.0, "val_frac": 0.3, "test_frac": 0.1}
    deviation = np.linspace(0.0, 36.0, 37)
    exact, jittered = (
        json.loads(write_hand_phantom(tmp_path / name, 40, label_jitter=jitter, **options).read_text())
        for name, jitter in (("exact", 0.0), ("jittered", deviation.tolist()))
    )
    assert "label_jitter" not in exact["phantom"] and jittered["phantom"]["label_jitter"] == deviation.tolist()
    assert jittered["testing"] == exact["testing"]
    for name in ("hand_0000.png", "hand_0039.png"):
        files = [(tmp_path / folder / "images" / name).read_bytes() for folder in ("exact", "jittered")]
        assert files[0] == files[1]
    labels = [np.array([i["label"] for i in c["training"] + c["validation"]]) for c in (exact, jittered)]
    error = 5.0 * (labels[1] - labels[0])
    assert error.shape == (36, 37, 2) and (error[:, 0] == 0).all()
    # of 72 draws the standard deviation is known to some 8 %; over all landmarks the ratio is close to one
    ratio = error[:, 1:].std(axis=(0, 2)) / deviation[1:]
    assert (abs(ratio - 1) < 0.4).all() and abs(ratio.mean() - 1) < 0.05
    for wrong in (-1.0, [1.0, 2.0]):
        with pytest.raises(ValueError, match="label_jitter"):
            write_hand_phantom(tmp_path / "wrong", 2, label_jitter=wrong)


def test_hand_image_does_not_depend_on_how_many_there_are(tmp_path: Path):
    write_hand_phantom(tmp_path / "few", 2, size=(48, 48), val_frac=0.15)
    write_hand_phantom(tmp_path / "many", 5, size=(48, 48), val_frac=0.15)
    few, many = _content(tmp_path / "few" / "images"), _content(tmp_path / "many" / "images")
    assert len(many) == 5 and few.items() <= many.items() and len(set(many.values())) == 5


def test_phantom_is_written_once_and_anew_if_it_differs_or_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(write, "hand_phantom", lambda *a: calls.append(a) or hand_phantom(*a))
    first = write_hand_phantom(tmp_path, 3, size=(48, 48), val_frac=0.15)
    assert write_hand_phantom(tmp_path, 3, size=[48, 48], val_frac=0.15) == first and len(calls) == 3
    write_hand_phantom(tmp_path, 3, seed=1, size=(48, 48), val_frac=0.15)
    assert len(calls) == 6
    (tmp_path / "images" / "hand_0001.png").unlink()
    write_hand_phantom(tmp_path, 3, seed=1, size=(48, 48), val_frac=0.15)
    assert len(calls) == 9 and len(list(tmp_path.glob("images/*"))) == 3


def test_phantom_with_a_lost_landmark_file_is_written_again(tmp_path: Path):
    options = {"size": (8, 8, 12), "spacing": (15.0, 15.0, 15.0)}
    write_spine_phantom(tmp_path, 2, **options)
    before = _content(tmp_path)
    (tmp_path / "points" / "spine_0001.mrk.json").unlink()
    write_spine_phantom(tmp_path, 2, **options)
    assert _content(tmp_path) == before


def test_interrupted_phantom_leaves_no_items_and_can_be_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datalist = write_hand_phantom(tmp_path, 2, size=(48, 48), val_frac=0.15)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "hand_phantom", stop)
    with pytest.raises(KeyboardInterrupt):
        write_hand_phantom(tmp_path, 3, size=(48, 48), val_frac=0.15)
    monkeypatch.undo()
    assert json.loads(datalist.read_text()) == {"phantom": "incomplete"}
    write_hand_phantom(tmp_path, 3, size=(48, 48), val_frac=0.15)
    assert len(json.loads(datalist.read_text())["training"]) == 3
    assert {path.name for path in tmp_path.rglob(".*")} <= {".writing.lock"}


def test_of_several_writers_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_hand_phantom(
        tmp_path, 3, seed=1, size=(48, 48), val_frac=0.15
    )  # an older phantom, which must not be taken for the new one
    calls, start = [], Barrier(4)
    monkeypatch.setattr(write, "hand_phantom", lambda *a: calls.append(a) or hand_phantom(*a))

    def ask(_: int) -> list[Any]:
        start.wait()
        return json.loads(write_hand_phantom(tmp_path, 3, size=(48, 48), val_frac=0.15).read_text())["training"]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len(calls) == 3 and found == found[:1] * 4


@pytest.mark.parametrize("options", [{"num_images": 0}, {"val_frac": 0.8, "test_frac": 0.4}, {"test_frac": -0.5}])
def test_impossible_sections_are_refused(tmp_path: Path, options: dict[str, Any]):
    with pytest.raises(ValueError, match="num_images"):
        write_hand_phantom(tmp_path, **dict[str, Any](num_images=4) | options)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------ spine

FINE = {"size": (112, 88, 176), "spacing": (1.1, 1.3, 1.0)}


@pytest.mark.parametrize("oblique", [0.0, 20.0])
def test_spine_landmarks_are_where_the_volume_shows_them(oblique: float):
    volume, affine, found = spine_phantom(11, oblique=oblique, **FINE)
    assert volume.shape == FINE["size"] and volume.dtype == np.int16 and affine.shape == (4, 4)
    assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), FINE["spacing"], atol=1e-6)
    assert found.names == SPINE_LANDMARKS and len(found) == 20 and found.pairs == SPINE_PAIRS
    points = dict(zip(found.names, found.points))
    inverse = np.linalg.inv(affine)

    def profile(start: np.ndarray, direction: np.ndarray, distance: np.ndarray) -> np.ndarray:
        world = start + distance[:, None] * direction / np.linalg.norm(direction)
        return _sample(volume, world @ inverse[:3, :3].T + inverse[:3, 3])

    steps = np.arange(0, 16.5, 0.25)  # not as far as the next body
    uneven = []
    for level in ("L2", "L3", "L4"):
        center = points[f"{level}_body_center"]
        if np.isnan(center).any():
            continue
        assert profile(center, np.ones(3), np.zeros(1)) < 400  # spongy bone, not cortex
        above, below = points[f"L{int(level[1]) - 1}_body_center"], points[f"L{int(level[1]) + 1}_body_center"]
        up = steps[profile(center, above - below, steps).argmax()]
        down = steps[profile(center, below - above, steps).argmax()]
        uneven.append(up - down)
        assert 8 < up < 16  # half the height of a body
    assert len(uneven) >= 1 and abs(np.mean(uneven)) < 1.5
    outside = np.arange(2.0, 5, 0.5)
    inside = np.arange(-4.0, -0.7, 0.5)
    for level in ("L1", "L2", "L3", "L4", "L5"):
        # along each process, whose direction is known up to a few degrees: from the other side's tip, and from the front
        left, right = points[f"{level}_transverse_left_tip"], points[f"{level}_transverse_right_tip"]
        if not np.isnan([left, right]).any():
            assert profile(left, left - right, inside).max() > profile(left, left - right, outside).max() + 100
            assert profile(right, right - left, inside).max() > profile(right, right - left, outside).max() + 100


def test_spine_is_right_side_up_in_ras():
    for seed in range(5):
        _, _, found = spine_phantom(seed, size=(32, 32, 48), spacing=(4, 4, 4))
        points = dict(zip(found.names, found.points))
        for left, right in SPINE_PAIRS:
            assert points[left][0] < points[right][0] - 30  # x runs to the patient's right
        for level in ("L1", "L2", "L3", "L4", "L5"):
            assert points[f"{level}_spinous_tip"][1] < points[f"{level}_body_center"][1] - 30  # y runs to anterior
        assert np.all(np.diff([points[f"L{k}_body_center"][2] for k in range(1, 6)]) < -20)  # z runs up


def test_spine_landmarks_do_not_depend_on_the_grid():
    coarse, fine = (
        spine_phantom(6, size=size, spacing=spacing)
        for size, spacing in (((40, 40, 60), (3, 3, 3)), ((120, 120, 180), (1, 1, 1)))
    )
    # both fields of view have the same extent, so their outer corners agree: half a voxel from the first center
    corner = [affine[:3, 3] - 0.5 * np.diag(affine)[:3] for _, affine, _ in (coarse, fine)]
    assert np.allclose(corner[0], corner[1], atol=1e-4)
    assert np.allclose(coarse[2].points, fine[2].points, atol=1e-4)
    pooled = fine[0].reshape(40, 3, 40, 3, 60, 3).mean((1, 3, 5))
    assert np.corrcoef(pooled.ravel(), coarse[0].ravel())[0, 1] > 0.98


def test_spine_landmarks_outside_of_the_volume_are_missing():
    volume, affine, whole = spine_phantom(2)
    assert not whole.missing.any()
    lost = 0
    for seed in range(4):
        volume, affine, found = spine_phantom(seed, size=(32, 32, 48), spacing=(4, 4, 4), crop=1.0)
        lost += found.missing.sum()
        index = found.to_index(affine).points[~found.missing]
        assert (index >= -0.5).all() and (index <= np.array(volume.shape) - 0.5).all()
    assert 8 < lost < 60


def test_spine_files_are_the_same_every_time_and_read_back(tmp_path: Path):
    options = {"size": (24, 24, 36), "spacing": (5.0, 5.0, 5.0), "oblique": 15.0}
    datalist = write_spine_phantom(tmp_path / "a", 2, seed=9, val_frac=0.5, test_frac=0, **options)
    write_spine_phantom(tmp_path / "b", 2, seed=9, val_frac=0.5, test_frac=0, **options)
    assert _content(tmp_path / "a") == _content(tmp_path / "b")
    content = json.loads(datalist.read_text())
    assert content["landmarks"]["pairs"] == [list(pair) for pair in SPINE_PAIRS]
    assert content["landmarks"]["coordinate_system"] == "RAS"
    for index, section in enumerate(("training", "validation")):
        (item,) = content[section]
        volume, affine, expected = spine_phantom(np.random.default_rng([9, index]), **options)
        image = LoadImage(image_only=True)(tmp_path / "a" / item["image"])
        assert np.array_equal(np.asarray(image), volume)
        assert np.allclose(np.asarray(image.affine), affine, atol=1e-12)
        found = read_landmarks(tmp_path / "a" / item["label"]).to("RAS").reorder(SPINE_LANDMARKS)
        assert np.allclose(found.points, expected.points, atol=1e-4, equal_nan=True)
    table = read_landmark_table(tmp_path / "a" / "landmarks.csv")
    assert set(table) == {"spine_0000.nii.gz", "spine_0001.nii.gz"}


@pytest.mark.parametrize(
    "name, text", [("landmarks.csv", "image,landmark,x,y\nmine.png,a,1,2\n"), ("datalist.json", "[]")]
)
def test_files_of_the_user_are_not_replaced(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} would be replaced by those of a phantom"):
        write_hand_phantom(tmp_path, num_images=3)
    assert (tmp_path / name).read_text() == text
