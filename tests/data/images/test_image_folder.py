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

"""Images to be predicted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImage

from monai_landmarks.data import ImageFileReader, bundle_landmark_names, image_folder_items, read_image


def test_folder_and_file(tmp_path, write_picture):
    for name in ("b.png", "sub/a.jpg"):
        write_picture(tmp_path / name, 5, 4)
    (tmp_path / "notes.txt").write_text("not an image")
    items = image_folder_items(tmp_path, spacing=[0.5, 0.5])
    assert [item["image"] for item in items] == [str(tmp_path / "b.png"), str(tmp_path / "sub" / "a.jpg")]
    assert all(item["spacing"] == [0.5, 0.5] for item in items)
    (tmp_path / "c.dcm").touch()  # a format that stores its spacing
    assert ["spacing" in item for item in image_folder_items(tmp_path, spacing=0.5)] == [True, False, True]
    assert image_folder_items(tmp_path / "b.png") == [{"image": str(tmp_path / "b.png")}]
    with pytest.raises(ValueError, match="no such folder"):
        image_folder_items(tmp_path / "nowhere")


def paths(folder: Path) -> list[str]:
    return [str(Path(item["image"]).relative_to(folder)) for item in image_folder_items(folder)]


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_a_dicom_series_is_one_image(tmp_path, write_dicom, suffix, write_picture):
    volume = np.random.default_rng(0).integers(0, 1000, (12, 10, 4)).astype(np.int16)
    write_dicom(tmp_path / "head" / "ct", volume, "1", suffix=suffix)
    write_dicom(tmp_path / "hands", volume[..., :2], "2", positions=False, suffix=suffix)  # two views of a series
    write_dicom(tmp_path / "twice", volume[..., :2], "3", suffix=suffix, gap=0)  # at the same place: no volume
    write_picture(tmp_path / "picture.png", 5, 4)
    hands = [f"hands/2_{k}{suffix}" for k in range(2)]
    assert paths(tmp_path) == [*hands, "head/ct", "picture.png", *(f"twice/3_{k}{suffix}" for k in range(2))]
    assert paths(tmp_path / "head" / "ct") == ["."]
    [item] = image_folder_items(tmp_path / "head" / "ct")
    image = LoadImage(image_only=True)(item["image"])
    np.testing.assert_array_equal(np.asarray(image), volume)
    np.testing.assert_allclose(np.asarray(image.affine), np.diag([-1, -1, 3, 1]))


def test_a_folder_holds_one_series(tmp_path, write_dicom):
    volume = np.zeros((12, 10, 4), np.int16)
    write_dicom(tmp_path / "two", volume, "1")
    write_dicom(tmp_path / "two", volume[..., :2], "2")
    write_dicom(tmp_path / "one", volume, "3")
    one, two = image_folder_items(tmp_path)
    assert one == {"image": str(tmp_path / "one")} and two["image"] == str(tmp_path / "two")
    assert re.match("the folder holds a DICOM series of [24] slices and [24] other", two["unreadable"])


TILT = np.radians(15)
TILTED = f"1\\0\\0\\0\\{np.cos(TILT):.6f}\\{-np.sin(TILT):.6f}"


def test_a_tilted_gantry_is_a_fault(tmp_path, write_dicom):
    """The slices of one series follow each other along z, and those of the other along their normal."""
    volume = np.zeros((12, 10, 10), np.int16)
    write_dicom(tmp_path / "gantry", volume, "1", orientations=[TILTED])
    write_dicom(tmp_path / "oblique", volume, "2", orientations=[TILTED], direction=(0, np.sin(TILT), np.cos(TILT)))
    gantry, oblique = image_folder_items(tmp_path)
    assert oblique == {"image": str(tmp_path / "oblique")}
    # of the 27 mm from the first to the last
    assert f"shifted sideways by up to {27 * np.sin(TILT):.2f} mm, as with a tilted gantry" in gantry["unreadable"]
    # ITK has the last slice straight above the first, where it is not
    affine = LoadImage(image_only=True)(gantry["image"]).affine.numpy()
    assert not np.allclose(affine @ [0, 0, 9, 1], [0, 0, 27, 1], atol=1)
    affine = read_image(oblique["image"])[1]
    place = affine @ [0, 0, 9, 1]
    np.testing.assert_allclose(place, [0, -27 * np.sin(TILT), 27 * np.cos(TILT), 1], atol=0.02)


def test_slices_of_several_orientations_are_no_volume(tmp_path, write_dicom):
    planes = ["1\\0\\0\\0\\1\\0", "1\\0\\0\\0\\0\\-1", "0\\1\\0\\0\\0\\-1"]
    write_dicom(tmp_path, np.zeros((12, 10, 3), np.int16), "1", orientations=planes)
    [item] = image_folder_items(tmp_path)
    assert "have different orientations" in item["unreadable"]


def test_a_folder_that_is_no_volume_is_not_read(tmp_path, write_dicom, write_picture):
    """A datalist may name a folder, which no search for images has seen."""
    volume = np.zeros((12, 10, 10), np.int16)
    write_dicom(tmp_path / "gantry", volume, "1", orientations=[TILTED])
    write_dicom(tmp_path / "views", volume[..., :2], "2", positions=False)
    write_dicom(tmp_path / "film", volume[..., :1], "3", positions=False)
    write_dicom(tmp_path / "ct", volume, "4")
    write_picture(tmp_path / "ct" / "preview.png", 5, 4)
    reasons = {"gantry": "shifted sideways", "views": "holds 2 DICOM images, which are no slices of one volume"}
    for name, reason in reasons.items():
        for read in (read_image, LoadImage(reader=ImageFileReader(), image_only=True)):
            with pytest.raises(ValueError, match=f"{name}: the .*{reason}"):
                read(tmp_path / name)
    assert read_image(tmp_path / "film")[0].shape == (1, 12, 10, 1)
    assert read_image(tmp_path / "ct")[0].shape == (1, 12, 10, 10)


def test_dicom_files_are_listed_once(tmp_path):
    (tmp_path / "run3").mkdir()
    (tmp_path / "run3" / "a.dcm").touch()
    (tmp_path / "latest").symlink_to("run3")
    assert paths(tmp_path) == ["run3/a.dcm"]


def test_a_folder_called_as_an_image_is_none(tmp_path):
    (tmp_path / "case.nii").mkdir()
    (tmp_path / "case.nii" / "case.nii").touch()
    assert paths(tmp_path) == ["case.nii/case.nii"]


def test_the_index_of_a_dicom_medium_is_no_image(tmp_path):
    """DICOMDIR has no suffix and begins as every DICOM file does: 128 bytes, then DICM."""
    for name in ("DICOMDIR", "IM000001", "notes"):
        (tmp_path / name).write_bytes(bytes(128) + (b"DICM" if name != "notes" else b"text"))
    assert paths(tmp_path) == ["IM000001"]


@pytest.mark.parametrize("suffix", [".dcm", ""])
@pytest.mark.parametrize("damage", [b"no DICOM at all", slice(300), slice(-100)])
def test_a_damaged_slice_is_found(tmp_path, write_dicom, damage, suffix):
    volume = np.random.default_rng(0).integers(0, 1000, (12, 10, 6)).astype(np.int16)
    write_dicom(tmp_path, volume, "1", suffix=suffix)
    broken = tmp_path / f"1_2{suffix}"
    broken.write_bytes(broken.read_bytes()[damage] if isinstance(damage, slice) else bytes(128) + b"DICM" + damage)
    series, single = image_folder_items(tmp_path)
    assert series["image"] == str(tmp_path) and single == {"image": str(broken)}
    assert re.match(
        f"1_1{suffix} and 1_3{suffix} are 6 mm apart, but the median distance in this DICOM series is 3 mm",
        series["unreadable"],
    )
    with pytest.raises((RuntimeError, OSError)):
        LoadImage(image_only=True)(broken)
    # at the end of a series nothing is missing between the others
    (tmp_path / f"1_1{suffix}").unlink()
    (tmp_path / f"1_0{suffix}").unlink()
    assert image_folder_items(tmp_path) == [{"image": str(tmp_path)}, {"image": str(broken)}]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_inverted_dicom_is_turned_round(tmp_path, write_dicom, dtype, suffix):
    pixels = np.random.default_rng(0).integers(0, 200, (6, 5, 1)).astype(dtype)
    for name, photometric in (("dark", b"MONOCHROME2 "), ("bright", b"MONOCHROME1 ")):
        write_dicom(tmp_path / name, pixels, "1", positions=False, suffix=suffix)
        file = tmp_path / name / f"1_0{suffix}"
        file.write_bytes(file.read_bytes().replace(b"MONOCHROME2 ", photometric))
    bright, dark = (read_image(item["image"])[0].astype(float) for item in image_folder_items(tmp_path))
    np.testing.assert_array_equal(dark[0], pixels)
    np.testing.assert_array_equal(dark - dark.min(), bright.max() - bright)


def test_landmark_names_of_a_bundle(tmp_path):
    path = tmp_path / "metadata.json"
    path.write_text('{"network_data_format": {"outputs": {"pred": {"channel_def": {"1": "nasion", "0": "sella"}}}}}')
    assert bundle_landmark_names(path) == ["sella", "nasion"]
    path.write_text('{"network_data_format": {"outputs": {"pred": {"channel_def": {"1": "sella", "2": "nasion"}}}}}')
    with pytest.raises(ValueError, match="0 to 1"):
        bundle_landmark_names(path)
    path.write_text('{"network_data_format": {}}')
    with pytest.raises(ValueError, match="outputs"):
        bundle_landmark_names(path)
