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

"""Prediction with each bundle, on images whose landmarks are known: the network passes a bright spot on."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from spot_bundles import NETWORK, PICTURES, SPOTS, change, spot, spot_bundle, write_spots
from warm_python import WarmPython

from monai_landmarks.apps.main import program
from monai_landmarks.data import bundle_landmark_names, read_landmark_table, read_landmarks
from monai_landmarks.evaluation import predict_landmarks
from monai_landmarks.evaluation.bundle_facts import read_bundle_facts
from monai_landmarks.uncertainty import (
    ConformalRegions,
    CovarianceCalibration,
    DoubtModel,
    calibration_path,
    doubt_path,
)


@pytest.mark.parametrize("name", PICTURES)
def test_points_are_where_the_spots_are(name, tmp_path):
    """Images of different sizes share a batch, and two have the same name."""
    root, images, out = spot_bundle(tmp_path, name), write_spots(tmp_path / "images"), tmp_path / "out"
    names = bundle_landmark_names(root / "configs" / "metadata.json")
    count = len(names)
    ConformalRegions(tuple(names), 0.9, (2.0,) * count, (20,) * count, 2).save(tmp_path / "regions.json")
    options = {"spacing": 0.5, "device": "cpu", "batch_size": 3, "regions": tmp_path / "regions.json"}
    result = predict_landmarks(root, images, out, ["mrk.json", "fcsv"], **options)
    table = read_landmark_table(out / "predictions.csv")
    for image, (_, point) in SPOTS.items():
        landmarks = table[str(images / image)]
        assert landmarks.names == tuple(names)
        np.testing.assert_allclose(landmarks.points, np.tile(point, (len(names), 1)), atol=0.1)
        assert (landmarks.scores > 0).all()
        width = max(SPOTS[image][0]) / 20  # of the spot
        np.testing.assert_allclose(
            landmarks.covariances, np.tile(width**2 * np.eye(2), (len(names), 1, 1)), atol=0.5 * width**2
        )
        for suffix in ("mrk.json", "fcsv"):
            slicer = read_landmarks(out / f"{image.removesuffix('.png').replace('/', '_')}.{suffix}").to("LPS")
            np.testing.assert_allclose(slicer.points, [[0.5 * x for x in point] + [0]] * len(names), atol=0.1)
            np.testing.assert_allclose(slicer.uncertainty, 0.5 * width * 2**0.5, rtol=0.3)  # mm
            np.testing.assert_allclose(slicer.region_radius, 2, rtol=1e-5)
            assert slicer.coverage == 0.9
    assert not result.unreadable
    assert not (out / "cobb_angles.csv").exists()  # it would have the images of this call only
    records = {out / "progress" / "part_1_of_1.jsonl", out / ".part_1_of_1.written"}
    assert {*result.written, *records} == {path for path in out.rglob("*") if path.is_file()}


def test_pictures_and_slices_share_a_batch(tmp_path):
    """Only the pictures are told their spacing; a slice knows where it lies."""
    root, images, out = spot_bundle(tmp_path), tmp_path / "images", tmp_path / "out"
    images.mkdir()
    picture = spot((90, 120), (40.3, 70.6))
    picture.save(images / "a.png")
    affine = np.array([[-0.2, 0, 0, 10], [0, -0.2, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.asarray(picture).T[..., None], affine), images / "b.nii")
    result = predict_landmarks(root, images, out, spacing=(0.5, 0.5), device="cpu", batch_size=2)
    assert not result.unreadable
    expected = {"a": [-0.5 * 40.3, -0.5 * 70.6, 0], "b": [10 - 0.2 * 40.3, 20 - 0.2 * 70.6, 30]}
    for name, point in expected.items():
        landmarks = read_landmarks(out / f"{name}.mrk.json").to("RAS")
        np.testing.assert_allclose(landmarks.points, np.tile(point, (19, 1)), atol=0.1)


def test_dicom_images_without_pixel_size_are_said(tmp_path, write_dicom_tags):
    root, images = spot_bundle(tmp_path), tmp_path / "images"
    pixels = np.asarray(spot((90, 120), (40.3, 70.6)))
    for name, tags in (("a", {}), ("b", {}), ("c", {"t00280030": "0.2\\0.2"})):
        write_dicom_tags(images / f"{name}.dcm", pixels, **tags)
    result = predict_landmarks(root, images, tmp_path / "out", device="cpu")
    expected = (
        "pixel size not known: 2 of 3 images, for example a.dcm, state none, and 1 mm was taken; all mm are wrong if it is"
        " another; give the spacing."
    )
    assert result.notes[-1] == expected
    for name, size in (("a", 1), ("c", 0.2)):
        points = read_landmarks(tmp_path / "out" / f"{name}.mrk.json").to("LPS").points
        np.testing.assert_allclose(points, np.tile([40.3 * size, 70.6 * size, 0], (len(points), 1)), atol=0.2 * size)
    result = predict_landmarks(root, images, tmp_path / "new", device="cpu", spacing=0.5)
    assert not any("not known" in note for note in result.notes)


def test_pictures_without_pixel_size_are_said(tmp_path):
    root, images, out = spot_bundle(tmp_path), tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name in "ab":
        spot((90, 120), (40.3, 70.6)).save(images / f"{name}.png")
    result = predict_landmarks(root, images, out, device="cpu")
    assert [note for note in result.notes if note.startswith("pixel size not known: 2 of 2 images, for example a.png")]
    assert "Pixel size not known: 2 of 2 images" in (out / "report.html").read_text()

    def units(folder: Path) -> dict[str, set[str]]:
        with (folder / "measurements.csv").open() as file:
            rows = list(csv.DictReader(file))
        return {key: {row["unit"] for row in rows if ("mm" in row["unit"]) == (key == "lengths")} for key in UNITS}

    assert units(out) == {**UNITS, "lengths": {"mm (pixel size assumed)"}}
    result = predict_landmarks(root, images, out, device="cpu", spacing=1)
    assert not any("not known" in note for note in result.notes) and units(out) == UNITS
    assert not any("3D Slicer" in note for note in result.notes)  # shows them with 1 mm, too
    half = predict_landmarks(root, images, tmp_path / "half", device="cpu", spacing=0.5).notes
    [note] = [note for note in half if "3D Slicer" in note]
    assert "3D Slicer, show this .png file with 1 x 1 mm. To see points in mm at the right place there, set the" in note


def test_measurements_of_an_earlier_call_with_a_schema_are_removed(tmp_path):
    root, images, out = spot_bundle(tmp_path), write_spots(tmp_path / "images"), tmp_path / "out"

    def predict() -> bool:
        predict_landmarks(root, images / "a.png", out, ("csv",), device="cpu", drawings=0)
        return (out / "measurements.csv").is_file()

    assert predict()
    metadata = root / "configs" / "metadata.json"
    content = json.loads(metadata.read_text())
    del content["landmark_schema"]
    metadata.write_text(json.dumps(content))
    assert not predict()
    (out / "measurements.csv").write_text("image,my column\n")
    assert predict()


UNITS = {"lengths": {"mm"}, "others": {"degree", "ratio"}}


class Intruder:
    """What a pickle of a stranger may hold."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.path,)


def no_bundle(root: Path) -> None:
    shutil.rmtree(root / "configs")


def no_metadata(root: Path) -> None:
    (root / "configs" / "metadata.json").unlink()


def no_saver(root: Path) -> None:
    change(root, saver={"_target_": "StatsHandler"}, handlers=[])


def no_device(root: Path) -> None:
    config = root / "configs" / "inference.json"
    config.write_text(
        json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k not in ("device", "run")})
    )


def no_json(root: Path) -> None:
    (root / "configs" / "inference.json").write_text("{")


def no_weights(root: Path) -> None:
    (root / "models" / "model.pt").unlink()
    metadata = root / "configs" / "metadata.json"
    content = json.loads(metadata.read_text())
    content.pop("weights_terms", None)  # a bundle whose weights are nowhere else
    metadata.write_text(json.dumps(content))


def weights_with_code(root: Path) -> None:
    torch.save({"weight": Intruder(root / "touched")}, root / "models" / "model.pt")


def text_for_weights(root: Path) -> None:
    (root / "models" / "model.pt").write_text("no weights")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_metadata(root: Path) -> None:
    cut(root / "configs" / "metadata.json")


def cut_weights(root: Path) -> None:
    cut(root / "models" / "model.pt")


def nan_weights(root: Path) -> None:
    weights = torch.load(root / "models" / "model.pt", weights_only=True)
    weights["bias"][3] = torch.nan
    torch.save(weights, root / "models" / "model.pt")


def other_weights(root: Path) -> None:
    torch.save({"weight": torch.ones(3, 1, 1, 1), "bias": torch.zeros(3)}, root / "models" / "model.pt")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (no_bundle, "no configs/inference.json"),
        (no_metadata, "no configs/metadata.json"),
        (no_saver, r"inference.json: lacks a PredictionSaver as 'saver', '@saver' among the handlers"),
        (no_device, r"inference.json: lacks 'device', 'run'"),
        (no_json, r"inference.json: the file is damaged \(Expecting"),
        (cut_metadata, r"metadata.json: the file is damaged .*Copy it again"),
        (no_weights, r"model.pt: there is no such file. Train the bundle"),
        (weights_with_code, r"model.pt: the file is damaged.* or is not a file of weights only"),
        (text_for_weights, r"model.pt: the file is damaged.* or is not a file of weights only"),
        (cut_weights, r"model.pt: the file is damaged, for example cut off"),
        (nan_weights, r"model.pt: these weights are useless, because 1 of the 19 values of 'bias' are NaN"),
        (other_weights, r"model.pt: these weights do not belong to the network.*size mismatch"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bundle_that_cannot_predict(spoil, message, tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    spoil(root)
    with pytest.raises(ValueError, match=message):
        predict_landmarks(root, images, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists() and not (root / "touched").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_that_is_not_finite_is_named_and_the_others_are_predicted(value, tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    voxels = np.asarray(spot((90, 120), (40.3, 70.6)), dtype=np.float32).T.copy()
    voxels[3, 4:6] = value
    nib.save(nib.Nifti1Image(voxels[..., None], np.eye(4)), images / "bad.nii.gz")
    result = CliRunner().invoke(program, ["predict", str(root), str(images), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert f"{images / 'bad.nii.gz'}: 2 of 10800 voxels are NaN or infinite" in " ".join(result.output.split())
    found = read_landmark_table(tmp_path / "out" / "predictions.csv")
    assert {Path(image).name for image in found} == {Path(name).name for name in SPOTS}
    assert all(np.isfinite(landmarks.points).all() for landmarks in found.values())


def test_the_exit_code_of_an_inference_that_leaves_out_images(tmp_path):
    root, images, out = spot_bundle(tmp_path), write_spots(tmp_path / "images"), tmp_path / "out"
    (images / "cut.png").write_bytes((images / "a.png").read_bytes()[:-200])
    nib.save(nib.Nifti1Image(np.full((90, 120, 1), np.nan), np.eye(4)), images / "nan.nii.gz")
    command = ["-m", "monai.bundle", "run", "inference", "--config_file", root / "configs" / "inference.json"]
    options = {"bundle_root": root, "dataset_dir": images, "output_dir": out, "device": "cpu"}
    command += [part for key, value in options.items() for part in (f"--{key}", value)]
    process = WarmPython(command, tmp_path, tmp_path / "printed.txt")
    try:
        code = process.wait(120)
    finally:
        process.kill()
    printed = process.output.read_text()
    assert code == 1 and "Traceback" not in printed, printed
    start, *lines = printed.strip().splitlines()[-3:]
    assert start == "2 of the 5 images were left out, the others are complete:"
    assert "cut.png: " in lines[0] and "nan.nii.gz: 10800 of 10800 voxels are NaN or infinite" in lines[1]
    assert {Path(image).name for image in read_landmark_table(out / "predictions.csv")} == {"a.png", "b.png"}
    assert len(list(out.glob("*.mrk.json"))) == len(SPOTS) and (out / "overlays" / "overlays.png").is_file()


def test_a_network_whose_output_is_not_finite(tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    weights = torch.load(root / "models" / "model.pt", weights_only=True)
    weights["weight"] *= 3e38  # finite, but the products are not
    torch.save(weights, root / "models" / "model.pt")
    with pytest.raises(ValueError, match=r"The output of the network is NaN or infinite for .*png"):
        predict_landmarks(root, images, tmp_path / "out", device="cpu")


def test_a_damaged_configuration_beside_the_first_is_named(tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    (tmp_path / "more.json").write_text('{"a": [1')
    with pytest.raises(ValueError, match="more.json: the file is damaged"):
        predict_landmarks(root, images, tmp_path / "out", configs=[tmp_path / "more.json"])


def test_wrong_use(tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    with pytest.raises(ValueError, match="is in the image folder"):
        predict_landmarks(root, images, images / "out")
    with pytest.raises(ValueError, match="formats are"):
        predict_landmarks(root, images, tmp_path / "out", ["png"])
    with pytest.raises(ValueError, match="device 'toaster' cannot be used"):
        predict_landmarks(root, images, tmp_path / "out", device="toaster")
    with pytest.raises(ValueError, match="no image in it"):
        predict_landmarks(root, root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_place(tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    (root / "models" / "model.pt").rename(tmp_path / "best.pt")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("not written by the prediction")
    result = predict_landmarks(root, images / "a.png", out, checkpoint=tmp_path / "best.pt", device="cpu")
    assert {"a.mrk.json", "predictions.csv"} <= {path.name for path in result.written}
    assert out / "mine.txt" not in result.written
    [landmarks] = read_landmark_table(tmp_path / "out" / "predictions.csv").values()
    np.testing.assert_allclose(landmarks.points[0], SPOTS["a.png"][1], atol=0.1)


def test_what_is_not_known_about_the_reliability_is_said(tmp_path):
    """Without the files of a training, and with those of one that had few images."""
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    weights, names = root / "models" / "model.pt", tuple(bundle_landmark_names(root / "configs" / "metadata.json"))

    def notes():
        return " ".join(predict_landmarks(root, images / "a.png", tmp_path / "out", ("csv",), drawings=0).notes)

    absent = notes()
    assert "the uncertainty is not calibrated, because there is no " in absent
    assert "predictions are not examined for doubts, because there is no " in absent
    count = len(names)
    CovarianceCalibration(names, (1.0,) * count, (5,) * count, (True,) * count).save(calibration_path(weights))
    DoubtModel(names, None).save(doubt_path(weights))
    few = notes()
    assert "there are no probabilities, because the training had too few validation images." in few
    assert "doubts do not consider shapes, because the training had too few images." in few
    assert "doubts do not consider heatmaps, because the training had too few validation images." in few
    assert "there is no " not in few


def test_weights_of_a_close_look_need_no_config(tmp_path):
    """Shipped weights of both networks come before those of the coarse one, and own weights before shipped ones."""
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    path = root / "configs" / "close_look.json"
    close_look = json.loads(path.read_text())
    changed = {"coarse_network_def": NETWORK, "fine_network_def": NETWORK, "spatial_size": [96, 128]}
    path.write_text(json.dumps({**close_look, **changed, "close_size": [48, 48], "close_spacing": 1.0}))
    plain, models = torch.load(root / "models" / "model.pt", weights_only=True), root / "models"
    both = {f"coarse.{name}": value for name, value in plain.items()}
    both |= {f"fine.{name}": 3 * value for name, value in plain.items()}
    torch.save(both, models / "pretrained_close_look.pt")
    (models / "model.pt").rename(models / "pretrained.pt")

    def looks_closely(out, **options):
        result = predict_landmarks(root, images, tmp_path / out, ("csv",), spacing=0.5, device="cpu", **options)
        for image, landmarks in read_landmark_table(tmp_path / out / "predictions.csv").items():
            point = SPOTS[str(Path(image).relative_to(images))][1]
            np.testing.assert_allclose(landmarks.points, np.tile(point, (19, 1)), atol=1)
        assert read_bundle_facts(root).weights == ("shipped" if out == "shipped" else "trained")
        return any("close_look.json" in note for note in result.notes)

    assert looks_closely("shipped")
    torch.save(plain, models / "model.pt")
    assert not looks_closely("own")
    assert looks_closely("given", checkpoint=models / "pretrained_close_look.pt")
    torch.save(both, models / "model.pt")
    assert looks_closely("own_both")
    assert looks_closely("explicit", configs=[path]) is False  # nothing to say
