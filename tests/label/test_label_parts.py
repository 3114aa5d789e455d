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

"""The parts of the MONAI Label app that do not need a server."""

from __future__ import annotations

import itertools
import json
import math
import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from label_data import NAMES, SHAPES, oblique, random_points, write_image
from monai.data import MetaTensor

from monai_landmarks import bundle_path
from monai_landmarks.data import LandmarkSet, write_landmarks
from monai_landmarks.label import (
    find_models,
    from_viewer,
    image_extent,
    image_uncertainty,
    matching_model,
    next_image,
    plain_answer,
    plain_list,
    proposed_landmarks,
    read_label,
    split_labels,
    stored_uncertainty,
    to_viewer,
    training_overrides,
    viewer_spacing,
)
from monai_landmarks.uncertainty import Doubt, LandmarkProbabilities

NAN = float("nan")
MODELS = {"spots": NAMES, "hand": ("thumb", "wrist", "Brite")}


def scored(mm: float | None, served: float | None = None) -> dict[str, Any]:
    info: dict[str, Any] = {"landmark_uncertainty": {"m": {"mm": mm}}}
    return info if served is None else {**info, "strategy": {"other": {"ts": served}}}


def rank(info: Any) -> float:
    return stored_uncertainty(info, "m")


def test_images_are_served_by_uncertainty_whatever_their_order() -> None:
    values = {"a": 1.0, "b": 5.0, "c": 3.0, "d": None, "e": 5.0}
    for order in itertools.permutations(values):
        images = {name: scored(values[name]) for name in order} | {"unknown": {}}
        served = []
        while (found := next_image(images, 1000.0, rank)) is not None:
            served.append(found)
            images[found] = {**images[found], "strategy": {"s": {"ts": 1000}}}
        assert served == ["b", "e", "c", "a", "d", "unknown"]


def test_image_comes_back_when_its_annotator_does_not() -> None:
    images = {"a": scored(2.0, served=1000), "b": scored(1.0)}
    assert next_image(images, 1000 + 59 * 60, rank) == "b"
    assert next_image(images, 1000 + 61 * 60, rank) == "a"
    assert next_image(images, 900, rank) == "a"  # a clock that was set back does not lock images
    assert next_image({}, 1000, rank) is None


def test_uncertainty_of_another_model_does_not_count() -> None:
    assert math.isnan(stored_uncertainty(scored(3.0), "n")) and math.isnan(stored_uncertainty({}, None))


@pytest.mark.parametrize("dims", [2, 3])
def test_uncertainty_of_an_image_is_what_a_simulation_finds(dims: int) -> None:
    """The mean over the landmarks of the root mean square distance, by sampling from their distributions."""
    random, extent = np.random.default_rng(0), np.array([80.0, 50.0, 30.0])[:dims]
    root = random.normal(size=(dims, dims))
    covariance = root @ root.T
    drawn = random.multivariate_normal(np.zeros(dims), covariance, 200_000)
    anywhere = (random.uniform(size=(200_000, dims)) - 0.5) * extent
    expected = np.mean([np.sqrt((points**2).sum(axis=1).mean()) for points in (drawn, anywhere)])
    points = [np.zeros(dims), np.full(dims, NAN)]
    landmarks = LandmarkSet(("a", "b"), points, covariances=[covariance, np.full((dims, dims), NAN)])
    assert image_uncertainty(landmarks, extent) == pytest.approx(expected, rel=0.01)


def test_a_landmark_without_covariance_makes_an_image_uncertain_and_not_unknown() -> None:
    """A flat peak has a point and no covariance; such an image must not go to the end of the queue."""
    covariances = [np.eye(2), np.full((2, 2), NAN)]
    points = np.array([[1.0, 2.0], [30.0, 40.0]])
    flat = image_uncertainty(LandmarkSet(("a", "b"), points, covariances=covariances), (60.0, 60.0))
    assert flat == image_uncertainty(
        LandmarkSet(("a", "b"), [points[0], [NAN, NAN]], covariances=covariances), (60, 60)
    )
    assert flat > image_uncertainty(LandmarkSet(("a", "b"), points, covariances=[np.eye(2)] * 2), (60.0, 60.0))
    assert math.isnan(image_uncertainty(LandmarkSet(("a", "b"), points), (60.0, 60.0)))


@pytest.mark.parametrize("count, fraction", [(1, 0.2), (3, 0.2), (4, 0.2), (5, 0.5), (17, 0.2), (17, 0.01), (9, 0.9)])
def test_every_label_is_used_once(count: int, fraction: float) -> None:
    items = [{"image": str(i)} for i in range(count)]
    train, validation = split_labels(items, fraction)
    assert train and validation
    if count < 4:
        assert train == validation == items
        return
    found = Counter(item["image"] for item in [*train, *validation])
    assert found == Counter(item["image"] for item in items)
    assert len(validation) == max(1, min(round(fraction * count), count // 2))
    assert split_labels(items, -1) == (items, None)


@pytest.mark.parametrize("missing", ["absent", "chain"])
def test_overrides_of_a_training(missing: str) -> None:
    handlers = [{"_target_": "monai.handlers.ValidationHandler", "interval": 1}, {"_target_": "CheckpointLoader"}]
    config = {"max_epochs": 4, "loss_def": {"_target_": "L", "missing": missing}, "train": {"handlers": handlers}}
    found = training_overrides(config, {"train#trainer#max_epochs": 7, "train#handlers": handlers})
    assert found["max_epochs"] == 7 and found["loss_def#missing"] == "ignore"
    assert found["train#handlers"] == [{**handlers[0], "exec_at_start": True}, handlers[1]]
    assert "exec_at_start" not in handlers[0]
    config["loss_def"] = {"_target_": "M", "base": {"_target_": "L", "missing": missing}, "fine": {"missing": "ignore"}}
    found = training_overrides(config, {"train#trainer#max_epochs": 7, "train#handlers": handlers})
    assert {key: value for key, value in found.items() if "#missing" in key} == {"loss_def#base#missing": "ignore"}
    config["validate"] = {"handlers": [handlers[0], {"_target_": "monai_landmarks.handlers.PresenceReport"}]}
    found = training_overrides(config, {"train#trainer#max_epochs": 7, "train#handlers": handlers})
    assert {key: value for key, value in found.items() if "validate" in key} == {"validate#handlers": handlers[:1]}
    found = training_overrides({}, {"train#trainer#max_epochs": 7, "train#handlers": handlers[:1]})
    assert found == {"train#handlers": handlers[:1]}  # the training does not continue from weights


@pytest.mark.parametrize(
    "name, how",
    [
        ("a.png", {"dpi": (72, 72)}),
        ("a.bmp", {"dpi": (72, 72)}),
        ("a.jpg", {}),
        ("a.jpg", {"dpi": (72, 150)}),
        ("a.tif", {}),
        ("a.tif", {"dpi": (300, 150)}),
        ("a.tif", {"resolution": 40, "resolution_unit": "cm"}),
    ],
)
def test_pixel_size_is_what_itk_takes_it_for(
    tmp_path: Path, name: str, how: dict[str, Any], write_picture: Callable[..., Path]
) -> None:
    path = write_picture(tmp_path / name, 30, 20, **how)
    seen = sitk.ReadImage(str(path))
    assert viewer_spacing(path) == pytest.approx(seen.GetSpacing(), rel=1e-3)
    pixel = (7.25, 3.5)
    bundle = LandmarkSet(("a",), [[-0.5 * pixel[0], -0.3 * pixel[1], 0]], "RAS", covariances=[np.diag([4.0, 1.0, 0.0])])
    shown = to_viewer(bundle, path, (0.5, 0.3))
    expected = seen.TransformContinuousIndexToPhysicalPoint(pixel)
    np.testing.assert_allclose(shown.to("LPS").points[0, :2], expected, rtol=1e-3)
    scale = np.array(seen.GetSpacing()) / (0.5, 0.3)
    np.testing.assert_allclose(shown.covariances[0].diagonal()[:2], [4 * scale[0] ** 2, scale[1] ** 2], rtol=2e-3)
    back = from_viewer(shown.to("LPS"), path, (0.5, 0.3))
    np.testing.assert_allclose(back.points, bundle.points, rtol=1e-6)


@pytest.mark.parametrize(
    "scale, expected",
    [
        (b"\x01.25\x00.4", (0.25, 0.4)),  # as ITK writes it
        (b"\x022.5e-1\x00+4", (0.25, 4.0)),  # ITK ignores the unit
        (b"\x000.5\x000.5", (1.0, 1.0)),
        (b"\x01-0.5\x000.5", (1.0, 1.0)),
        (b"\x010\x000.5", (1.0, 1.0)),
        (b"\x01wide\x000.5", (1.0, 1.0)),
        (b"\x010.5", (1.0, 1.0)),
    ],
)
def test_scale_of_a_png_is_what_itk_takes_it_for(
    tmp_path: Path, scale: bytes, expected: tuple[float, float], write_picture: Callable[..., Path]
) -> None:
    path = write_picture(tmp_path / "a.png", 30, 20)
    content, chunk = path.read_bytes(), b"sCAL" + scale
    chunk = struct.pack(">I", len(scale)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + chunk + content[33:])  # after the header
    seen = sitk.ReadImage(str(path))
    assert viewer_spacing(path) == seen.GetSpacing() == expected
    clicked = [*seen.TransformContinuousIndexToPhysicalPoint((7.25, 3.5)), 0.0]
    found = from_viewer(LandmarkSet(("a",), [clicked], "LPS"), path, 0.5)
    np.testing.assert_allclose(found.points, [[-0.5 * 7.25, -0.5 * 3.5, 0]])


def test_volume_has_one_world(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.nii.gz", random_points(np.random.default_rng(0), SHAPES[3]))
    landmarks = LandmarkSet(("a",), [[1.0, 2.0, 3.0]], "RAS")
    assert viewer_spacing(path) is None and to_viewer(landmarks, path, 0.5) == landmarks
    assert from_viewer(landmarks.to("LPS"), path) == landmarks
    index = LandmarkSet(("a",), [[4.0, 5.0, 6.0]], "index")
    np.testing.assert_allclose(from_viewer(index, path).points[0], (oblique() @ [4, 5, 6, 1])[:3])


def test_proposal() -> None:
    image = MetaTensor(torch.zeros(1, 40, 50, 20), affine=torch.from_numpy(oblique()))
    assert image_extent(image) == pytest.approx([40 * 1.2, 50 * 0.8, 20 * 2.0])
    assert image_extent(torch.zeros(3, 4, 5)) == [4, 5]
    points = MetaTensor(torch.tensor([[[1.0, 2.0, 3.0], [NAN, NAN, NAN]]]), affine=torch.eye(4))
    covariance = torch.stack([torch.diag(torch.tensor([1.0, 4.0, 4.0])), torch.full((3, 3), NAN)])
    data = {
        "image": image,
        "pred_points": points,
        "pred_scores": torch.tensor([0.5, 0.1]),
        "pred_covariances": covariance,
    }
    found = plain_list(proposed_landmarks(data, ("a", "b")))
    assert found == [
        {"name": "a", "position": [1.0, 2.0, 3.0], "score": 0.5, "uncertainty_mm": 3.0},
        {"name": "b", "position": None, "score": pytest.approx(0.1), "uncertainty_mm": None},
    ]
    json.dumps(found, allow_nan=False)
    landmarks = proposed_landmarks(data, ("a", "b"))
    assert plain_answer(landmarks, data) == {"landmarks": found}  # nothing is known about reliability
    data["pred_doubt"] = Doubt(("turned",), {1: "far away"})
    data["pred_probabilities"] = LandmarkProbabilities(np.array([0.75, NAN]), 2.0)
    answer = plain_answer(landmarks, data)
    assert answer["doubt"] == "turned" and answer["within_mm"] == 2
    assert [entry["doubt"] for entry in answer["landmarks"]] == ["", "far away"]
    assert [entry["probability"] for entry in answer["landmarks"]] == [0.75, None]
    json.dumps(answer, allow_nan=False)
    slice_ = MetaTensor(torch.zeros(1, 4, 5), affine=torch.diag(torch.tensor([1.0, 1, 1, 1])))
    slice_.affine[2, 3] = 7.5
    flat = {"image": slice_, "pred_points": MetaTensor(torch.tensor([[[1.0, 2.0]]]), affine=torch.eye(4))}
    assert proposed_landmarks(flat, ("a",)).points.tolist() == [[1, 2, 7.5]]
    with pytest.raises(ValueError, match="there are 2 points, but 1 landmark names"):
        proposed_landmarks(data, ("a",))
    with pytest.raises(ValueError, match="Add HeatmapToLandmarksd"):
        proposed_landmarks({}, ("a",))


def label(tmp_path: Path, points: np.ndarray, names: tuple[str, ...] = NAMES, affine: Any = None) -> Path:
    landmarks = LandmarkSet(names, points, "index").to_world(oblique() if affine is None else affine)
    write_landmarks(tmp_path / "label.mrk.json", landmarks.to("LPS"))
    return tmp_path / "label.mrk.json"


def test_label_of_its_image(tmp_path: Path) -> None:
    points = random_points(np.random.default_rng(0), SHAPES[3])
    image = write_image(tmp_path / "a.nii.gz", points)
    model, landmarks = read_label(label(tmp_path, points[::-1], NAMES[::-1]), image, MODELS)
    assert model == "spots" and landmarks.names == NAMES[::-1]
    one_outside = np.stack([points[0], points[1] + 1000])  # some points may be placed outside the image
    read_label(label(tmp_path, one_outside), image, MODELS)
    nothing = np.full((2, 3), NAN)
    assert read_label(label(tmp_path, nothing), image, MODELS)[1].missing.all()
    with pytest.raises(ValueError, match=r"no landmark lies in the image a.nii.gz: 'Bright' is at index \[10"):
        read_label(label(tmp_path, points + 1000), image, MODELS)
    picture = write_image(tmp_path / "a.png", points[:, :2])
    with pytest.raises(ValueError, match="no landmark lies in the image a.png"):  # it is a label of the volume
        read_label(label(tmp_path, points), picture, MODELS)
    flat = np.concatenate([points[:, :2], np.zeros((2, 1))], axis=1)
    read_label(label(tmp_path, flat, affine=np.diag([-1.0, -1.0, 1.0, 1.0])), picture, MODELS)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_image_ends_half_a_voxel_beyond_its_outer_centers(tmp_path: Path, axis: int) -> None:
    image = write_image(tmp_path / "a.nii.gz", random_points(np.random.default_rng(0), SHAPES[3]))
    point = np.full(3, 5.0)
    for edge, outward in ((-0.5, -1), (SHAPES[3][axis] - 0.5, 1)):
        point[axis] = edge - 0.1 * outward
        read_label(label(tmp_path, np.stack([point, np.full(3, NAN)])), image, MODELS)
        point[axis] = edge + 0.1 * outward
        with pytest.raises(ValueError, match="no landmark lies in the image"):
            read_label(label(tmp_path, np.stack([point, np.full(3, NAN)])), image, MODELS)


def test_names_of_no_model() -> None:
    landmarks = LandmarkSet(("Brigt", "dark spot", "nose"), np.zeros((3, 3)))
    with pytest.raises(
        ValueError, match=r"spots has no landmark 'Brigt', perhaps 'Bright'; 'nose'\. It has Bright, dark"
    ):
        matching_model(landmarks, MODELS)
    assert matching_model(landmarks.reorder(("dark spot",)), MODELS) == "spots"
    with pytest.raises(ValueError, match="no model"):
        matching_model(landmarks, {})


def make_bundle(folder: Path, weights: bytes | None = None) -> Path:
    source = bundle_path("hand_xray_landmarks_scn") / "configs"
    (folder / "configs").mkdir(parents=True)
    (folder / "eval").mkdir()
    for name in ("inference.json", "metadata.json"):
        (folder / "configs" / name).write_bytes((source / name).read_bytes())
    if weights is not None:
        (folder / "models").mkdir()
        (folder / "models" / "model.pt").write_bytes(weights)
    return folder


def test_bundles_are_copied_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = make_bundle(tmp_path / "own" / "mine", b"1")
    make_bundle(tmp_path / "own" / "other")
    models = tmp_path / "app" / "model"
    models.mkdir(parents=True)
    found = find_models(f" {own}, hand_xray_landmarks_scn", models)
    assert found == {name: models / name for name in ("mine", "hand_xray_landmarks_scn")}
    assert (models / "mine" / "models" / "model.pt").read_bytes() == b"1" and not (models / "mine" / "eval").exists()
    assert list(find_models(str(tmp_path / "own"), models)) == ["mine", "other"]  # a folder of bundles

    (models / "mine" / "models" / "model.pt").write_bytes(b"2")  # the copy learns
    assert find_models(str(own), models) == {"mine": models / "mine"} and not caplog.records
    assert (models / "mine" / "models" / "model.pt").read_bytes() == b"2"
    later = (models / "mine" / "models" / "model.pt").stat().st_mtime + 10
    os.utime(own / "models" / "model.pt", (later, later))
    find_models(str(own), models)
    assert "was trained after it was copied" in caplog.text
    assert "mine" in find_models(None, models)  # what is in the app stays a model
    caplog.clear()
    (models / "mine" / "models" / "model.pt").unlink()  # as in a copy of a bundle that was not trained yet
    find_models(str(own), models)
    assert "was trained after it was copied" in caplog.text


def test_another_bundle_of_the_same_name(tmp_path: Path) -> None:
    find_models(str(make_bundle(tmp_path / "a" / "same")), tmp_path / "app")
    other = make_bundle(tmp_path / "b" / "same")
    assert list(find_models(str(other), tmp_path / "app")) == ["same"]
    path = other / "configs" / "metadata.json"
    path.write_text(path.read_text().replace('"radius_styloid"', '"styloid"'))
    with pytest.raises(ValueError, match="b/same has other landmarks than .*app/same, .* Rename the folder"):
        find_models(str(other), tmp_path / "app")


def test_no_such_bundle(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no bundle 'nothing': give the folder of a bundle .* hand_xray"):
        find_models("nothing", tmp_path)
    make_bundle(tmp_path / "a" / "same")
    make_bundle(tmp_path / "b" / "same")
    with pytest.raises(ValueError, match="two bundles have the name 'same'"):
        find_models(f"{tmp_path / 'a'},{tmp_path / 'b' / 'same'}", tmp_path / "app")


@pytest.mark.parametrize("name", ["inference.json", "metadata.json"])
def test_a_damaged_configuration_is_named(name: str, tmp_path: Path) -> None:
    """MONAI, which reads it after this, does not name it."""
    path = make_bundle(tmp_path / "mine") / "configs" / name
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=f"mine/configs/{name}: the file is damaged .*Copy it again"):
        find_models(str(tmp_path / "mine"), tmp_path / "app")
