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

"""Results for viewers: landmarks in JSON and as balls at the right positions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from label_data import oblique
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Orientationd

from monai_landmarks.data import LandmarkSet, read_landmarks
from monai_landmarks.label import LandmarkResultd, ball_label_map
from monai_landmarks.transforms import EnsureWorldAffined, FitToGridd

NAMES = ("a", "b", "c")
OBLIQUE = oblique()


def answer(path: Path, spatial_size: list[int], ras: np.ndarray) -> dict[str, Any]:
    """Return the item of an image after the transforms of a bundle. Landmark b was not detected."""
    load: list[Any] = [LoadImaged("image", ensure_channel_first=True), EnsureWorldAffined("image", squeeze=True)]
    turn = (
        [Orientationd("image", axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))]
        if len(spatial_size) == 3
        else []
    )
    item = Compose([*load, *turn, FitToGridd("image", spatial_size)])({"image": str(path)})
    dims = len(spatial_size)
    item["pred"] = torch.zeros(3, *spatial_size)
    item["pred_points"] = MetaTensor(torch.from_numpy(ras)[None], affine=torch.eye(4, dtype=torch.float64))
    item["pred_scores"] = torch.tensor([0.9, 0.1, 0.5])
    item["pred_covariances"] = torch.eye(dims).expand(3, dims, dims) * torch.tensor([4.0, np.nan, 9.0])[:, None, None]
    return dict(LandmarkResultd("pred", names=NAMES)(item))


def world(affine: np.ndarray, *voxels: tuple[float, ...]) -> np.ndarray:
    """Convert voxels (i, j, k) to RAS mm."""
    return np.array([affine[:3, :3] @ voxel + affine[:3, 3] for voxel in voxels])


def with_missing(points: np.ndarray) -> np.ndarray:
    return np.array([points[0], np.full(points.shape[1], np.nan), points[1]])


def test_oblique_volume(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((20, 30, 16), np.int16), OBLIQUE), tmp_path / "a.nii.gz")
    voxels = (4, 21, 3), (15, 6, 11)
    item = answer(tmp_path / "a.nii.gz", [16, 16, 16], with_missing(world(OBLIQUE, *voxels)))
    assert item["pred"].shape == (20, 30, 16)
    for voxel, value in zip(voxels, (1, 3)):
        assert item["pred"][voxel] == value
        center = (item["pred"] == value).nonzero().double().mean(dim=0)
        np.testing.assert_allclose(center, voxel, atol=1e-6)  # the ball is even about a voxel's center
    assert item["pred"].unique().tolist() == [0, 1, 3]


def test_json_has_everything_and_what_is_missing_is_null(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((20, 30, 16), np.int16), OBLIQUE), tmp_path / "a.nii.gz")
    points = with_missing(world(OBLIQUE, (4, 21, 3), (15, 6, 11)))
    result = json.loads(json.dumps(answer(tmp_path / "a.nii.gz", [16] * 3, points)["result"], allow_nan=False))
    a, b, c = result["landmarks"]
    np.testing.assert_allclose([a["position"], c["position"]], points[[0, 2]])
    assert (a["name"], a["score"], a["uncertainty_mm"]) == ("a", pytest.approx(0.9), pytest.approx(np.sqrt(12)))
    assert (b["name"], b["position"], b["uncertainty_mm"]) == ("b", None, None)
    (tmp_path / "a.mrk.json").write_text(json.dumps(result["markups"]))
    markups = read_landmarks(tmp_path / "a.mrk.json")
    assert (markups.names, markups.coordinate_system, markups.missing.tolist()) == (NAMES, "LPS", [False, True, False])
    np.testing.assert_allclose(markups.points[[0, 2]], points[[0, 2]] * (-1, -1, 1))


def test_picture(tmp_path: Path, write_picture: Callable[..., Path]) -> None:
    write_picture(tmp_path / "a.png", 60, 40)
    item = answer(tmp_path / "a.png", [32, 32], with_missing(np.array([[-12.0, -34.0], [-50.0, -7.0]])))
    assert item["pred"].shape == (60, 40)
    assert (item["pred"][12, 34], item["pred"][50, 7]) == (1, 3)
    assert item["result"]["markups"]["markups"][0]["controlPoints"][0]["position"] == [12, 34, 0]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_monai_label_writes_a_slice_where_it_lies(suffix: str, tmp_path: Path) -> None:
    post = pytest.importorskip("monailabel.transform.post", reason="MONAI Label is not installed")
    writer = pytest.importorskip("monailabel.transform.writer")
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(np.zeros((1, 30, 20), np.int16))
    image.SetSpacing((0.5, 0.8, 3.0))
    image.SetOrigin((10.0, -20.0, 7.0))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    points = [image.TransformIndexToPhysicalPoint(index) for index in ((4, 21, 0), (15, 6, 0))]
    item = answer(tmp_path / f"a{suffix}", [16, 16], with_missing(np.array(points)[:, :2] * (-1, -1)))
    item = post.Restored(keys="pred", ref_image="image")({**item, "image_path": f"a{suffix}"})
    file, _ = writer.Writer(label="pred", json="result")(item)
    written = sitk.ReadImage(file)
    Path(file).unlink()
    assert written.GetSize() == image.GetSize()
    for of in (sitk.Image.GetOrigin, sitk.Image.GetSpacing, sitk.Image.GetDirection):
        np.testing.assert_allclose(of(written), of(image), atol=1e-5)
    assert (written[4, 21, 0], written[15, 6, 0]) == (1, 3)
    assert item["result"]["landmarks"][0]["position"] == pytest.approx([-points[0][0], -points[0][1], 7.0])


def test_balls_are_round_in_the_world() -> None:
    points = world(OBLIQUE, (7.3, 9.6, 5.2), (1.0, 14.2, 9.9))
    label_map = ball_label_map(LandmarkSet(("a", "b"), points), (15, 16, 11), OBLIQUE, radius=6.0)
    voxels = np.stack(np.meshgrid(*map(np.arange, label_map.shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm((voxels @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3])[..., None, :] - points, axis=-1)
    assert distance.min(axis=(0, 1, 2)).max() < 6 < np.linalg.norm(points[0] - points[1]) / 2
    np.testing.assert_array_equal(label_map, np.select([distance[..., 0] <= 6, distance[..., 1] <= 6], [1, 2], 0))


def test_each_landmark_shows() -> None:
    """Thick slices, a small ball inside another ball, and points outside the volume."""
    thick = np.diag([1.0, 1.0, 9.0, 1.0])
    points = [[5, 5, 13.0], [6, 5, 13.0], [np.nan] * 3, [-20, 5, 9.0], [5, 5, 60.0]]
    label_map = ball_label_map(LandmarkSet(tuple("abcde"), points), (11, 11, 4), thick, radius=2.0)
    assert label_map[5, 5, 1] == 1 and label_map[6, 5, 1] == 2
    assert set(np.unique(label_map)) == {0, 1, 2}


def test_more_than_255_landmarks() -> None:
    points = np.column_stack([np.arange(300.0), np.zeros((300, 2))])
    label_map = ball_label_map(LandmarkSet(tuple(map(str, range(300))), points), (300, 1, 1), np.eye(4), radius=0.1)
    np.testing.assert_array_equal(label_map[:, 0, 0], np.arange(1, 301))


def test_a_wrong_number_of_names_is_refused() -> None:
    item = {"image": MetaTensor(torch.zeros(1, 4, 4)), "pred_points": MetaTensor(torch.zeros(1, 2, 2)), "pred": 0}
    with pytest.raises(ValueError, match="2 points, but 3 landmark names"):
        LandmarkResultd("pred", names=NAMES)(item)
