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
"""Image files as MONAI reads them and as ITK, and with it 3D Slicer, sees them: axes, signs, spacing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flip, LoadImage, LoadImaged, Resized, Spacingd, SqueezeDim
from PIL import Image

from monai_landmarks.spaces import spacing_of
from monai_landmarks.transforms import EnsureWorldAffine, EnsureWorldAffined, LandmarksToIndex, LoadLandmarks

sitk = pytest.importorskip("SimpleITK")

SHAPE, MARK = (60, 40), (33, 7)


def write(path: Path, spacing: tuple[float, float] | None = None, origin: tuple[float, float] | None = None) -> Path:
    """An image with one bright pixel at index MARK (x, y)."""
    pixels = np.zeros(SHAPE[::-1], np.uint8)
    pixels[MARK[1], MARK[0]] = 200
    image = sitk.GetImageFromArray(pixels)
    if spacing:
        image.SetSpacing(spacing)
    if origin:
        image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))
    return path


def itk_world(path: Path) -> np.ndarray:
    """Where ITK puts the mark, in RAS mm."""
    position = sitk.ReadImage(str(path)).TransformIndexToPhysicalPoint(MARK)
    return np.array([-position[0], -position[1]])


def world_of_mark(image: MetaTensor) -> np.ndarray:
    mark = np.argwhere(image[0].numpy() == 200)
    assert mark.tolist() == [list(MARK)]  # index order is (x, y)
    affine = image.affine.numpy()
    return affine[:2, :2] @ mark[0] + affine[:2, 3]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg", ".nii.gz", ".mha"])
@pytest.mark.parametrize("reader", [None, "PILReader", "ITKReader"])
def test_world_is_that_of_itk(tmp_path: Path, suffix: str, reader: str | None) -> None:
    photographic = suffix in (".png", ".bmp", ".tif", ".jpg")
    if suffix == ".jpg" or (reader == "PILReader" and not photographic):
        pytest.skip("JPEG does not keep the mark, and PIL reads photographic formats only")
    path = write(tmp_path / f"a{suffix}", None if photographic else (0.5, 0.25), None if photographic else (3.0, 4.0))
    image = EnsureWorldAffine()(LoadImage(reader=reader, ensure_channel_first=True)(path))
    assert image.affine.shape == (4, 4)
    np.testing.assert_allclose(world_of_mark(image), itk_world(path), atol=1e-5)


def test_without_it_a_png_is_mirrored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    plain = LoadImage(ensure_channel_first=True)(path)
    np.testing.assert_allclose(world_of_mark(plain), -itk_world(path))


@pytest.mark.parametrize("reader", ["PILReader", "ITKReader"])
@pytest.mark.parametrize("spacing", [0.1, (0.1, 0.2)])
def test_spacing_of_files_that_have_none(tmp_path: Path, reader: str, spacing: float | tuple[float, float]) -> None:
    path = write(tmp_path / "a.png")
    item = {"image": path, "spacing": [0.1, 0.2] if isinstance(spacing, tuple) else spacing}
    from_item = Compose([LoadImaged("image", reader=reader, ensure_channel_first=True), EnsureWorldAffined("image")])(
        item
    )
    from_argument = EnsureWorldAffine(spacing)(LoadImage(reader=reader, ensure_channel_first=True)(path))
    expected = itk_world(path) * np.broadcast_to(spacing, 2)
    np.testing.assert_allclose(world_of_mark(from_item["image"]), expected, atol=1e-6)
    np.testing.assert_allclose(world_of_mark(from_argument), expected, atol=1e-6)
    assert from_item["spacing"] == item["spacing"]


def test_a_different_spacing_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", (0.5, 0.25))
    image = LoadImage(ensure_channel_first=True)(path)
    with pytest.raises(ValueError, match=r"a\.nii\.gz.*0\.25.*0\.1"):
        EnsureWorldAffine(0.1)(image)
    np.testing.assert_allclose(EnsureWorldAffine((0.5, 0.25))(image).pixdim.numpy()[:2], (0.5, 0.25))
    np.testing.assert_allclose(EnsureWorldAffine(0.1, override=True)(image).pixdim.numpy()[:2], (0.1, 0.1), atol=1e-9)


def test_a_print_resolution_is_no_spacing(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros(SHAPE[::-1], np.uint8)).save(path, dpi=(72, 72))
    image = LoadImage(ensure_channel_first=True)(path)
    assert not np.allclose(image.pixdim.numpy(), 1)  # or the test would show nothing
    np.testing.assert_allclose(EnsureWorldAffine(0.1)(image).affine.diagonal()[:2], (-0.1, -0.1))
    np.testing.assert_allclose(EnsureWorldAffine()(image).affine.diagonal()[:2], (-1, -1))


@pytest.mark.parametrize("spacing", [0.0, -1.0, (1.0, 1.0, 1.0)])
def test_bad_spacing(spacing: float | tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing must be"):
        EnsureWorldAffine(spacing)(torch.zeros(1, 4, 4))


@pytest.mark.parametrize("lazy", [False, True])
def test_again_after_a_resampling(tmp_path: Path, lazy: bool) -> None:
    # the item's spacing is the file's: a second time it must not undo what a transform did, and 3x3 becomes 4x4 again
    chain = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            EnsureWorldAffined("image"),
            Resized("image", (30, 10), mode="bilinear"),
            EnsureWorldAffined("image"),
        ],
        lazy=lazy,
    )
    image = chain({"image": write(tmp_path / "a.png"), "spacing": 0.1})["image"]
    assert image.shape == (1, 30, 10) and image.affine.shape == (4, 4)
    np.testing.assert_allclose(spacing_of(image, 2), (0.2, 0.4), atol=1e-6)


def test_input_is_not_changed_and_values_are_shared() -> None:
    image = MetaTensor(torch.rand(1, 5, 4), meta={"space": None, "original_affine": np.eye(4)})
    result = EnsureWorldAffine(0.5)(image)
    assert image.meta["space"] is None and torch.equal(image.affine, torch.eye(4, dtype=torch.float64))
    assert result.data_ptr() == image.data_ptr()
    # savers and inverses go back to the affine of the file
    np.testing.assert_allclose(result.meta["original_affine"], result.affine.numpy())
    assert result.meta["space"] == "RAS"


def test_a_picture_that_was_resampled_still_tells_the_affine_of_its_file(tmp_path: Path) -> None:
    load = [LoadImaged("image", ensure_channel_first=True), EnsureWorldAffined("image", spacing=0.1)]
    image = Compose([*load, Spacingd("image", 0.3, mode="bilinear"), EnsureWorldAffined("image")])(
        {"image": write(tmp_path / "a.png")}
    )["image"]
    np.testing.assert_allclose(image.meta["original_affine"], np.diag([-0.1, -0.1, 1, 1]))
    np.testing.assert_allclose(spacing_of(image, 2), 0.3)


def test_after_a_transform_the_pixels_keep_their_world(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    image = LoadImage(ensure_channel_first=True)(path)
    late = EnsureWorldAffine(0.1)(Flip(0)(image))
    early = Flip(0)(EnsureWorldAffine(0.1)(image))
    torch.testing.assert_close(late.affine, early.affine)


@pytest.mark.parametrize("make", [torch.zeros, np.zeros])
def test_arrays_are_photographic(make: type) -> None:
    assert EnsureWorldAffine(0.5)(make((1, 4, 5))).affine.diagonal().tolist() == [-0.5, -0.5, 1, 1]


def test_made_up_images_keep_their_world() -> None:
    affine = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 5.0], [0.0, 0.0, 1.0]])
    result = EnsureWorldAffine()(MetaTensor(torch.zeros(1, 4, 5), affine=affine)).affine
    assert result.tolist() == [[0, 2, 0, 1], [3, 0, 0, 5], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_squeeze() -> None:
    affine = torch.tensor([[-0.2, 0, 0, 4], [0, -0.3, 0, 5], [0, 0, 1, 9], [0, 0, 0, 1]], dtype=torch.float64)
    image = MetaTensor(torch.rand(1, 6, 5, 1), affine=affine)
    flat = EnsureWorldAffine(squeeze=True)(image)
    assert flat.shape == (1, 6, 5) and torch.equal(flat.affine, affine)
    assert EnsureWorldAffine()(image).shape == (1, 6, 5, 1)
    np.testing.assert_allclose(SqueezeDim(-1)(image).affine.diagonal(), [-0.2, -0.3, 1])  # MONAI agrees on the plane
    sagittal = MetaTensor(torch.rand(1, 6, 5, 1), affine=affine[[2, 0, 1, 3]])
    with pytest.raises(ValueError, match="x-y plane"):
        EnsureWorldAffine(squeeze=True)(sagittal)


@pytest.mark.parametrize("tilt", [(0.3, 0.0), (0.0, 0.9e-3 * 0.3), (0.3, 1e-4)])
def test_a_slice_with_a_tilt_keeps_its_points(tilt: tuple[float, float]) -> None:
    """A sheared slice (gantry tilt), or one that is tilted by less than is refused, far away from z = 0."""
    affine = torch.tensor([[0.5, 0, 0, -50], [0, 0.3, tilt[0], -60], [0, tilt[1], 3, 800], [0, 0, 0, 1]]).double()
    image = EnsureWorldAffine(squeeze=True)(MetaTensor(torch.zeros(1, 300, 300, 1), affine=affine))
    world = LoadLandmarks()([[100.0, 200.0]], image)
    np.testing.assert_allclose(LandmarksToIndex(torch.float64)(world, image)[0], [[100, 200]], atol=1e-6)


def test_transforms_that_are_not_applied_yet_are_not_lost() -> None:
    image = Flip(0, lazy=True)(MetaTensor(torch.arange(6.0).reshape(1, 2, 3), affine=torch.eye(4)))
    with pytest.raises(ValueError, match="lazy transforms that are not applied yet"):
        EnsureWorldAffine()(image)
