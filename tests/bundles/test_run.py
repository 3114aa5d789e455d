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

"""Training, evaluation and inference of each bundle leave what they should, and predictions lie in the image's own space."""

from __future__ import annotations

import json
import shutil
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.networks.layers import GaussianFilter
from PIL import Image
from small_bundles import (
    BUNDLES,
    PAINTED,
    PICTURES,
    SIZE,
    SOURCE,
    SPINES,
    copy_bundle,
    network_def,
    run,
    table,
    trained_epochs,
    training_size,
    workflow,
)

from monai_landmarks.data import (
    LandmarkSet,
    bundle_landmark_names,
    load_landmark_datalist,
    read_landmark_table,
    read_landmarks,
)
from monai_landmarks.evaluation.landmark_sources import landmark_files
from monai_landmarks.heatmaps import decode_heatmaps
from monai_landmarks.metrics import cobb_angles
from monai_landmarks.networks import nets
from monai_landmarks.uncertainty import load_sigma

# bundles whose network returns logits
LOGITS = ["ceph_xray_landmarks_adaptive", "hand_xray_landmarks_scn"]
# bundles with one sigma per landmark, learned by the loss or searched
SIGMAS = [bundle for bundle in BUNDLES if bundle != "hand_xray_landmarks_scn" and not bundle.endswith("farnet")]


def names_of(root: Path) -> list[str]:
    return bundle_landmark_names(root / "configs" / "metadata.json")


def trained_network(root: Path) -> torch.nn.Module:
    """The network, made without the configuration; its weights fit by name, without a prefix."""
    options = {**network_def(root.name), "num_landmarks": len(names_of(root))}
    network = getattr(nets, options.pop("_target_").rsplit(".", 1)[1])(**options)
    network.load_state_dict(torch.load(root / "models" / "model.pt", weights_only=True))
    return network.eval()


def percentiles(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, [5, 95])
    return 2 * (image - low) / (high - low) - 1


def standardize(image: np.ndarray) -> np.ndarray:
    return (image - image.mean()) / image.std()


NORMALIZATION = {"hand": percentiles, "ceph": standardize, "spine": standardize}


def predict_by_hand(root: Path, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) in pixels of the file, and scores (N,), with the arithmetic written out and no transform of ours."""
    network, normalize = trained_network(root), NORMALIZATION[root.name.split("_")[0]]
    pixels = np.asarray(Image.open(path)).astype(np.float64)
    if pixels.ndim == 3:
        pixels = pixels[..., :3] @ [0.299, 0.587, 0.114]
    image = pixels.T  # axes x, y
    image = torch.from_numpy(normalize(image)).float()[None, None]
    old = np.array(image.shape[2:])
    new = np.round(old * max(SIZE) / old.max()).astype(int)
    blur = np.maximum((old / new - 1) / 2, 0)
    if blur.any():
        image = GaussianFilter(2, blur.tolist())(image)
    image = F.interpolate(image, size=new.tolist(), mode="bilinear", align_corners=False)
    before = (np.array(SIZE) - new) // 2
    after = np.array(SIZE) - new - before
    image = F.pad(image, [before[1], after[1], before[0], after[0]], mode="replicate")
    with torch.no_grad():
        maps = network(image)[0]
        if root.name in LOGITS:  # trained as a distribution over the image
            maps = maps.exp() / maps.exp().sum((1, 2), keepdim=True)
        points, score, _ = decode_heatmaps(maps, spatial_dims=2)
    return (points.numpy() - before + 0.5) * old / new - 0.5, score.numpy()


def assert_pictures(folder: Path, count: int, painted: bool = True) -> None:
    """Check that there are ``overlays.png`` and one picture per image, all readable."""
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == count + 1 and folder / "overlays.png" in pictures
    for picture in pictures:
        assert_picture(picture, painted)


def assert_picture(path: Path, painted: bool = True) -> None:
    with Image.open(path) as picture:
        assert not painted or min(picture.size) > 100 and np.ptp(np.asarray(picture.convert("L"))) > 100


def test_training(trained: Path) -> None:
    names = names_of(trained)
    out, validation = trained / "eval", load_landmark_datalist(datalist(trained), "validation")
    curve = table(out / "training_curve.csv")
    assert [row["epoch"] for row in curve] == [str(epoch) for epoch in range(1, trained_epochs(trained.name) + 1)]
    losses = [float(row["loss"]) for row in curve]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    painted = trained.name in PAINTED
    assert_picture(out / "training_curve.png", painted)
    # the tables are those of the model that is kept: the best of the two validations
    metrics = {row["metric"]: float(row["value"]) for row in table(out / "metrics.csv")}
    best = min(float(row["metric"]) for row in curve if row["metric"])
    assert metrics["images"] == len(validation)
    if trained.name not in SPINES:  # where a landmark that was missed counts in the choice, and has no error
        assert metrics["MRE"] == pytest.approx(best, abs=1e-3)
    assert [row["landmark"] for row in table(out / "errors_per_landmark.csv")] == names
    assert len(table(out / "errors_per_image.csv")) == len(validation)
    assert_pictures(out / "overlays", min(4, len(validation)), painted)
    for item in validation:
        name = Path(item["image"]).name.split(".")[0]
        assert read_landmarks(out / "predictions" / f"{name}.mrk.json").names == tuple(names)
    assert len(read_landmark_table(out / "predictions" / "predictions.csv")) == len(validation)
    state = torch.load(trained / "models" / "training_state.pt", weights_only=True)
    assert {"model", "loss", "optimizer", "lr_scheduler", "trainer"} <= set(state)
    trained_network(trained)
    if trained.name in SIGMAS:
        assert len(load_sigma(trained / "models" / "model_sigma.pt")) == len(names_of(trained))


def datalist(root: Path) -> Path | dict:
    return workflow(root, "train", **training_size(root)).parser.get_parsed_content("datalist")


@pytest.mark.parametrize(
    "bundle", [b for b in BUNDLES if (SOURCE / b / "configs" / "all_training_images.json").is_file()]
)
@pytest.mark.usefixtures("unpainted")
def test_training_on_all_images(bundle: str, tmp_path: Path) -> None:
    """Nothing is left to choose a model by: the last one is kept, and validation belongs to the training."""
    root = copy_bundle(bundle, tmp_path)
    flow = run(root, "train", "all_training_images", **training_size(root, epochs=1))
    sections = [len(load_landmark_datalist(datalist(root), section)) for section in ("training", "validation")]
    assert len(flow.train_dataset) == sum(sections) > sections[0] > 0
    kept = torch.load(root / "models" / "model.pt", weights_only=True)
    torch.testing.assert_close(kept, dict(flow.network_def.state_dict()), rtol=0, atol=0)
    if bundle in SIGMAS:
        sigma = load_sigma(root / "models" / "model_sigma.pt")
        learned = flow.parser.get_parsed_content("loss_def").sigma.detach()
        torch.testing.assert_close(sigma[:, 0], learned, rtol=0, atol=0)
    # what is measured on images of the training does not lie where a validation leaves its tables
    assert (root / "eval" / "training_part" / "metrics.csv").is_file()
    assert [path.name for path in (root / "eval").glob("*.csv")] == ["training_curve.csv"]


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("trained", PICTURES, indirect=True)
def test_evaluation(trained: Path, tmp_path: Path) -> None:
    flow = run(trained, "train", "evaluate", output_dir=str(tmp_path), **training_size(trained), precision="float32")
    assert not flow.check_properties()
    testing = load_landmark_datalist(datalist(trained), "testing")
    expected = []
    predictions = read_landmark_table(tmp_path / "predictions" / "predictions.csv")
    for item in testing:
        points, scores = predict_by_hand(trained, Path(item["image"]))
        truth = np.array([[np.nan] * 2 if p is None else p for p in item["label"]], dtype=float)
        expected.append(np.linalg.norm((points - truth) * item["spacing"], axis=1))
        found = predictions[item["image"]]
        np.testing.assert_allclose(found.points, points, atol=0.05)
        np.testing.assert_allclose(found.scores, scores, rtol=1e-3)
    metrics = {row["metric"]: float(row["value"]) for row in table(tmp_path / "metrics.csv")}
    assert metrics["images"] == len(testing) and metrics["MRE"] == pytest.approx(np.nanmean(expected), abs=0.02)
    assert len(list((tmp_path / "overlays").glob("overlay_*.png"))) == min(8, len(testing))


@pytest.mark.parametrize("trained, spacing", zip(PICTURES, cycle([None, 0.5])), indirect=["trained"])
def test_inference(trained: Path, tmp_path: Path, spacing: float | None, request: pytest.FixtureRequest) -> None:
    painted = trained.name in PAINTED
    if not painted:
        request.getfixturevalue("unpainted")
    source = Path(load_landmark_datalist(datalist(trained), "testing")[0]["image"])
    images, out = tmp_path / "images", tmp_path / "out"
    (images / "more").mkdir(parents=True)
    shutil.copy(source, images / "as it is.png")
    picture = Image.open(source)
    width, height = picture.size
    color = picture.resize((2 * width + 15, int(2.5 * height)), Image.Resampling.BICUBIC).convert("RGB")
    color.save(images / "more" / "large.png")
    flow = run(trained, "inference", dataset_dir=str(images), output_dir=str(out), spacing=spacing, precision="float32")
    assert not flow.check_properties()
    rows, names = read_landmark_table(out / "predictions.csv"), names_of(trained)
    assert len(rows) == 2 and {path.name for path in out.glob("*.json")} == {"as it is.mrk.json", "large.mrk.json"}
    for name, landmarks in rows.items():
        points, scores = predict_by_hand(trained, Path(name))
        assert landmarks.names == tuple(names) and str(landmarks.coordinate_system) == "index"
        np.testing.assert_allclose(landmarks.points, points, atol=0.05)
        np.testing.assert_allclose(landmarks.scores, scores, rtol=1e-3)
        # most lie in the image; only the replicated border beside it could hold others
        inside = ((points > -0.5) & (points < np.array(Image.open(name).size) - 0.5)).all(axis=1)
        assert inside.mean() > 0.9
        # Slicer's file is in mm: for a picture, LPS is the pixel times its spacing, and RAS has the signs changed
        markup = json.loads((out / f"{Path(name).stem}.mrk.json").read_text())["markups"][0]
        assert [point["label"] for point in markup["controlPoints"]] == names
        sign = {"LPS": 1, "RAS": -1}[markup["coordinateSystem"]]
        position = sign * np.array([point["position"] for point in markup["controlPoints"]])
        np.testing.assert_allclose(position, np.c_[points * (spacing or 1), np.zeros(len(points))], atol=0.05)
    assert_pictures(out / "overlays", 2, painted)
    if "spine" in trained.name:
        assert_cobb_angles(out, rows)


def assert_cobb_angles(folder: Path, predictions: dict[str, LandmarkSet]) -> None:
    """``cobb_angles.csv`` holds the angles of the points that were written, and nothing of a truth."""
    rows = table(folder / "cobb_angles.csv")
    assert folder / "cobb_angles.csv" not in landmark_files(folder)  # what evaluate reads
    assert {row["image"] for row in rows} == set(predictions)
    for row in rows:
        name = row.pop("image")
        with Image.open(name) as picture:
            expected = cobb_angles(torch.tensor(predictions[name].points), picture.height)
        assert list(row) == ["pred_cobb1", "pred_cobb2", "pred_cobb3"] and expected.isfinite().all()
        np.testing.assert_allclose([float(angle) for angle in row.values()], expected, atol=0.1)


@pytest.mark.usefixtures("unpainted")
def test_inference_without_images_says_so(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception) as error:
        run(trained, "inference", dataset_dir=str(tmp_path / "absent"), output_dir=str(tmp_path))
    assert "there is no such folder" in str(error.value.__cause__)


@pytest.mark.usefixtures("unpainted")
def test_deep_supervision_as_its_page_says(tmp_path: Path) -> None:
    """The coarser heatmaps learn, also after resuming, and their layers do not disturb an inference."""
    root = copy_bundle("mouse_ct_landmarks_scn", tmp_path)
    page = (root / "docs" / "README.md").read_text(encoding="utf-8")
    config = json.loads(page.split("cat > deep.json <<'END'\n")[1].split("END\n")[0])
    (root / "configs" / "deep.json").write_text(json.dumps(config))
    network = {"_target_": "monai_landmarks.networks.nets.LocalizationUNet", "spatial_dims": 3, "in_channels": 1}
    network |= {"num_landmarks": "$len(@names)", "features": [4] * 6}
    options = {"network_def": {**network, "deep_supervision": config["network_def#deep_supervision"]}}
    heads = []
    for epochs in (1, 2):
        run(root, "train", "unet", "deep", resume=True, **options, **training_size(root, epochs=epochs))
        state = torch.load(root / "models" / "model_final.pt", weights_only=True)
        heads.append([value for name, value in state.items() if name.endswith("head.weight")])
    assert len(heads[0]) == 2 and not any(torch.equal(*pair) for pair in zip(*heads))
    assert torch.load(root / "models" / "model_sigma.pt", weights_only=True)["sigma"] == 1
    out = tmp_path / "out"
    run(root, "inference", "unet", "deep", dataset_dir=str(root / "data" / "images"), output_dir=str(out), **options)
    assert len(read_landmark_table(out / "predictions.csv")) == 10
