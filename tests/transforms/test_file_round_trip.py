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


"""From a file to the grid of a network and back to a file, for random orientations: ITK says where the landmarks are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import (
    Compose,
    LoadImaged,
    Orientationd,
    RandAffined,
    RandFlipd,
    RandRotate90d,
    ResizeWithPadOrCropd,
    Spacingd,
)
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from monai_landmarks.data import CoordinateSystem, LandmarkSet, read_landmarks, write_landmarks
from monai_landmarks.transforms import (
    EnsureWorldAffined,
    HeatmapToLandmarksd,
    LandmarksToIndexd,
    LoadLandmarksd,
    SaveLandmarksd,
)

sitk = pytest.importorskip("SimpleITK")

NAMES = ("a", "b", "missing", "c")
SIZE = (22, 18, 15)
# of gray values in 1/mm: a DICOM file holds whole numbers
SLOPE = 40.0


def random_volume(seed: int, mirrored: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    """
    An oblique, anisotropic volume whose gray value is linear in the world, so that no resampling changes it anywhere.

    Returns:
        the volume; the direction (3,) in LPS along which the gray value grows; landmarks (4, 3) in LPS mm, one missing.
    """
    random = np.random.RandomState(seed)
    axes = np.eye(3)[random.permutation(3)] * random.choice([-1, 1], 3)[:, None]
    direction = Rotation.from_rotvec(random.uniform(-0.4, 0.4, 3)).as_matrix() @ axes
    if (np.linalg.det(direction) < 0) != mirrored:
        direction[:, random.randint(3)] *= -1
    image = sitk.Image(*map(int, SIZE), sitk.sitkFloat32)
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing(random.uniform(0.7, 2.5, 3).tolist())
    image.SetOrigin(random.uniform(-100, 100, 3).tolist())
    gradient = random.normal(size=3)
    gradient /= np.linalg.norm(gradient)
    grid = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), axis=-1).reshape(-1, 3)
    matrix = direction * np.array(image.GetSpacing())
    values = SLOPE * (grid @ matrix.T @ gradient).reshape(SIZE)
    filled = sitk.GetImageFromArray(values.T.astype(np.float32))
    filled.CopyInformation(image)
    index = random.uniform(4, np.array(SIZE) - 5, (4, 3))
    points = np.array([image.TransformContinuousIndexToPhysicalPoint(row.tolist()) for row in index])
    points[2] = np.nan
    return filled, gradient, points


def write(image: Any, folder: Path, kind: str) -> Path:
    if kind != "dicom":
        sitk.WriteImage(image, str(folder / f"image{kind}"))
        return folder / f"image{kind}"
    (folder / "series").mkdir()
    whole = sitk.Cast(sitk.Round(image), sitk.sitkInt16)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    for k in range(SIZE[2]):
        tags = {
            "0008|0060": "CT",
            "0020|000e": "1.2.3.1",
            "0020|000d": "1.2.3",
            "0008|0018": f"1.2.3.1.{k}",
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{x:.10f}" for x in image.TransformIndexToPhysicalPoint((0, 0, k))),
            "0020|0037": "\\".join(f"{x:.12f}" for x in direction[:, :2].T.ravel()),
        }
        piece = whole[:, :, k]
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(folder / "series" / f"{SIZE[2] - k}.dcm"))
        writer.Execute(piece)
    return folder / "series"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", [".nii.gz", ".nrrd", ".mha", "dicom"])
def test_the_world_point_stays(kind: str, seed: int, tmp_path: Path) -> None:
    # a DICOM series cannot be mirrored: its third axis is the cross product of the others
    image, gradient, points = random_volume(seed, mirrored=kind != "dicom" and seed % 2 == 0)
    path = write(image, tmp_path, kind)
    write_landmarks(tmp_path / "points.mrk.json", LandmarkSet(NAMES, points, CoordinateSystem.LPS))
    to_network = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            EnsureWorldAffined("image"),
            LoadLandmarksd("label", names=NAMES),
            Orientationd("image", "RAS"),
            RandFlipd("image", 0.5, spatial_axis=1),
            RandRotate90d("image", 0.5, spatial_axes=(0, 2)),
            Spacingd("image", (1.1, 0.9, 1.3), mode="bilinear", padding_mode="border"),
            RandAffined(
                "image",
                prob=1.0,
                rotate_range=(0.2,) * 3,
                scale_range=(0.1,) * 3,
                padding_mode="border",
                mode="bilinear",
            ),
            ResizeWithPadOrCropd("image", (48, 48, 48)),
            LandmarksToIndexd("label", "image"),
        ]
    ).set_random_state(seed)
    item = to_network({"image": str(path), "label": str(tmp_path / "points.mrk.json")})

    # on the grid of the network the gray value at each landmark is that of its place in the file's world
    index = item["label"][0].as_tensor().double()
    known = [0, 1, 3]
    gray = map_coordinates(item["image"][0].double().numpy(), index[known].numpy().T, order=1)
    # gray values count from the first voxel
    expected = (points[known] - np.array(image.GetOrigin())) @ gradient
    np.testing.assert_allclose(gray / SLOPE, expected, atol=0.05)

    # a network that is always right, and its file
    item["pred"] = {"points": index, "scores": torch.ones(4), "covariances": torch.eye(3).expand(4, 3, 3)}
    save = SaveLandmarksd(
        "pred_points", names=NAMES, output_dir=tmp_path / "out", print_log=False, saved_path_key="file"
    )
    saved = save(HeatmapToLandmarksd("pred")(item))
    found = read_landmarks(saved["pred_points_file"]).to(CoordinateSystem.LPS)
    places = dict(zip(found.names, found.points))
    for name, point in zip(NAMES, points):
        np.testing.assert_allclose(places.get(name, np.full(3, np.nan)), point, atol=1e-3)
