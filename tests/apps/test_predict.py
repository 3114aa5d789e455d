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

"""Prediction with each bundle, on images whose landmarks are known: a bright spot, and a network that passes it on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from monai_landmarks.apps.main import program
from monai_landmarks.data import bundle_landmark_names, read_landmark_table, read_landmarks
from monai_landmarks.evaluation import predict_landmarks
from monai_landmarks.uncertainty import ConformalRegions

SOURCE = Path(__file__).parents[2] / "bundles"
# those of volumes are tried in tests/bundles/test_volumes.py
PICTURES = [path.parents[1].name for path in sorted(SOURCE.glob("*_xray_*/configs/inference.json"))]
CEPH = "ceph_xray_landmarks_scn"

# each heatmap is the image times a weight of the checkpoint: a network without these weights finds nothing
NETWORK = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": "$len(@names)", "kernel_size": 1}


def spot_bundle(folder: Path, name: str = CEPH) -> Path:
    """A copy of a bundle, whose network takes a bright spot for each of its landmarks."""
    root = folder / name
    shutil.copytree(SOURCE / name / "configs", root / "configs")
    change(root, network_def=NETWORK, spatial_size=[96, 128])
    if name.endswith("adaptive"):  # reads logits; the spot is a heatmap
        change(root, softmax=False)
    count = len(bundle_landmark_names(root / "configs" / "metadata.json"))
    (root / "models").mkdir()
    state = {"weight": torch.ones(count, 1, 1, 1), "bias": torch.zeros(count)}
    torch.save(state, root / "models" / "model.pt")
    return root


def change(root: Path, **values) -> None:
    config = root / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **values}))


def spot(size: tuple[int, int], point: tuple[float, float]) -> Image.Image:
    """An image, width and height, with a bright spot at pixel (x, y)."""
    x, y = np.mgrid[: size[0], : size[1]]
    width = max(size) / 20
    return Image.fromarray(
        (255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / 2 / width**2)).T.astype(np.uint8)
    )


SPOTS = {
    "a.png": ((90, 120), (40.3, 70.6)),
    "left/b.png": ((200, 180), (120.7, 50.2)),
    "right/b.png": ((150, 300), (30.9, 211.4)),
}


def write_spots(folder: Path) -> Path:
    for name, (size, point) in SPOTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        spot(size, point).save(folder / name)
    return folder


def invoke(*arguments) -> object:
    return CliRunner().invoke(program, ["predict", *map(str, arguments)])


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
    assert set(result.written) == {path for path in out.rglob("*") if path.is_file()}


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


def test_a_dicom_series_and_a_bundle_made_for_volumes(tmp_path, write_dicom):
    rows = ["# coordinate_system=RAS", "image,landmark,x,y,z"]
    grid = np.stack(np.mgrid[:20, :18, :16], axis=-1)

    def ball(point: tuple[float, ...]) -> np.ndarray:
        return (200 * np.exp(-((grid - point) ** 2).sum(-1) / 8)).astype(np.int16)

    (tmp_path / "images").mkdir()
    for i in range(3):
        nib.save(nib.Nifti1Image(ball((8, 9, 7 + i)), np.diag([2, 2, 3, 1])), tmp_path / "images" / f"{i}.nii")
        rows.append(f"{i}.nii,a,16,18,{3 * (7 + i)}")
    (tmp_path / "points.csv").write_text("\n".join(rows))
    root, out = tmp_path / "bundle", tmp_path / "out"
    for command in (
        ["check", tmp_path / "images", tmp_path / "points.csv", "--out", tmp_path / "checked", "--sheet", "0"],
        ["init", tmp_path / "checked" / "datalist.json", "--method", "scn", "--out", root],
    ):
        done = CliRunner().invoke(program, [*map(str, command)])
        assert done.exit_code == 0, done.output
    change(root, network_def={**NETWORK, "_target_": "torch.nn.Conv3d"})
    (root / "models").mkdir(exist_ok=True)
    torch.save({"weight": torch.ones(1, 1, 1, 1, 1), "bias": torch.zeros(1)}, root / "models" / "model.pt")
    write_dicom(tmp_path / "new" / "head", ball((8.4, 6.7, 9.2)), "1")  # slices 3 mm apart, pixels of 1 mm
    done = invoke(root, tmp_path / "new", "--out", out, "--device", "cpu", "--format", "npz")
    assert done.exit_code == 0, done.output
    [landmarks] = read_landmark_table(out / "predictions.csv").values()
    np.testing.assert_allclose(landmarks.to("LPS").points, [[8.4, 6.7, 27.6]], atol=0.3)
    np.testing.assert_array_equal(read_landmarks(out / "head.npz").points, landmarks.to("RAS").points)
    # a damaged slice spoils its own volume only, and is named
    write_dicom(tmp_path / "new" / "foot", ball((8.4, 6.7, 9.2)), "2")
    (tmp_path / "new" / "foot" / "2_7.dcm").write_text("no slice")
    done = invoke(root, tmp_path / "new", "--out", out, "--device", "cpu", "--format", "csv")
    assert done.exit_code == 1
    assert [*read_landmark_table(out / "predictions.csv")] == [str(tmp_path / "new" / "head")]
    foot, damaged = (line for line in done.stderr.splitlines() if line.startswith("  - "))
    assert foot.startswith(f"  - {tmp_path / 'new' / 'foot'}: 2_6.dcm and 2_8.dcm are 6 mm apart")
    assert damaged.startswith(f"  - {tmp_path / 'new' / 'foot' / '2_7.dcm'}: ")


def test_the_rest_is_done_when_an_image_cannot_be_read(tmp_path):
    root, images, out = spot_bundle(tmp_path), write_spots(tmp_path / "images"), tmp_path / "out"
    cut = (images / "a.png").read_bytes()
    (images / "cut.png").write_bytes(cut[: len(cut) // 2])
    (images / "left" / "text.nii.gz").write_text("no image")
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9)), np.eye(4)), images / "volume.nii")  # to a network for radiographs
    done = invoke(root, images, "--out", out, "--device", "cpu", "--batch-size", 1)
    assert done.exit_code == 1
    assert {Path(line).name for line in done.stdout.splitlines() if line.endswith(".mrk.json")} == {
        "a.mrk.json",
        "left_b.mrk.json",
        "right_b.mrk.json",
    }
    left_out = [line for line in done.stderr.splitlines() if line.startswith("  - ")]
    assert [line.partition(": ")[0] for line in left_out] == [
        f"  - {images / name}" for name in ("cut.png", "left/text.nii.gz", "volume.nii")
    ]
    assert all(line.partition(": ")[2] for line in left_out)
    assert set(read_landmark_table(out / "predictions.csv")) == {str(images / name) for name in SPOTS}
    # what could be read is as good as without the others
    again = invoke(root, images / "left" / "b.png", "--out", tmp_path / "one", "--device", "cpu", "--format", "csv")
    assert again.exit_code == 0, again.stderr
    paths = [Path(line).name for line in again.stdout.splitlines()]
    assert paths == ["overlays.png", "predictions.csv", "predictions_std.csv"]
    [one] = read_landmark_table(tmp_path / "one" / "predictions.csv").values()
    both = read_landmark_table(out / "predictions.csv")[str(images / "left" / "b.png")]
    np.testing.assert_allclose(one.points, both.points, atol=1e-4)


def test_no_image_can_be_read(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "text.png").write_text("no picture")
    done = invoke(spot_bundle(tmp_path), tmp_path / "images", "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (1, "")
    assert (
        "Error: none of the 1 images can be read:\n  - " in done.stderr and "text.png: cannot identify" in done.stderr
    )


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


def weights_with_code(root: Path) -> None:
    torch.save({"weight": Intruder(root / "touched")}, root / "models" / "model.pt")


def text_for_weights(root: Path) -> None:
    (root / "models" / "model.pt").write_text("no weights")


def other_weights(root: Path) -> None:
    torch.save({"weight": torch.ones(3, 1, 1, 1), "bias": torch.zeros(3)}, root / "models" / "model.pt")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (no_bundle, "no configs/inference.json"),
        (no_metadata, "no configs/metadata.json"),
        (no_saver, r"inference.json: lacks a PredictionSaver as 'saver', '@saver' among the handlers"),
        (no_device, r"inference.json: lacks 'device', 'run'"),
        (no_json, r"inference.json: Expecting"),
        (no_weights, r"model.pt: there are no weights"),
        (weights_with_code, r"model.pt: no file of weights alone"),
        (text_for_weights, r"model.pt: no file of weights alone"),
        (other_weights, r"model.pt: these weights are not those of the network.*size mismatch"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bundle_that_cannot_predict(spoil, message, tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    spoil(root)
    with pytest.raises(ValueError, match=message):
        predict_landmarks(root, images, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists() and not (root / "touched").exists()


def test_wrong_use(tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    with pytest.raises(ValueError, match="lies in"):
        predict_landmarks(root, images, images / "out")
    with pytest.raises(ValueError, match="formats are"):
        predict_landmarks(root, images, tmp_path / "out", ["png"])
    with pytest.raises(ValueError, match="device 'toaster' cannot be used"):
        predict_landmarks(root, images, tmp_path / "out", device="toaster")
    with pytest.raises(ValueError, match="no image in it"):
        predict_landmarks(root, root, tmp_path / "out")
    assert invoke(root, tmp_path / "absent").exit_code == 2
    assert not (tmp_path / "out").exists()


def test_more_configuration(tmp_path):
    """As a bundle has it for the variants that it can be trained in."""
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    variant = root / "configs" / "variant.json"
    variant.write_text(json.dumps({"network_def": NETWORK}))
    change(root, network_def={**NETWORK, "out_channels": 7})
    with pytest.raises(ValueError, match="not those of the network"):
        predict_landmarks(root, images / "a.png", tmp_path / "out", device="cpu")
    done = invoke(root, images / "a.png", "--out", tmp_path / "out", "--device", "cpu", "--config", variant)
    assert done.exit_code == 0, done.stderr
    [landmarks] = read_landmark_table(tmp_path / "out" / "predictions.csv").values()
    np.testing.assert_allclose(landmarks.points[0], SPOTS["a.png"][1], atol=0.1)


def test_regions_are_stated(tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    names = tuple(bundle_landmark_names(root / "configs" / "metadata.json"))
    ConformalRegions(names, 0.9, bounds=(1.5,) * 19, cases=(20,) * 19, spatial_dims=2).save(tmp_path / "regions.json")
    arguments = (root, images / "a.png", "--out", tmp_path / "out", "--device", "cpu", "--spacing", "0.5")
    done = invoke(*arguments, "--regions", tmp_path / "regions.json")
    assert done.exit_code == 0, done.stderr
    landmarks = read_landmarks(tmp_path / "out" / "a.mrk.json")
    assert landmarks.coverage == 0.9
    np.testing.assert_allclose(landmarks.region_radius, 1.5, rtol=1e-6)
    (tmp_path / "regions.json").write_text("{}")
    done = invoke(*arguments, "--regions", tmp_path / "regions.json")
    assert done.exit_code == 1 and "regions.json" in done.stderr and done.stderr.count("\n") == 1


def test_weights_of_another_place(tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    (root / "models" / "model.pt").rename(tmp_path / "best.pt")
    predict_landmarks(root, images / "a.png", tmp_path / "out", checkpoint=tmp_path / "best.pt", device="cpu")
    [landmarks] = read_landmark_table(tmp_path / "out" / "predictions.csv").values()
    np.testing.assert_allclose(landmarks.points[0], SPOTS["a.png"][1], atol=0.1)


def test_the_learned_sigma_as_uncertainty(tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    arguments = (root, images / "a.png", "--out", tmp_path / "out", "--device", "cpu", "--spacing", 0.5)
    done = invoke(*arguments, "--covariance", "sigma")
    assert done.exit_code == 0 and "note: no learned sigma is used, for there is no" in done.stderr
    by_heatmap = read_landmarks(tmp_path / "out" / "a.mrk.json")
    sigma = torch.linspace(1, 3, 19)[:, None]
    torch.save({"sigma": sigma}, root / "models" / "model_sigma.pt")
    done = invoke(*arguments, "--covariance", "sigma")
    assert done.exit_code == 0 and "note" not in done.stderr
    found = read_landmarks(tmp_path / "out" / "a.mrk.json")
    np.testing.assert_array_equal(found.points, by_heatmap.points)
    voxel = 0.5 * 120 / 128  # the image of 90x120 pixels fills the grid of 96x128
    np.testing.assert_allclose(
        found.covariances[:, :2, :2], (voxel * sigma[..., None].numpy()) ** 2 * np.eye(2), rtol=1e-4, atol=1e-9
    )
    assert invoke(*arguments).exit_code == 0
    np.testing.assert_allclose(read_landmarks(tmp_path / "out" / "a.mrk.json").covariances, by_heatmap.covariances)
    (root / "models" / "model_sigma.pt").write_text("no sigma")
    done = invoke(*arguments, "--covariance", "sigma")
    assert done.exit_code == 1 and "model_sigma.pt: contains no learned sigma" in done.stderr
