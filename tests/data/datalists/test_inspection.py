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
"""What is wrong with a data set is found, all of it, and what is right is not."""

from __future__ import annotations

import re
import shutil
import zlib

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged
from PIL import Image

from monai_landmarks.data import LandmarkSet, check_data, write_landmark_table, write_landmarks
from monai_landmarks.transforms import EnsureWorldAffined, LandmarksToIndexd, LoadLandmarksd

NAN = float("nan")


def picture(path, size=(30, 20), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 255, (size[1], size[0]), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures of 30x20 pixels with two landmarks; the third has one."""
    table = {}
    for i in range(12):
        picture(tmp_path / f"images/{i:02d}.png")
        table[f"{i:02d}"] = LandmarkSet(("a", "b"), [[29.5, i], [NAN, NAN] if i == 3 else [-0.5, 19.5]], "index")
    write_landmark_table(tmp_path / "t.csv", table)
    return tmp_path


def append(folder, text):
    with open(folder / "t.csv", "a") as file:
        file.write(text)


def test_nothing_is_wrong(pictures):
    check = check_data(pictures / "images", pictures / "t.csv", spacing=(0.5, 0.25))
    assert check.faults == check.notes == []
    assert check.counts() == {"a": 12, "b": 11}
    summary = dict(check.summary())
    assert summary["images"] == "12, 12 of them with landmarks" and summary["formats"] == ".png"
    assert summary["size"] == "30 x 20" and summary["spacing"] == "0.5 x 0.25 mm" and summary["coordinates"] == "index"
    assert summary["landmarks"] == "2: a, b" and summary["points"] == "23, 1 missing"
    np.testing.assert_array_equal(check.images[5].points.points, [[29.5, 5], [-0.5, 19.5]])


@pytest.mark.parametrize("workers", [0, 2])
def test_every_fault_is_found(pictures, workers):
    images, table = pictures / "images", pictures / "t.csv"
    append(pictures, "02,c,1,x\n02,d,30.6,3\n05,d,1,-0.6\n99,a,1,2\n")  # lines 27 to 30
    (images / "01.png").write_bytes(b"\x89PNG cut")
    nib.save(nib.Nifti1Image(np.full((4, 5, 6), np.nan, np.float32), np.eye(4)), images / "v.nii.gz")
    append(pictures, "v,a,1,2\n")
    faults = check_data(images, table, workers=workers).faults
    expected = [
        (f"{table}: line 27: ", "'y' is 'x'; expected a number"),
        (f"{table}: line 30: ", "'99' is not among the images"),
        ("pixel size not known: 11 images, for example 00.png", "or 1 to work in pixels"),
        (f"{images / '01.png'}: ", "cannot be read"),
        (f"{table}: line 28: ", "'d' is at index [30.6, 3.0], outside the image of shape (30, 20): 02.png"),
        (f"{table}: line 29: ", "'d' is at index [1.0, -0.6], outside the image of shape (30, 20): 05.png"),
        (f"{images / 'v.nii.gz'}: ", "120 pixels are not finite numbers"),
        (f"{table}: line 31: ", "the points are 2-D, but the image is 3-D with shape (4, 5, 6): v.nii.gz"),
    ]
    assert len(faults) == len(expected), "\n".join(faults)
    for fault, (start, part) in zip(faults, expected):
        assert fault.startswith(start) and part in fault
    partial = check_data(images, table, spacing=1, partial=True)
    assert len(partial.faults) == len(expected) - 2
    assert any("'99' is not among" in note for note in partial.notes)


def test_notes(pictures):
    images = pictures / "images"
    append(pictures, "01,A ,1,2\n01,rare,3,4\n")
    picture(images / "04.png", mode="RGB")
    picture(images / "unlabeled.png")
    Image.fromarray(np.full((20, 30), 7, np.uint8)).save(images / "06.png")
    (images / "08.png").write_bytes((images / "07.png").read_bytes())
    check = check_data(images, pictures / "t.csv", spacing=1)
    assert check.faults == []
    assert check.notes == [
        f"{images / 'unlabeled.png'}: has no landmarks and is left out.",
        "landmark 'A' has a point in only 1 of 12 images.",
        "landmark 'rare' has a point in only 1 of 12 images.",
        "landmarks ['a', 'A'] count as different; their names differ only in case, spaces or letters that look the same.",
        "most images have 1 channels, but 1 differ, for example 04.png.",
        f"{images / '06.png'}: all pixels are 7.",
        f"{images / '08.png'}: the same image as {images / '07.png'}.",
    ]
    assert dict(check.summary())["channels"] == "1 (11), 3 (1)"


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_volumes_in_the_world(tmp_path, suffix):
    """Points in LPS mm, images with axes to the left, anterior and superior: only their index is compared."""
    affine = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -7], [0, 0, 3, 4], [0, 0, 0, 1]])
    if suffix != ".nii.gz":
        itk = pytest.importorskip("itk")
    for i in range(2):
        pixels = np.arange(8 * 9 * 10, dtype=np.int16).reshape(8, 9, 10) + i
        index = LandmarkSet(("a", "b"), [[1.25, 2, 3], [7.6 if i else 7.4, 0, 9]], "index")
        write_landmarks(tmp_path / f"points/{i}.mrk.json", index.to_world(affine).to("LPS"))
        (tmp_path / "images").mkdir(exist_ok=True)
        if suffix == ".nii.gz":
            nib.save(nib.Nifti1Image(pixels, affine), tmp_path / f"images/{i}{suffix}")
        else:
            image = itk.image_from_array(np.ascontiguousarray(pixels.transpose()))
            flip = np.diag([-1.0, -1, 1, 1]) @ affine  # RAS to LPS
            image.SetOrigin(flip[:3, 3])
            image.SetSpacing(np.linalg.norm(flip[:3, :3], axis=0))
            image.SetDirection(flip[:3, :3] / np.linalg.norm(flip[:3, :3], axis=0))
            itk.imwrite(image, str(tmp_path / f"images/{i}{suffix}"))
    check = check_data(tmp_path / "images", tmp_path / "points")
    [fault] = check.faults
    assert fault.startswith(f"{tmp_path / 'points/1.mrk.json'}: landmark 'b' is at index [7.6, 0.0, 9.0], outside")
    summary = dict(check.summary())
    assert (summary["size"], summary["spacing"], summary["orientation"]) == ("8 x 9 x 10", "2 x 1.5 x 3 mm", "LAS")
    assert summary["coordinates"] == "LPS"
    np.testing.assert_allclose(check.images[0].points.points, [[1.25, 2, 3], [7.4, 0, 9]], atol=1e-4)


OFFSET = np.array([[1.0, 0, 0, 100], [0, 1, 0, 200], [0, 0, 1, 300], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    "affine, right", [(OFFSET, "index"), (np.diag([-1.0, -1, 1, 1]), "LPS or index"), (np.eye(4), "")]
)
def test_what_is_assumed_about_a_table_of_volumes_is_said(tmp_path, affine, right):
    """Voxels (1, 2, 3), read as RAS: outside, unless the voxels are those of the world."""
    (tmp_path / "images").mkdir()
    for i in range(2):
        pixels = np.arange(120, dtype=np.int16).reshape(4, 5, 6) + i
        nib.save(nib.Nifti1Image(pixels, affine), tmp_path / f"images/{i}.nii.gz")
    table = tmp_path / "t.csv"
    table.write_text("image,landmark,x,y,z\n0,a,1,2,3\n1,a,2,2,3\n")
    check = check_data(tmp_path / "images", table)
    said = [note for note in check.notes if "coordinate system" in note]
    assert len(said) == 1 and said[0].startswith(f"{table}: states no coordinate system") and "RAS in mm" in said[0]
    assert "--coordinate-system LPS, RAS or index" in said[0] and "'# coordinate_system=LPS'" in said[0]
    if right:
        assert len(check.faults) == 2
        assert all(f"; read as {right} instead of RAS, all points are inside: " in fault for fault in check.faults)
    else:
        assert check.faults == []
    for given in ("--coordinate-system", "in the file"):
        if given == "in the file":
            table.write_text("# coordinate_system=index\n" + table.read_text())
        check = check_data(
            tmp_path / "images", table, coordinate_system="index" if given == "--coordinate-system" else None
        )
        assert check.faults == [] and not any("coordinate system" in note for note in check.notes)


def test_pictures_beside_volumes(pictures):
    nib.save(nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.eye(4)), pictures / "images" / "v.nii")
    (pictures / "points").mkdir()
    for i in range(2):
        write_landmarks(pictures / f"points/{i:02d}.csv", LandmarkSet(("a",), [[1, 2]], "index"))
    write_landmarks(pictures / "points/v.csv", LandmarkSet(("a",), [[1, 2, 3]], "index"))
    [fault] = check_data(pictures / "images", pictures / "points", spacing=1).faults
    assert fault == "00.png is 2-D and v.nii is 3-D; expected images of the same dimension."


def test_world_points_of_pictures_wait_for_the_spacing(pictures):
    for i in range(12):
        write_landmarks(pictures / f"p/{i:02d}.mrk.json", LandmarkSet(("a",), [[29.0 * 2, 3.0 * 2]], "LPS"))
    [fault] = check_data(pictures / "images", pictures / "p").faults
    assert "pixel size not known: 12 images" in fault
    check = check_data(pictures / "images", pictures / "p", spacing=2)
    assert check.faults == []
    np.testing.assert_allclose(check.images[0].points.points, [[29, 3]])
    assert len(check_data(pictures / "images", pictures / "p", spacing=1).faults) == 12  # as far again, outside


def test_points_drawn_in_3d_slicer_on_pictures_have_its_pixel_size(tmp_path):
    """ITK has 0.3528 mm for 72 dots per inch, so another spacing finds other pixels, which a note says."""
    itk = pytest.importorskip("itk")
    (tmp_path / "images").mkdir()
    Image.fromarray(np.arange(60_000).astype(np.uint8).reshape(200, 300)).save(tmp_path / "images/a.jpg", dpi=(72, 72))
    image = itk.imread(tmp_path / "images/a.jpg")
    clicked = [*image.TransformIndexToPhysicalPoint((200, 150)), 0.0]
    write_landmarks(tmp_path / "points/a.mrk.json", LandmarkSet(("a",), [clicked], "LPS"))
    step = float(image.GetSpacing()[0])
    check = check_data(tmp_path / "images", tmp_path / "points", spacing=1)
    np.testing.assert_allclose(check.images[0].points.points, [[200 * step, 150 * step]])
    [note] = [note for note in check.notes if "Slicer" in note]
    assert (
        note.startswith("a.jpg: The pixel size in use is 1 x 1 mm") and f"show this .jpg file with {step:.6g} x" in note
    )
    check = check_data(tmp_path / "images", tmp_path / "points", spacing=step)
    np.testing.assert_allclose(check.images[0].points.points, [[200, 150]])
    assert check.notes == check.faults == []
    write_landmarks(tmp_path / "pixels/a.csv", LandmarkSet(("a",), [[200, 150]], "index"))
    assert check_data(tmp_path / "images", tmp_path / "pixels", spacing=1).notes == []


def test_a_radiograph_in_dicom(tmp_path):
    """A volume of one slice, whose points are 2-D and whose pixel size is in the file."""
    itk = pytest.importorskip("itk")
    pixels = np.random.default_rng(0).integers(0, 1000, (1, 12, 16)).astype(np.uint16)
    image = itk.image_from_array(pixels)
    image.SetSpacing([0.4, 0.5, 1.0])
    (tmp_path / "images").mkdir()
    itk.imwrite(image, str(tmp_path / "images" / "1.dcm"))
    (tmp_path / "t.csv").write_text("image,landmark,x,y\n1.dcm,a,15.4,11.4\n1.dcm,b,3,11.6\n")
    check = check_data(tmp_path / "images", tmp_path / "t.csv")
    [fault] = check.faults
    assert "line 3: landmark 'b' is at index [3.0, 11.6], outside the image of shape (16, 12, 1): 1.dcm" in fault
    assert dict(check.summary())["spacing"].startswith("0.4 x 0.5 x ")
    np.testing.assert_array_equal(check.images[0].points.points, [[15.4, 11.4], [3, 11.6]])


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_dicom_series_and_files_without_suffix(tmp_path, write_dicom, suffix):
    """A folder of slices is one image, which is called as its folder."""
    volume = np.random.default_rng(0).integers(0, 1000, (12, 10, 4)).astype(np.int16)
    for number, name in enumerate("abc", 1):
        write_dicom(tmp_path / "images" / name, volume, str(number), suffix=suffix)
        write_landmarks(tmp_path / f"points/{name}.mrk.json", LandmarkSet(("tip",), [[5.0, 4.0, 6.0]], "LPS"))
    check = check_data(tmp_path / "images", tmp_path / "points")
    assert check.faults == [] and [image.case.name for image in check.images] == ["a", "b", "c"]
    assert len(check.notes) == 0 and dict(check.summary())["formats"] == "DICOM"
    np.testing.assert_allclose([image.points.points[0] for image in check.images], [[5, 4, 2]] * 3, atol=1e-6)
    (tmp_path / "images" / "b" / f"2_1{suffix}").write_text("no slice")
    [fault] = check_data(tmp_path / "images", tmp_path / "points").faults
    assert fault.startswith(f"{tmp_path / 'images' / 'b'}: 2_0{suffix} and 2_2{suffix} are 6 mm apart")
    alone = check_data(tmp_path / "images" / "a", tmp_path / "points" / "a.mrk.json")
    assert alone.faults == [] and [image.case.name for image in alone.images] == ["a"]


def test_series_are_the_same_image_if_all_slices_are(tmp_path, write_dicom):
    images, volume = tmp_path / "images", np.random.default_rng(0).integers(0, 1000, (6, 5, 3)).astype(np.int16)
    write_dicom(images / "a", volume, "1")
    for name in ("b", "c"):
        shutil.copytree(images / "a", images / name)
    last = sorted((images / "c").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-1] + bytes([last.read_bytes()[-1] ^ 1]))  # one bit of one pixel
    for name in "abc":
        write_landmarks(tmp_path / f"points/{name}.mrk.json", LandmarkSet(("tip",), [[1.0, 1.0, 3.0]], "LPS"))
    check = check_data(images, tmp_path / "points")
    assert check.faults == [] and check.notes == [f"{images / 'b'}: the same image as {images / 'a'}."]


AXIAL = np.array([[-0.5, 0, 0, 5], [0, -0.5, 0, 6], [0, 0, 5, 9], [0, 0, 0, 1]])  # at z = 9 mm, 5 mm thick
TILTED = AXIAL + np.outer([0, 0, 0.9e-3 * 0.5, 0], [1, 0, 0, 0])  # by less than is refused


@pytest.mark.parametrize(
    "affine, system, point, is_right",
    [
        (AXIAL, "RAS", (1, 2, 9), True),
        (AXIAL, "RAS", (1, 2, 9.0005), True),
        (AXIAL, "RAS", (1, 2, 0), True),  # where 3D Slicer's formats keep 2-D points
        (AXIAL, "RAS", (1, 2, 10.3), False),
        (AXIAL, "index", (8, 8, 0), True),
        (AXIAL, "index", (8, 8, 0.26), False),
        (AXIAL, "index", (8, 8), True),
        (TILTED, "RAS", (-5, 2, 9), True),
        (TILTED, "RAS", (-5, 2, 9.009), False),  # in the tilted plane, which becomes z = 9
        (TILTED, "index", (20, 8, 0), True),
        (AXIAL[[2, 0, 1, 3]], "RAS", (9, 1, 2), False),  # sagittal
        (AXIAL[[2, 0, 1, 3]], "index", (8, 8), False),
        (None, "LPS", (8, 8, 1e-9), True),
        (None, "LPS", (8, 8, 0.1), False),
        (None, "index", (8, 8, 1e-9), True),
    ],
)
def test_slices_are_at_fault_where_a_bundle_refuses_them(tmp_path, affine, system, point, is_right):
    file = tmp_path / "images" / ("a.nii.gz" if affine is not None else "a.png")
    if affine is None:
        picture(file)
    else:
        file.parent.mkdir()
        nib.save(nib.Nifti1Image(np.arange(600, dtype=np.int16).reshape(30, 20, 1), affine), file)
    landmarks = LandmarkSet(("dot",), [point], system)
    write_landmarks(tmp_path / "points/a.csv", landmarks)
    check = check_data(file.parent, tmp_path / "points", spacing=1)
    assert len(check.faults) == (not is_right), check.faults
    read = Compose(
        [
            LoadImaged("image", reader="monai_landmarks.data.ImageFileReader", ensure_channel_first=True),
            EnsureWorldAffined("image", squeeze=True),
            LoadLandmarksd("label"),
            LandmarksToIndexd("label", refer_keys="image"),
        ]
    )
    item = {"image": file, "label": tmp_path / "points/a.csv"}
    if is_right:
        np.testing.assert_allclose(check.images[0].points.points, read(item)["label"][0], atol=1e-4)
    else:
        with pytest.raises(RuntimeError) as error:
            read(item)
        assert re.search("does not lie in the x-y plane|off the plane of the 2-D image", str(error.value.__cause__))


@pytest.mark.parametrize("spacing", [(), (1, 1, 2)])
def test_a_pixel_size_is_one_number_or_two(pictures, spacing):
    with pytest.raises(ValueError, match="expected one, or two for x and y"):
        check_data(pictures / "images", pictures / "t.csv", spacing=spacing)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_images_with_a_header_are_the_same_if_their_voxels_are(tmp_path, suffix):
    itk = pytest.importorskip("itk")
    images = tmp_path / "images"
    for name, value in {"a": 1, "b": 1, "c": 2}.items():
        (images / name).mkdir(parents=True)
        pixels = np.full((4, 5, 6), value, np.int16)
        pixels[0, 0, 0] = 0
        itk.imwrite(itk.image_from_array(pixels), str(images / name / f"scan{suffix}"))
        write_landmarks(tmp_path / f"points/{name}/scan.mrk.json", LandmarkSet(("tip",), [[1.0, 1.0, 3.0]], "LPS"))
    [a, b, c] = [(images / name / f"scan{suffix}").read_bytes() for name in "abc"]
    assert a == b == c
    check = check_data(images, tmp_path / "points")
    same = f"{images / 'b' / f'scan{suffix}'}: the same image as {images / 'a' / f'scan{suffix}'}."
    assert check.faults == [] and check.notes == [same]


def test_real_pictures(hand9_root):
    check = check_data(hand9_root / "images", hand9_root / "landmarks.csv", spacing=0.3, partial=True)
    assert check.faults == [] and len(check.images) == 6 and set(check.counts().values()) == {6}


def test_no_image_has_landmarks(pictures):
    (pictures / "other.csv").write_text("image,landmark,x,y\nelsewhere,a,1,2\n")
    check = check_data(pictures / "images", pictures / "other.csv", spacing=1)
    assert check.images == [] and "no image has landmarks." in check.faults and check.counts() == {}


def test_unusual_shapes_are_warnings(tmp_path):
    """Among ten pictures: two landmarks exchanged in one, one upside down with its points. Seven are too few."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    mean = np.array([[20, 30], [70, 25], [60, 80], [35, 60], [45, 15]])
    rows = ["image,landmark,x,y"]
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (100, 100)).astype(np.uint8)).save(folder / f"{i}.png")
        points = mean + rng.normal(0, 1, mean.shape)
        points = points[[1, 0, 2, 3, 4]] if i == 3 else 99 - points if i == 6 else points
        rows += [f"{i},{name},{x},{y}" for name, (x, y) in zip("abcde", points)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    check = check_data(folder, tmp_path / "t.csv", spacing=0.5)
    assert check.faults == [] and check.notes == []
    exchanged, turned = check.warnings
    assert exchanged == (
        f"{folder / '3.png'} (landmarks in {tmp_path / 't.csv'}): landmarks 'a' and 'b' look exchanged."
    )
    assert turned.startswith(f"{folder / '6.png'} ") and "the landmarks are turned by 1" in turned
    assert dict(check.summary())["shapes"] == "10 compared, 2 of them unusual"
    assert [bool(image.warnings) for image in check.images] == [i in (3, 6) for i in range(10)]
    few = [folder / f"{i}.png" for i in range(7)]
    small = check_data(few, tmp_path / "t.csv", spacing=0.5, partial=True)
    assert small.warnings == [] and dict(small.summary())["shapes"].startswith("not compared; this requires 8 images")


def test_shapes_of_volumes_are_compared_in_world_coordinates(tmp_path):
    """Volumes stored in different orientations: the points in the world are alike, and only the mirrored set is named."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(1)
    mean = np.array([[10.0, 12, 14], [30, 8, 20], [18, 34, 9], [25, 25, 36], [8, 20, 30]])
    for i in range(9):
        flip = np.diag([-1.0 if i % 2 else 1.0, 1, 1, 1])
        flip[0, 3] = 40 if i % 2 else 0
        nib.save(nib.Nifti1Image(rng.random((41, 41, 41)).astype(np.float32), flip), tmp_path / f"images/{i}.nii.gz")
        points = mean + rng.normal(0, 0.5, mean.shape)
        points = points * [-1, 1, 1] + [40, 0, 0] if i == 4 else points
        write_landmarks(tmp_path / f"points/{i}.mrk.json", LandmarkSet(tuple("abcde"), points))
    [warning] = check_data(tmp_path / "images", tmp_path / "points").warnings
    assert "4.nii.gz" in warning and "a mirror image of those of other images" in warning
