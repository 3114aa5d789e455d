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

"""The pixel size of DICOM images is that of the standard, in every part of the package, or it is not known."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from monai.transforms import Compose, LoadImaged

from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, check_data, load_landmark_datalist, read_image
from monai_landmarks.data.images import dicom_pixel_size
from monai_landmarks.data.images.dicom_pixel_size import pixel_size_of, read_pixel_size
from monai_landmarks.data.images.image_files import has_spacing, place_note, read_header
from monai_landmarks.data.images.viewer_spacing import viewer_spacing
from monai_landmarks.label.pictures import from_viewer, to_viewer
from monai_landmarks.spaces import affine_spacing
from monai_landmarks.transforms import EnsureWorldAffined, LoadLandmarksd

DX, ULTRASOUND, CAPTURE = (f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("1.1", "6.1", "7"))

# attributes, pixel size along x and y (the standard has rows, so y, first), part of the note
CASES = {
    "pixel spacing": ({"t00280030": "0.2\\0.1"}, (0.1, 0.2), ""),
    "exponent and spaces": ({"t00280030": " 2e-1\\+1.0E-1 "}, (0.1, 0.2), ""),
    "none": ({}, None, ""),
    "zero": ({"t00280030": "0\\0"}, None, "'0\\\\0'"),
    "one zero": ({"t00280030": "0.2\\0"}, None, "'0.2\\\\0'"),
    "negative": ({"t00280030": "-0.2\\-0.1"}, None, "-0.2"),
    "no number": ({"t00280030": "nan\\0.1"}, None, "nan"),
    "one value": ({"t00280030": "0.2"}, None, "0.2"),
    "zero, and at the detector": ({"t00280030": "0\\0", "t00181164": "0.3\\0.4"}, (0.4, 0.3), "at the detector"),
    "both differ": (
        {"t00280030": "0.16\\0.08", "t00181164": "0.2\\0.1"},
        (0.08, 0.16),
        "ImagerPixelSpacing (0.1 x 0.2 mm)",
    ),
    "calibrated": ({"t00280030": "0.16\\0.08", "t00181164": "0.2\\0.1", "t00280A02": "GEOMETRY"}, (0.08, 0.16), ""),
    "both agree": ({"t00280030": "0.2\\0.1", "t00181164": "0.20\\0.10"}, (0.1, 0.2), "at the detector"),
    "film, calibrated": ({"t00280030": "0.2\\0.1", "t00182010": "0.4\\0.4"}, (0.1, 0.2), "NominalScannedPixelSpacing"),
    "film": ({"t00182010": "0.4\\0.3"}, (0.3, 0.4), "on the film"),
    "detector": ({"t00181164": "0.2\\0.1"}, (0.1, 0.2), "at the detector"),
    "magnification": ({"t00181164": "0.2\\0.1", "t00181114": "1.25"}, (0.08, 0.16), "1.25"),
    "distances": ({"t00181164": "0.2\\0.1", "t00181110": "1500", "t00181111": "1200"}, (0.08, 0.16), "1.25"),
    "distance alone": ({"t00181164": "0.2\\0.1", "t00181110": "1500"}, (0.1, 0.2), "at the detector"),
}


def itk_spacing(path):
    reader = pytest.importorskip("itk").GDCMImageIO.New()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader.GetSpacing(0), reader.GetSpacing(1)


def positive(spacing):
    return all(step > 1e-6 for step in spacing)


def pixels(rows=12, columns=8):
    return np.random.default_rng(0).integers(0, 1000, (rows, columns))


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.1", DX, ULTRASOUND, CAPTURE])
@pytest.mark.parametrize("name", CASES)
def test_every_reader_has_the_size_of_the_standard(tmp_path, write_dicom_tags, name, sop_class):
    tags, size, _ = CASES[name]
    path = tmp_path / "image.dcm"
    write_dicom_tags(path, pixels(), sop_class=sop_class, **tags)
    if name == "no number" and sop_class in (ULTRASOUND, CAPTURE):  # ITK's size is what happens to be in the memory
        assert not has_spacing(path)
        return
    if not positive(itk_spacing(path)):  # ITK uses the invalid attribute for this kind of image
        with pytest.raises(ValueError, match=r"image\.dcm: ITK cannot read this DICOM image, because .*pixel size"):
            read_image(path)
        return
    given = (0.7, 0.9)
    wanted = given if size is None else size
    assert has_spacing(path) == (size is not None)
    image, affine = read_image(path, given)
    np.testing.assert_array_equal(image[0, :, :, 0], pixels().T)
    np.testing.assert_allclose(np.diag(affine)[:2], [-wanted[0], -wanted[1]], rtol=1e-6)
    np.testing.assert_array_equal(read_header(path, given)[1], affine)
    item = {"image": str(path), "label": [[3, 5]]} | ({"spacing": given} if size is None else {})
    keys = {"keys": "image"}
    chain = Compose(
        [
            LoadImaged(**keys, ensure_channel_first=True),
            EnsureWorldAffined(**keys, squeeze=True),
            LoadLandmarksd("label"),
        ]
    )
    result = chain(item)
    np.testing.assert_allclose(affine_spacing(result["image"].affine, 2), wanted, rtol=1e-6)
    np.testing.assert_allclose(result["label"][0, 0], [-3 * wanted[0], -5 * wanted[1]], rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_choice_is_said(name):
    tags, size, note = CASES[name]
    found = pixel_size_of({f"{tag[1:5]}|{tag[5:].lower()}": value for tag, value in tags.items()})
    assert (found.spacing is None) == (size is None) and note in found.note and bool(note) == bool(found.note)


# images with functional groups: attributes in them, attributes beside them, pixel size, part of the note
GROUPED = {
    "one size": ([{"t00280030": "0.2\\0.1"}], {}, (0.1, 0.2), ""),
    "at the detector": ([{"t00181164": "0.2\\0.1"}], {}, (0.1, 0.2), "at the detector"),
    "the same in each frame": ([{"t00280030": "0.2\\0.1"}, {"t00280030": "0.2\\0.1 "}], {}, (0.1, 0.2), ""),
    "several": ([{"t00280030": "0.2\\0.1"}, {"t00280030": "0.3\\0.1"}], {}, None, "several pixel sizes"),
    "none": ([], {}, None, ""),
    "beside": ([], {"t00182010": "0.4\\0.3"}, (0.3, 0.4), "on the film"),
    "zero": ([{"t00280030": "0\\0"}], {}, None, "'0\\\\0'"),
}


@pytest.mark.parametrize("kind", ["6.2", "12.1.1"])  # which ITK takes for 1 mm
@pytest.mark.parametrize("name", GROUPED)
def test_functional_groups(tmp_path, write_dicom_tags, name, kind):
    groups, tags, size, note = GROUPED[name]
    path = tmp_path / "image.dcm"
    write_dicom_tags(path, pixels(), sop_class=f"1.2.840.10008.5.1.4.1.1.{kind}", groups=groups, **tags)
    found = read_pixel_size(path)
    assert (found.spacing and tuple(round(step, 9) for step in found.spacing)) == size and note in found.note
    wanted = size or (0.7, 0.9)
    _, affine = read_image(path, (0.7, 0.9))
    np.testing.assert_allclose(np.abs(np.diag(affine)[:2]), wanted, rtol=1e-6)
    image = Compose([LoadImaged("image", ensure_channel_first=True), EnsureWorldAffined("image", squeeze=True)])(
        {"image": str(path)} | ({"spacing": (0.7, 0.9)} if size is None else {})
    )["image"]
    np.testing.assert_allclose(affine_spacing(image.affine, 2), wanted, rtol=1e-6)


def test_pixels_that_are_not_square_are_said(tmp_path, write_dicom_tags):
    write_dicom_tags(tmp_path / "a.dcm", pixels(), t00280034="2\\1")
    found = read_pixel_size(tmp_path / "a.dcm")
    assert found.spacing is None and found.note == "its pixels are not square (aspect ratio x : y = 1 : 2)"


def test_without_itk_the_size_is_not_known(tmp_path, write_dicom_tags, monkeypatch):
    write_dicom_tags(tmp_path / "a.dcm", pixels(), t00280030="0.2\\0.1")
    np.testing.assert_allclose(read_pixel_size(tmp_path / "a.dcm").spacing, (0.1, 0.2))
    monkeypatch.setattr(dicom_pixel_size, "has_itk", False)
    found = read_pixel_size(tmp_path / "a.dcm")
    assert found.spacing is None and "the package itk is not installed" in found.note


def test_slices_keep_their_place(tmp_path, write_dicom):
    """CT: positions and orientation are those that ITK reads, and the pixel size is not changed."""
    write_dicom(tmp_path / "ct", np.zeros((6, 5, 3), np.int16), "1")
    image, affine = read_image(tmp_path / "ct")
    assert has_spacing(tmp_path / "ct")
    np.testing.assert_allclose(affine, np.diag([-1, -1, 3, 1]))


def folder(tmp_path, write_dicom_tags, **files):
    for name, tags in files.items():
        write_dicom_tags(tmp_path / "images" / f"{name}.dcm", pixels(), **tags)
    rows = [f"{name}.dcm,dot,3,5" for name in files]
    (tmp_path / "t.csv").write_text("\n".join(["image,landmark,x,y", *rows]) + "\n")
    return tmp_path / "images", tmp_path / "t.csv"


def test_check_names_what_is_not_known(tmp_path, write_dicom_tags):
    data = folder(tmp_path, write_dicom_tags, a={}, b={"t00280030": "0\\0"}, c={"t00280030": "0.2\\0.1"})
    [fault] = check_data(*data).faults
    assert fault.startswith("pixel size not known: 2 images, for example a.dcm") and "Give the spacing" in fault
    check = check_data(*data, spacing=0.5)
    assert check.faults == []
    assert [np.round(image.spacing[:2], 6).tolist() for image in check.images] == [[0.5, 0.5], [0.5, 0.5], [0.1, 0.2]]
    done = CliRunner().invoke(program, ["check", *map(str, data), "--out", str(tmp_path / "out"), "--spacing", "0.5"])
    assert done.exit_code == 0, done.output
    items = [
        item
        for part in ("training", "validation")
        for item in load_landmark_datalist(tmp_path / "out/datalist.json", part)
    ]
    assert {item["image"][-5:-4]: item.get("spacing") for item in items} == {
        "a": [0.5, 0.5],
        "b": [0.5, 0.5],
        "c": None,
    }


def test_check_lists_sizes_and_choices(tmp_path, write_dicom_tags):
    both = {"t00280030": "0.16\\0.08", "t00181164": "0.2\\0.1"}
    alone = {"t00280030": "0.1\\0.1"}
    notes = check_data(
        *folder(tmp_path, write_dicom_tags, a=alone, b=alone, c=both, d=both | {"t00181164": "0.3\\0.1"})
    ).notes
    assert "2 images at 0.1 x 0.1 mm, 2 at 0.08 x 0.16 mm" in notes[-2]
    assert notes[-1].startswith(
        "c.dcm and 1 more: PixelSpacing (0.08 x 0.16 mm) is used, which differs from ImagerPixel"
    )


def test_slicer_sees_another_size(tmp_path, write_dicom_tags):
    """ITK shows a CR image with the size at the detector, or 1 mm, so points must be converted for such a viewer."""
    sitk = pytest.importorskip("SimpleITK")
    both = {"t00280030": "0.16\\0.08", "t00181164": "0.2\\0.1"}
    for tags, spacing in ((both, None), ({}, (0.5, 0.4)), ({"t00280030": "0.2\\0.1"}, None)):
        path = tmp_path / "a.dcm"
        write_dicom_tags(path, pixels(), **tags)
        viewer = sitk.ReadImage(str(path))
        assert viewer_spacing(path) == viewer.GetSpacing()[:2] and ("ITK" in place_note(path)) == bool(tags)
        world = LandmarkSet(("dot",), [[3, 5, 0]], "index").to_world(read_image(path, spacing)[1])
        seen = to_viewer(world, path, spacing)
        assert viewer.TransformPhysicalPointToIndex(seen.to("LPS").points[0]) == (3, 5, 0)
        np.testing.assert_allclose(from_viewer(seen, path, spacing).points, world.points)
    write_dicom_tags(path, pixels(), t00181164="0.2\\0.1")
    assert viewer_spacing(path) is None and place_note(path) == ""
