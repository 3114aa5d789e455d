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

"""Bundles of volumes, run as a user runs them, against predictions whose arithmetic is written out."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from monai.networks.layers import GaussianFilter
from small_bundles import PATCH, SOURCE, SPINES, VOLUMES, copy_bundle, network_def, run, table, training_size, workflow

from monai_landmarks.data import (
    UnreadableImagesError,
    bundle_landmark_names,
    load_landmark_datalist,
    read_landmark_table,
    read_landmarks,
    table_folder_datalist,
)
from monai_landmarks.evaluation import predict_landmarks
from monai_landmarks.heatmaps import decode_heatmaps
from monai_landmarks.networks import nets

pytestmark = pytest.mark.usefixtures("unpainted")


def mri(volume: np.ndarray) -> np.ndarray:
    return (volume - volume.mean()) / volume.std()


def ct(volume: np.ndarray) -> np.ndarray:
    return volume / 50 - 1


NORMALIZATION = {"mri": mri, "ct": ct}
WHOLE = [bundle for bundle in VOLUMES if bundle not in SPINES]  # every volume shows every landmark


def foreground(volume: np.ndarray, threshold: float, margin: int) -> tuple[slice, ...]:
    places = np.argwhere(volume > threshold)
    return tuple(slice(max(0, a - margin), b + 1 + margin) for a, b in zip(places.min(0), places.max(0)))


def predict_by_hand(root: Path, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) in RAS mm, and scores (N,), by stitched heatmaps and with no transform of ours."""
    config = json.loads((root / "configs" / "inference.json").read_text())
    image = nib.as_closest_canonical(nib.load(path))
    volume, affine = image.get_fdata(), image.affine.copy()
    if "foreground" in config:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        box = foreground(
            volume, config["foreground"]["threshold"], int(np.ceil(config["foreground"]["margin"] / spacing[0] - 1e-6))
        )
        affine[:3, 3] += affine[:3, :3] @ [axis.start for axis in box]
        volume = volume[box]
    volume = NORMALIZATION[root.name.split("_")[1]](volume)
    old = np.array(volume.shape)
    new = np.rint(old * np.linalg.norm(affine[:3, :3], axis=0) / config["voxel_spacing"]).astype(int)
    maps = torch.from_numpy(volume).float()[None, None]
    if (new != old).any():
        maps = GaussianFilter(3, np.maximum((old / new - 1) / 2, 0).tolist())(maps)
        maps = F.interpolate(maps, size=new.tolist(), mode="trilinear", align_corners=False)
    missing = np.maximum(np.array(PATCH) - new, 0)
    before = missing // 2
    pad = [value for axis in (2, 1, 0) for value in (before[axis], missing[axis] - before[axis])]
    maps = F.pad(maps, pad, mode="replicate")
    options = {**network_def(root.name), "num_landmarks": len(bundle_landmark_names(metadata_file(root)))}
    network = getattr(nets, options.pop("_target_").rsplit(".", 1)[1])(**options)
    network.load_state_dict(torch.load(root / "models" / "model.pt", weights_only=True))
    with torch.no_grad():
        heatmaps = sliding_window_inference(maps, PATCH, 2, network.eval(), config["overlap"], "gaussian")
        points, score, _ = decode_heatmaps(
            heatmaps[0], spatial_dims=3, method=config["windows"].get("method", "gaussian")
        )
    index = (points.numpy() - before + 0.5) * old / new - 0.5
    return index @ affine[:3, :3].T + affine[:3, 3], score.numpy()


def voxel_spacing(root: Path) -> float:
    return json.loads((root / "configs" / "inference.json").read_text())["voxel_spacing"]


def metadata_file(root: Path) -> Path:
    return root / "configs" / "metadata.json"


@pytest.mark.parametrize("trained", WHOLE, indirect=True)
def test_evaluation(trained: Path, tmp_path: Path) -> None:
    run(trained, "train", "evaluate", output_dir=str(tmp_path), precision="float32", **training_size(trained))
    predictions = read_landmark_table(tmp_path / "predictions" / "predictions.csv")
    names = bundle_landmark_names(metadata_file(trained))
    truth = read_landmark_table(trained / "data" / "landmarks.csv", coordinate_system="RAS")
    errors = []
    assert len(predictions) == 2
    for name, found in predictions.items():
        points, scores = predict_by_hand(trained, Path(name))
        np.testing.assert_allclose(found.to("RAS").points, points, atol=0.05 * voxel_spacing(trained))
        np.testing.assert_allclose(found.scores, scores, rtol=1e-3)
        errors.append(np.linalg.norm(points - truth[Path(name).name].reorder(names).points, axis=1))
    metrics = {row["metric"]: float(row["value"]) for row in table(tmp_path / "metrics.csv")}
    assert metrics["images"] == 2 and metrics["MRE"] == pytest.approx(np.mean(errors), abs=0.02)
    assert (tmp_path / "overlays" / "overlays.png").is_file()


@pytest.mark.parametrize("trained", WHOLE, indirect=True)
def test_inference_passes_over_a_damaged_volume(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Path(load_landmark_datalist(table_folder(trained), "testing")[0]["image"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "whole.nii.gz").write_bytes(source.read_bytes())
    (tmp_path / "images" / "damaged.nii.gz").write_bytes(source.read_bytes()[:2000])
    out = tmp_path / "out"
    with pytest.raises(RuntimeError) as caught:
        run(trained, "inference", dataset_dir=str(tmp_path / "images"), output_dir=str(out), precision="float32")
    assert isinstance(caught.value.__cause__, UnreadableImagesError)
    assert "damaged.nii.gz is left out" in caplog.text
    found = read_landmarks(out / "whole.mrk.json")
    assert found.names == tuple(bundle_landmark_names(metadata_file(trained)))
    points, _ = predict_by_hand(trained, source)
    markup = json.loads((out / "whole.mrk.json").read_text())["markups"][0]
    sign = {"RAS": [1, 1, 1], "LPS": [-1, -1, 1]}[markup["coordinateSystem"]]
    positions = np.array([point["position"] for point in markup["controlPoints"]])
    np.testing.assert_allclose(positions, points * sign, atol=0.1)


@pytest.mark.parametrize("trained", WHOLE, indirect=True)
def test_the_command_predict(trained: Path, tmp_path: Path) -> None:
    source = Path(load_landmark_datalist(table_folder(trained), "testing")[0]["image"])
    (tmp_path / "small.json").write_text(json.dumps({"network_def": network_def(trained.name), "patch_size": PATCH}))
    result = predict_landmarks(trained, source, tmp_path / "out", ["mrk.json"], configs=[tmp_path / "small.json"])
    assert not result.unreadable
    found = read_landmarks(tmp_path / "out" / f"{source.name.split('.')[0]}.mrk.json").to("RAS")
    points, _ = predict_by_hand(trained, source)
    # bfloat16 moves the points of a network that has hardly learned
    assert np.median(np.linalg.norm(found.points - points, axis=1)) < 0.1 * voxel_spacing(trained)


@pytest.mark.parametrize("trained", ["lumbar_mri_landmarks_scn"], indirect=True)
def test_candidates_that_fit_together(trained: Path, tmp_path: Path) -> None:
    """Of a model that hardly knows anything, some vertebrae are left out; the others are neighbors."""
    found, images = {}, tmp_path / "images"
    images.mkdir()
    for item in load_landmark_datalist(table_folder(trained), "training")[:2]:
        (images / Path(item["image"]).name).symlink_to(item["image"])
    for config in ("plain", "chain"):
        options = {"dataset_dir": str(images), "output_dir": str(tmp_path / config)}
        run(trained, "inference", *[config][config == "plain" :], precision="float32", **options)
        table = read_landmark_table(tmp_path / config / "predictions.csv")
        found[config] = np.stack([table[image].to("RAS").points for image in sorted(table)])
    kept = np.isfinite(found["chain"]).all(axis=-1)
    assert kept.any() and np.isfinite(found["plain"]).all()
    for points, present in zip(found["chain"], kept):
        apart = np.linalg.norm(np.diff(points[present], axis=0), axis=1)
        assert (np.diff(np.flatnonzero(present)) == 1).all() and ((apart > 12.5) & (apart < 50)).all()


def table_folder(root: Path) -> dict:
    return table_folder_datalist(root / "data", names=bundle_landmark_names(metadata_file(root)))


@pytest.mark.parametrize("bundle", WHOLE)
def test_patches_hold_landmarks_and_their_points(bundle: str, tmp_path: Path) -> None:
    """In a patch, the brightest voxels lie at the landmarks that are in it."""
    root = copy_bundle(bundle, tmp_path)
    flow = workflow(root, "train")
    crop = next(t for t in flow.parser["augmentation"] if str(t["_target_"]).endswith("RandCropByLandmarksd"))
    crop = {**crop, "spatial_size": [16, 16, 16], "pos": 1, "neg": 0}
    flow = workflow(root, "train", patches_per_image=3, augmentation=[crop])
    flow.initialize()
    for patches in [flow.train_dataset[0], flow.train_dataset[3]]:
        assert len(patches) == 3
        for patch in patches:
            image, points = patch["image"], patch["label"][0]
            inside = ((points >= 0) & (points <= 15)).all(dim=1)
            assert image.shape == (1, 16, 16, 16) and inside.any()
            values = image[0][tuple(points[inside].round().long().T)]
            assert (values > image.mean() + 2 * image.std()).float().mean() > 0.8


@pytest.mark.parametrize(
    "data, bundle", [("lumbar_mri", "lumbar_mri_landmarks_scn"), ("mouse_skull_ct", "mouse_ct_landmarks_scn")]
)
def test_names_are_those_of_the_public_data(data: str, bundle: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{data}_root")
    definition = table_folder_datalist(folder)["landmarks"]
    assert definition["names"] == bundle_landmark_names(SOURCE / bundle / "configs" / "metadata.json")
