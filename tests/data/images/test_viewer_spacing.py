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

"""The pixel size that 3D Slicer, which reads with ITK, takes for a file, and the notes where it is not the one in use."""

from __future__ import annotations

import re
import shlex
import struct

import itk
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, UnidentifiedImageError

from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, read_landmarks, write_landmarks
from monai_landmarks.data.images.image_notes import image_notes, join_notes
from monai_landmarks.data.images.viewer_spacing import viewer_spacing

PICTURES = [
    ("a.png", {"dpi": (72, 72)}),
    ("a.bmp", {}),
    ("a.jpg", {}),
    ("a.jpg", {"dpi": (72, 72)}),
    ("a.jpeg", {"dpi": (150, 75)}),
    ("a.tif", {}),
    ("a.tif", {"dpi": (300, 150)}),
    ("a.tiff", {"dpi": (300, 300), "big_tiff": True}),
]


@pytest.mark.parametrize("name, how", PICTURES)
def test_a_note_says_what_the_viewer_takes_and_what_to_do(tmp_path, name, how, write_picture):
    """Its command finds the pixels that ITK has at the points."""
    path = write_picture(tmp_path / "images" / name, 30, 20, **how)
    image = itk.imread(path)
    seen = tuple(image.GetSpacing())
    assert viewer_spacing(path) == pytest.approx(seen)
    [note] = image_notes(path, spacing=(0.5, 0.25))
    assert note.startswith("The pixel size in use is 0.5 x 0.25 mm, but viewers built on ITK, such as 3D Slicer, show")
    assert f" show this {path.suffix} file with {seen[0]:.6g} x {seen[1]:.6g} mm. " in note
    assert image_notes(path, spacing=seen) == image_notes(path) == image_notes(path, False, 0.5) == []
    pixel = (20, 15)
    clicked = [*image.TransformIndexToPhysicalPoint(pixel), 0.0]
    write_landmarks(tmp_path / "points" / f"{path.stem}.mrk.json", LandmarkSet(("a",), [clicked], "LPS"))
    command = re.search(r"monai-landmarks (convert .*?)\. Points", note)[1]
    for word, place in (("POINTS", "points"), ("NEW_FOLDER", "new"), ("IMAGES", "images")):
        command = command.replace(word, str(tmp_path / place))
    done = CliRunner().invoke(program, shlex.split(command))
    assert (done.exit_code, done.stderr) == (0, "")
    found = read_landmarks(tmp_path / "new" / "a.csv")
    assert found.coordinate_system == "index"
    np.testing.assert_allclose(found.points, [pixel], rtol=1e-5)


def test_one_note_per_kind_of_file(tmp_path, write_picture):
    paths = [write_picture(tmp_path / f"{i}.png", 30, 20) for i in range(3)]
    paths += [write_picture(tmp_path / f"{dpi}.jpg", 30, 20, dpi=(dpi, dpi)) for dpi in (72, 96)]
    notes = join_notes((path.name, note) for path in paths for note in image_notes(path, spacing=0.5))
    assert [note.partition(":")[0] for note in notes] == ["0.png and 2 more", "72.jpg and 1 more"]


def test_a_tiff_with_pixels_that_pillow_does_not_read(tmp_path):
    """One pixel of float16, with 300 and 150 dots per inch."""
    tags = {
        256: 1,
        257: 1,
        258: 16,
        259: 1,
        262: 1,
        273: 400,
        277: 1,
        278: 1,
        279: 2,
        282: 300,
        283: 308,
        296: 2,
        339: 3,
    }
    entries = b"".join(
        struct.pack("<HHII", tag, 5 if tag in (282, 283) else 4, 1, value) for tag, value in tags.items()
    )
    content = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    content = content.ljust(300, b"\0") + struct.pack("<4I", 300, 1, 150, 1)
    (tmp_path / "a.tif").write_bytes(content.ljust(400, b"\0") + struct.pack("<e", 0.5))
    with pytest.raises(UnidentifiedImageError):  # the test itself
        Image.open(tmp_path / "a.tif")
    seen = tuple(itk.imread(tmp_path / "a.tif").GetSpacing())
    assert viewer_spacing(tmp_path / "a.tif") == pytest.approx(seen) == (25.4 / 300, 25.4 / 150)


@pytest.mark.parametrize("unit, x, y", [(1, 0, 0), (1, 5, 0), (2, 3, 4), (0, 3, 4), (9, 3, 4)])
def test_odd_resolutions_of_a_jpeg(tmp_path, unit, x, y, write_picture):
    path = write_picture(tmp_path / "a.jpg", 30, 20, dpi=(300, 200))
    before, after = struct.pack(">BHH", 1, 300, 200), struct.pack(">BHH", unit, x, y)
    path.write_bytes(path.read_bytes().replace(before, after))
    assert viewer_spacing(path) == pytest.approx(tuple(itk.imread(path).GetSpacing()))


@pytest.mark.parametrize("kind, value", [(2, b"two\0"), (5, struct.pack("<I", 8))])
def test_damaged_resolutions_of_a_tiff(tmp_path, kind, value, write_picture):
    """A unit that is text, or lies in the header of the file."""
    path = write_picture(tmp_path / "a.tif", 30, 20, dpi=(300, 300))
    content = path.read_bytes()
    entry = struct.pack("<HHIHH", 296, 3, 1, 2, 0)
    assert entry in content
    path.write_bytes(content.replace(entry, struct.pack("<HHI", 296, kind, 4 if kind == 2 else 1) + value))
    assert viewer_spacing(path) == (1.0, 1.0)


def test_a_turned_picture_has_the_note_on_its_orientation_alone(tmp_path):
    """Viewers built on ITK do not turn it, so another pixel size would not find its points."""
    turned = Image.Exif()
    turned[274] = 6
    Image.new("L", (30, 20)).save(tmp_path / "a.jpg", dpi=(72, 72), exif=turned)
    [note] = image_notes(tmp_path / "a.jpg", spacing=1)
    assert note.startswith("The picture is shown turned")


def test_a_dicom_image_that_states_no_pixel_size(tmp_path, write_dicom_tags):
    path = tmp_path / "a.dcm"
    write_dicom_tags(path, np.arange(600).reshape(20, 30))
    seen = tuple(itk.imread(path).GetSpacing())[:2]
    [note] = image_notes(path, spacing=0.5)
    assert f"show this .dcm file with {seen[0]:.6g} x {seen[1]:.6g} mm" in note
    assert image_notes(path, spacing=seen) == image_notes(path) == []
