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

"""``monai-landmarks predict``: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image
from spot_bundles import NETWORK, SPOTS, change, spot_bundle, write_spots

from monai_landmarks.apps.main import program
from monai_landmarks.data import bundle_landmark_names, read_landmark_table, read_landmarks
from monai_landmarks.uncertainty import ConformalRegions


def invoke(*arguments) -> object:
    return CliRunner().invoke(program, ["predict", *map(str, arguments)])


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
    Image.new("L", (20, 18)).save(tmp_path / "picture.png")
    done = invoke(root, tmp_path / "picture.png", "--out", tmp_path / "none", "--device", "cpu")
    assert done.exit_code == 1 and "picture.png: the image is 2-D with the shape (20, 18), but this" in done.stderr
    assert "bundle is for volumes; leave it out, or take a bundle for 2-D images." in done.stderr
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
    assert "the image is 3-D with the shape (9, 9, 9), but this bundle is for 2-D images; leave it out" in left_out[2]
    assert set(read_landmark_table(out / "predictions.csv")) == {str(images / name) for name in SPOTS}
    # what could be read is as good as without the others
    again = invoke(root, images / "left" / "b.png", "--out", tmp_path / "one", "--device", "cpu", "--format", "csv")
    assert again.exit_code == 0, again.stderr
    paths = [Path(line).name for line in again.stdout.splitlines()]
    assert paths == ["measurements.csv", "overlays.png", "predictions.csv", "predictions_std.csv", "report.html"]
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


def test_more_configuration(tmp_path):
    """As a bundle has it for the variants that it can be trained in."""
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    variant = root / "configs" / "variant.json"
    variant.write_text(json.dumps({"network_def": NETWORK}))
    change(root, network_def={**NETWORK, "out_channels": 7})
    done = invoke(root, images / "a.png", "--out", tmp_path / "out", "--device", "cpu")
    assert done.exit_code == 1 and "these weights do not belong to the network" in done.stderr
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


def test_the_learned_sigma_as_uncertainty(tmp_path):
    root, images = spot_bundle(tmp_path), write_spots(tmp_path / "images")
    arguments = (root, images / "a.png", "--out", tmp_path / "out", "--device", "cpu", "--spacing", 0.5)
    done = invoke(*arguments, "--covariance", "sigma")
    assert done.exit_code == 0 and "note: the uncertainty is that of the heatmaps, because there is no" in done.stderr
    torch.save({"sigma": torch.tensor(1.5)}, root / "models" / "model_sigma.pt")
    done = invoke(*arguments, "--covariance", "sigma")
    assert done.exit_code == 0 and "has not learned the sigma of each landmark" in done.stderr
    by_heatmap = read_landmarks(tmp_path / "out" / "a.mrk.json")
    sigma = torch.linspace(1, 3, 19)[:, None]
    torch.save({"sigma": sigma}, root / "models" / "model_sigma.pt")
    done = invoke(*arguments, "--covariance", "sigma")
    assert done.exit_code == 0 and "note: the uncertainty" not in done.stderr
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


def test_images_that_do_not_exist_are_wrong_usage(tmp_path):
    done = invoke(spot_bundle(tmp_path), tmp_path / "absent")
    assert done.exit_code == 2 and "absent" in done.stderr
