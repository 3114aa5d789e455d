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
"""Landmark files and rows into the world beside their image, and back into files that 3D Slicer opens at the right place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, LoadImaged, Spacingd

from monai_landmarks.data import CoordinateSystem, LandmarkSet, read_landmarks, write_landmarks
from monai_landmarks.transforms import (
    EnsureWorldAffined,
    LandmarksToIndexd,
    LoadLandmarks,
    LoadLandmarksd,
    SaveLandmarks,
    SaveLandmarksd,
)

NAMES = ("a", "b", "c")
PIXELS = np.array([[33.25, 7.5], [np.nan, np.nan], [10.0, 20.0]])
ROWS = [[33.25, 7.5], [None, None], [10, 20]]


@pytest.fixture
def png(tmp_path: Path, write_picture: Callable[..., Path]) -> Path:
    return write_picture(tmp_path / "hand.png", 60, 40)


def load(path: Path, label: Any, *more: Any, **kwargs: Any) -> dict[str, Any]:
    chain = [
        LoadImaged("image", ensure_channel_first=True),
        EnsureWorldAffined("image"),
        LoadLandmarksd("label", **kwargs),
        *more,
    ]
    return Compose(chain)({"image": str(path), "label": label, "spacing": 0.5})


def image_3d(**meta: Any) -> MetaTensor:
    affine = torch.tensor([[0.0, -0.5, 0, 9], [0.7, 0, 0, -4], [0, 0, 2, 30], [0, 0, 0, 1]], dtype=torch.float64)
    return MetaTensor(torch.zeros(1, 20, 22, 24), affine=affine, meta=meta)


def test_rows_of_pixels(png: Path) -> None:
    world = load(png, ROWS)["label"]
    assert world.shape == (1, 3, 2) and world.dtype == torch.float64
    assert torch.equal(world.affine, torch.eye(4, dtype=torch.float64))
    np.testing.assert_allclose(world[0].numpy(), -0.5 * PIXELS)  # RAS: Slicer's LPS with both signs turned
    index = load(png, ROWS, LandmarksToIndexd("label"))["label"]
    np.testing.assert_allclose(index[0].numpy(), PIXELS, atol=1e-6)


@pytest.mark.parametrize("rows", [ROWS, [[33.25, 7.5], None, [10, 20]], PIXELS, torch.from_numpy(PIXELS)[None]])
@pytest.mark.parametrize("system, sign", [("index", -0.5), ("RAS", 1.0), ("LPS", -1.0)])
def test_coordinate_system_of_rows(png: Path, rows: Any, system: str, sign: float) -> None:
    image = load(png, ROWS)["image"]
    np.testing.assert_allclose(LoadLandmarks(coordinate_system=system)(rows, image)[0].numpy(), sign * PIXELS)
    stated = LoadLandmarksd("label")({"image": image, "label": rows, "label_coordinate_system": system})
    np.testing.assert_allclose(stated["label"][0].numpy(), sign * PIXELS)


def test_names_of_rows(png: Path) -> None:
    """Rows in another order than the names wanted are sorted, and those of other landmarks are refused."""
    image = load(png, ROWS)["image"]
    item = {"image": image, "label": ROWS[::-1], "label_names": NAMES[::-1]}
    loaded = LoadLandmarksd("label", names=NAMES)(item)
    np.testing.assert_array_equal(loaded["label"], LoadLandmarks(names=NAMES)(ROWS, image))
    assert "label_names" not in loaded and "label_names" in item
    fewer = LoadLandmarksd("label", names=NAMES)({"image": image, "label": ROWS[:1], "label_names": NAMES[:1]})["label"]
    assert fewer.shape == (1, 3, 2) and fewer[0, 1:].isnan().all()
    with pytest.raises(ValueError, match=r"\['d'\] are not among"):
        LoadLandmarksd("label", names=NAMES)({"image": image, "label": ROWS, "label_names": ("a", "b", "d")})
    with pytest.raises(ValueError, match="no landmarks"):
        LoadLandmarksd("label", names=NAMES)({"image": image, "label": None})


@pytest.mark.parametrize("suffix", [".csv", ".mrk.json", ".fcsv"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("system", ["RAS", "LPS", "index"])
def test_files(tmp_path: Path, suffix: str, dims: int, system: str) -> None:
    if system == "index" and suffix != ".csv":
        pytest.skip("Slicer's formats hold world points only")
    random = np.random.RandomState(0)
    points = random.uniform(0, 20, (3, dims))
    points[1] = np.nan
    path = tmp_path / f"points{suffix}"
    write_landmarks(path, LandmarkSet(NAMES, points, CoordinateSystem(system)))
    image = image_3d() if dims == 3 else MetaTensor(torch.zeros(1, 20, 22), affine=image_3d().affine)
    world = LoadLandmarks(names=("c", "missing", "a", "b"))(path, image)[0].numpy()
    affine = image.affine.numpy()
    expected = {
        "RAS": points,
        "LPS": points * np.array([-1, -1, 1])[:dims],
        "index": points @ affine[:dims, :dims].T + affine[:dims, 3],
    }[system]
    np.testing.assert_allclose(world, expected[[2, 1, 0, 1]], atol=1e-6)  # row 1 is missing, as the unknown name is


def test_names(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    write_landmarks(path, LandmarkSet(NAMES, np.eye(3)))
    assert LoadLandmarks()(path).shape == (1, 3, 3)
    with pytest.raises(ValueError, match=r"points\.csv.*'c'.*strict=False"):
        LoadLandmarks(names=("b", "a"))(path)
    loose = LoadLandmarks(names=("b", "a"), strict=False)(path)
    np.testing.assert_array_equal(loose[0].numpy(), np.eye(3)[[1, 0]])
    with pytest.raises(ValueError, match="3 rows.*2"):
        LoadLandmarks(names=("b", "a"), coordinate_system="RAS")(ROWS)


def test_all_missing_have_the_dimension_of_the_image() -> None:
    assert LoadLandmarks()([None, None], image_3d()).shape == (1, 2, 3)
    assert LoadLandmarks()([], image_3d()).shape == (1, 0, 3)


def test_2d_images_and_3d_files(tmp_path: Path) -> None:
    path = tmp_path / "points.mrk.json"
    image = MetaTensor(torch.zeros(1, 20, 22))
    flat = np.array([[1.0, 2.0, 0.0], [3.0, 4.0, 1e-5]])
    write_landmarks(path, LandmarkSet(("a", "b"), flat))
    np.testing.assert_allclose(LoadLandmarks()(path, image)[0].numpy(), flat[:, :2])
    write_landmarks(path, LandmarkSet(("a", "b"), flat + [0, 0, 7.0]))
    with pytest.raises(ValueError, match=r"points\.mrk\.json.*off the plane"):
        LoadLandmarks()(path, image)
    image.affine[2, 3] = 7.0  # a single slice that lies at z = 7
    np.testing.assert_allclose(LoadLandmarks()(path, image)[0].numpy(), flat[:, :2])
    with pytest.raises(ValueError, match="2 coordinates.*3 spatial"):
        LoadLandmarks()(ROWS, image_3d(), "RAS")


def test_pixels_need_the_image_as_it_was_loaded(png: Path) -> None:
    with pytest.raises(ValueError, match="Load the image first"):
        LoadLandmarks()(ROWS)
    with pytest.raises(KeyError, match="Load it first"):
        LoadLandmarksd("label")({"label": ROWS})
    late = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            EnsureWorldAffined("image"),
            Spacingd("image", (1.0, 1.0), mode="bilinear"),
            LoadLandmarksd("label"),
        ]
    )
    with pytest.raises(RuntimeError) as info:
        late({"image": str(png), "label": ROWS, "spacing": 0.5})
    assert "already transformed" in str(info.value.__cause__)
    # world points do not mind
    assert late({"image": str(png), "label": ROWS, "label_coordinate_system": "LPS"})["label"].shape == (1, 3, 2)


@pytest.mark.parametrize("rows", [[[1.0, 2.0], [1.0, 2.0, 3.0]], [[1.0]], np.zeros((2, 2, 2))])
def test_bad_rows(rows: Any) -> None:
    with pytest.raises(ValueError, match="rows of|shape"):
        LoadLandmarks(coordinate_system="RAS")(rows)


@pytest.mark.parametrize("suffix", [".mrk.json", ".fcsv", ".csv"])
def test_saved_points_load_again(png: Path, tmp_path: Path, suffix: str) -> None:
    # through a chain that moves the image: index points of the moved image, saved in the world, loaded with the file
    item = load(png, ROWS, Flipd("image", 0), LandmarksToIndexd("label", dtype=torch.float64))
    item["score"] = torch.tensor([0.5, float("nan"), 0.25])
    saver = SaveLandmarksd(
        "label", score_keys="score", names=NAMES, output_dir=tmp_path / "out", output_ext=suffix, saved_path_key="path"
    )
    path = Path(saver(item)["label_path"])
    silent = SaveLandmarksd("label", names=NAMES, output_dir=tmp_path / "same", output_ext=suffix)
    assert set(silent(item)) == set(item) and (tmp_path / "same" / path.name).is_file()
    assert path == tmp_path / "out" / f"hand_landmarks{suffix}"
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left
    again = load(png, str(path), LandmarksToIndexd("label", dtype=torch.float64), names=NAMES)
    np.testing.assert_allclose(again["label"][0].numpy(), PIXELS, atol=1e-5)
    scores = read_landmarks(path).scores
    assert scores is not None
    np.testing.assert_allclose(scores[[0, 2]], [0.5, 0.25])


def test_slicer_sees_png_points_at_their_pixels(png: Path, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    chain = [LoadImaged("image", ensure_channel_first=True), EnsureWorldAffined("image"), LoadLandmarksd("label")]
    item = Compose(chain)({"image": str(png), "label": ROWS})
    path = SaveLandmarks(names=NAMES, output_dir=tmp_path)(item["label"], item["image"])
    node = json.loads(path.read_text())["markups"][0]
    assert node["coordinateSystem"] == "LPS"
    image = sitk.ReadImage(str(png))
    for point, pixel in zip(node["controlPoints"], PIXELS):
        if not np.isnan(pixel[0]):
            assert point["position"][2] == 0
            np.testing.assert_allclose(
                image.TransformPhysicalPointToContinuousIndex(point["position"][:2]), pixel, atol=1e-5
            )


def test_save_3d_and_options(tmp_path: Path) -> None:
    image = image_3d(filename_or_obj="/data/case1/scan.nii.gz")
    world = MetaTensor(torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]))
    path = SaveLandmarks(output_dir=tmp_path, output_postfix="", separate_folder=True)(world, image)
    assert path == tmp_path / "scan" / "scan.mrk.json"
    landmarks = read_landmarks(path).to("RAS")
    assert landmarks.names == ("1", "2")
    np.testing.assert_allclose(landmarks.points, world[0].numpy())
    rooted = SaveLandmarks(output_dir=tmp_path, output_ext="csv", data_root_dir="/data", coordinate_system="index")
    path = rooted(world, image)
    assert path == tmp_path / "case1" / "scan_landmarks.csv"
    np.testing.assert_allclose(read_landmarks(path).to_world(image.affine.numpy()).points, world[0].numpy(), atol=1e-6)
    assert SaveLandmarks(output_dir=tmp_path)(world, filename="other.png").name == "other_landmarks.mrk.json"


def test_every_series_has_its_own_file(tmp_path: Path) -> None:
    """The number after the last dot is no suffix."""
    saver = SaveLandmarks(output_dir=tmp_path, separate_folder=True)
    world = MetaTensor(torch.tensor([[[1.0, 2.0, 3.0]]]))
    for name in ("1.2.840.113.1", "1.2.840.113.2"):
        path = saver(world, image_3d(filename_or_obj=f"/d/{name}"))
        assert path == tmp_path / name / f"{name}_landmarks.mrk.json"


def test_save_2d_slice_in_its_plane(tmp_path: Path) -> None:
    image = MetaTensor(
        torch.zeros(1, 5, 5), affine=torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 7], [0, 0, 0, 1]])
    )
    path = SaveLandmarks(output_dir=tmp_path)(np.array([[1.0, 2.0]]), image, filename="slice.nii")
    np.testing.assert_allclose(read_landmarks(path).to("RAS").points, [[1, 2, 7]])


def test_save_errors(tmp_path: Path) -> None:
    saver, points = SaveLandmarks(names=NAMES, output_dir=tmp_path), np.zeros((3, 2))
    image = MetaTensor(torch.zeros(1, 5, 5), meta={"filename_or_obj": "a.png"})
    with pytest.raises(ValueError, match="pass their image"):
        saver(points)
    with pytest.raises(ValueError, match="as pixels, pass their image"):
        SaveLandmarks(output_dir=tmp_path, coordinate_system="index")(MetaTensor(torch.zeros(1, 3, 2)))
    with pytest.raises(ValueError, match="2 points.*3 landmark names"):
        saver(points[:2], image)
    with pytest.raises(ValueError, match=r"scores has shape \(2,\); expected \(3,\)"):
        saver(points, image, np.zeros(2))
    with pytest.raises(ValueError, match="Pass filename"):
        saver(points, MetaTensor(torch.zeros(1, 5, 5)))
    assert not list(tmp_path.iterdir())


def test_landmarks_are_loaded_once():
    image = MetaTensor(torch.zeros(1, 9, 9))
    item = {"image": image, "label": MetaTensor(torch.ones(1, 2, 2))}
    with pytest.raises(ValueError, match="are loaded already"):
        LoadLandmarksd("label")(item)
