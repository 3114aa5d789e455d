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

"""NIfTI images lie where viewers built on ITK see them, whatever the header, and a difference to others is said."""

from __future__ import annotations

import struct
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged

from monai_landmarks.data import LandmarkSet, check_data, read_image, read_landmarks, write_landmarks
from monai_landmarks.data.images.image_files import read_header
from monai_landmarks.data.images.nifti_world import read_nifti_world
from monai_landmarks.data.landmarks.formats.nnlandmark import write_label_cubes
from monai_landmarks.transforms import EnsureWorldAffined, LoadLandmarksd, SaveLandmarksd

sitk = pytest.importorskip("SimpleITK")

NAN, INF = float("nan"), float("inf")
STEPS = np.array([0.5, 0.6, 0.7])
SHAPE = (12, 11, 10)
INDEX = np.array([[0, 0, 0], [11, 10, 9], [7, 2, 5]])


def affine(angle=0.0, shift=(0, 0, 0), steps=STEPS, shear=0.0, mirror=False):
    c, s = np.cos(angle), np.sin(angle)
    result = np.eye(4)
    result[:3, :3] = (
        np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]]) * steps
    )
    result[:3, 0] *= -1 if mirror else 1
    result[:3, 3] = np.array([-12, 8, 5]) + shift
    return result


def save(path, qform, q_code, sform, s_code, unit=None, shape=SHAPE):
    image = nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), None)
    header = image.header
    header.set_qform(qform, q_code)
    header.set_sform(sform, s_code)
    if unit is not None:
        header["xyzt_units"] = unit
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    written = nib.load(path).header
    assert (written["qform_code"], written["sform_code"]) == (q_code, s_code)
    return path


def viewer_affine(path):
    """RAS affine of ITK, from the places of voxels."""
    image = sitk.ReadImage(str(path))
    dims = min(image.GetDimension(), 3)
    corner = [0] * image.GetDimension()
    result = np.eye(4)
    for axis in range(dims):
        one = list(corner)
        one[axis] = 1
        there, here = (image.TransformIndexToPhysicalPoint(index) for index in (one, corner))
        result[:dims, axis] = np.subtract(there, here)[:dims]
    result[:dims, 3] = image.GetOrigin()[:dims]
    return np.diag([-1, -1, 1, 1]) @ result


SAME, MOVED, TURNED = affine(0.2), affine(0.2, (2, 2, 2)), affine(-0.3)
# qform, its code, sform, its code, unit of the header; and whether all readers agree
HEADERS = {
    "both": (SAME, 1, SAME, 1, 2, True),
    "qform": (SAME, 1, SAME, 0, 2, True),
    "sform": (MOVED, 0, SAME, 2, 2, True),
    "no unit": (SAME, 1, SAME, 1, 0, True),
    "micron": (affine(0.2, steps=1000 * STEPS), 1, affine(0.2, steps=1000 * STEPS), 1, 3, True),
    "micron and ms": (affine(0.2, steps=1000 * STEPS), 1, affine(0.2, steps=1000 * STEPS), 1, 3 + 16, True),
    "meter": (affine(0.2, steps=STEPS / 1000), 1, affine(0.2, steps=STEPS / 1000), 1, 1, True),
    "mirrored": (affine(0.2, mirror=True), 1, affine(0.2, mirror=True), 1, 2, True),
    "no codes": (SAME, 0, SAME, 0, 2, False),
    "no codes, micron": (SAME, 0, SAME, 0, 3, False),
    "sform moved": (SAME, 1, MOVED, 2, 2, False),
    "sform turned": (SAME, 2, TURNED, 4, 2, False),
    "scanner sform moved": (SAME, 1, MOVED, 1, 2, False),
    "scanner sform turned": (SAME, 2, TURNED, 1, 2, False),
    "sform scaled": (SAME, 1, affine(0.2, steps=2 * STEPS), 2, 2, False),
    "sform alone, scaled": (SAME, 0, affine(0.2, steps=2 * STEPS), 2, 2, False),
    "sform shears": (SAME, 1, affine(0.2, shear=0.2), 1, 2, False),
    "sform is singular": (SAME, 1, np.diag([0, 0, 0, 1]), 1, 2, False),
    "moved in micron": (affine(steps=1000 * STEPS), 1, affine(steps=1000 * STEPS, shift=(2000, 0, 0)), 2, 3, False),
    "rounded quaternion": (affine(0.2 + 1e-5), 1, SAME, 2, 2, True),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("extra", [(), (1,), (2,)])
def test_the_place_is_that_of_itk(tmp_path, name, extra):
    *forms, unit, agree = HEADERS[name]
    path = save(tmp_path / "image.nii.gz", *forms, unit, (*SHAPE, *extra))
    expected = viewer_affine(path)
    world = read_nifti_world(path)
    assert bool(world.place_note) != agree
    chain = Compose([LoadImaged("image", ensure_channel_first=True), EnsureWorldAffined("image")])
    loaded = chain({"image": str(path)})["image"]
    read = {
        "image": read_image(path)[1],
        "header": read_header(path)[1],
        "chain": loaded.affine.numpy(),
        "original": np.asarray(loaded.meta["original_affine"]),
    }
    for found in read.values():
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-4)
        np.testing.assert_allclose(found, read["image"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", HEADERS)
def test_what_is_written_opens_at_the_same_voxel(tmp_path, name):
    *forms, unit, _ = HEADERS[name]
    path = save(tmp_path / "image.nii.gz", *forms, unit)
    chain = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            EnsureWorldAffined("image"),
            LoadLandmarksd("label", coordinate_system="index"),
            *(
                SaveLandmarksd("label", output_dir=tmp_path, output_ext=suffix, separate_folder=False)
                for suffix in (".mrk.json", ".fcsv")
            ),
        ]
    )
    chain({"image": str(path), "label": INDEX.tolist()})
    viewer = sitk.ReadImage(str(path))
    for written in (*tmp_path.glob("*.mrk.json"), *tmp_path.glob("*.fcsv")):
        points = read_landmarks(written).to("LPS").points
        np.testing.assert_array_equal([viewer.TransformPhysicalPointToIndex(point) for point in points], INDEX)
    assert len([*tmp_path.glob("*.mrk.json"), *tmp_path.glob("*.fcsv")]) == 2
    # a label map has the grid of the image
    cubes = tmp_path / "cubes.nii.gz"
    write_label_cubes(cubes, LandmarkSet(("a",), [[7, 2, 5]], "index"), image=path)
    np.testing.assert_allclose(viewer_affine(cubes), viewer_affine(path), rtol=1e-4, atol=2e-4)


def test_axes_that_the_reader_turned(tmp_path):
    path = save(tmp_path / "image.nii.gz", affine(mirror=True), 1, affine(mirror=True, shift=(3, 0, 0)), 2, 2)
    chain = Compose(
        [
            LoadImaged("image", ensure_channel_first=True, reader="NibabelReader", as_closest_canonical=True),
            EnsureWorldAffined("image"),
        ]
    )
    image = chain({"image": str(path)})["image"]
    turned = viewer_affine(path) @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(image.affine.numpy(), turned, atol=1e-5)


def test_itk_as_reader_is_not_corrected_twice(tmp_path):
    pytest.importorskip("itk")
    path = save(tmp_path / "image.nii.gz", *HEADERS["moved in micron"][:-1])
    chain = Compose([LoadImaged("image", ensure_channel_first=True, reader="ITKReader"), EnsureWorldAffined("image")])
    np.testing.assert_allclose(chain({"image": str(path)})["image"].affine.numpy(), viewer_affine(path), atol=1e-5)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (0, 0), (1, 2)])
def test_two_dimensional(tmp_path, codes):
    """ITK, and so 3D Slicer, puts a 2-D image at z = 0."""
    path = save(tmp_path / "image.nii", affine(0.2), codes[0], affine(0.2), codes[1], 2, SHAPE[:2])
    np.testing.assert_allclose(read_image(path)[1], viewer_affine(path), atol=1e-5)
    chain = Compose([LoadImaged("image", ensure_channel_first=True), EnsureWorldAffined("image")])
    np.testing.assert_allclose(chain({"image": str(path)})["image"].affine.numpy(), viewer_affine(path), atol=1e-5)


def test_what_cannot_be_placed(tmp_path):
    shear = read_nifti_world(save(tmp_path / "shear.nii", SAME, 0, affine(0.2, shear=0.2), 1))
    np.testing.assert_allclose(shear.affine, affine(0.2, shear=0.2), rtol=1e-6)
    assert "3D Slicer, cannot open the file" in shear.place_note and "Resample" in shear.place_note
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(tmp_path / "shear.nii"))
    singular = save(tmp_path / "images/singular.nii", SAME, 0, np.diag([1, 1, 0, 1]), 1)
    with pytest.raises(ValueError, match=r"singular\.nii cannot be read .*the sform is singular"):
        read_header(singular)
    (tmp_path / "t.csv").write_text("image,landmark,x,y,z\nsingular.nii,dot,3,5,2\n")
    assert "the sform is singular" in check_data(tmp_path / "images", tmp_path / "t.csv").faults[-1]
    sagittal = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    with pytest.raises(ValueError, match="does not lie in the x-y plane"):
        read_header(save(tmp_path / "sagittal.nii", sagittal, 1, sagittal, 1, 2, SHAPE[:2]))


@pytest.mark.parametrize(
    "quaternion", [(1, 1, 1), (0.6, 0.6, 0.6), (0, -2, 0), (0.1, NAN, 0.2), (INF, 1, 1), (0, 0, 0.1, NAN, 3, -INF)]
)
@pytest.mark.parametrize("s_code", [1, 2])
def test_a_quaternion_that_no_rotation_has(tmp_path, quaternion, s_code):
    path = save(tmp_path / "image.nii", SAME, 1, MOVED, s_code)
    content = bytearray(path.read_bytes())
    content[256 : 256 + 4 * len(quaternion)] = struct.pack(f"<{len(quaternion)}f", *quaternion)  # and offset
    path.write_bytes(content)
    world = read_nifti_world(path)
    np.testing.assert_allclose(world.affine, viewer_affine(path), atol=1e-5)
    assert "mm apart. This package uses " + ("the sform" if s_code == 1 else "the qform") in world.place_note


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (2, 2), (0, 0)])
@pytest.mark.parametrize(
    "pixdim", [(NAN, 0.6, 0.7), (0.5, 0, 0.7), (INF, 0.6, -INF), (0.5, -0.6, 0.7), (-0.5, NAN, -0.7)]
)
def test_a_voxel_size_that_is_none(tmp_path, codes, pixdim):
    path = save(tmp_path / "image.nii", SAME, codes[0], SAME, codes[1])
    content = bytearray(path.read_bytes())
    content[80:92] = struct.pack("<3f", *pixdim)
    path.write_bytes(content)
    expected, world = viewer_affine(path), read_nifti_world(path)
    chain = Compose([LoadImaged("image", ensure_channel_first=True), EnsureWorldAffined("image")])
    loaded = chain({"image": str(path)})["image"].affine
    for found in (world.affine, read_image(path)[1], read_header(path)[1], loaded.numpy()):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-4)
    stated = " x ".join(f"{step:g}" for step in pixdim)
    assert world.size_note.startswith(f"pixdim is {stated}: as in ITK, a negative size mirrors its axis, and 1 is used")
    agree = np.allclose(nib.load(path).affine, expected, atol=2e-4)
    assert bool(world.place_note) != agree and "up to nan" not in world.place_note + world.size_note


@pytest.mark.parametrize("angle", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("moved, either", [((0, 0, 0), True), ((2, 0, 0), False)])
def test_forms_with_parallel_axes(tmp_path, angle, moved, either):
    """ITK uses one or the other by the signs of its singular vectors, so neither is promised."""
    forms = affine(angle), affine(angle, moved, mirror=True)
    path = save(tmp_path / "image.nii.gz", forms[0], 1, forms[1], 2)
    world = read_nifti_world(path)
    assert any(np.allclose(viewer_affine(path), form, atol=1e-4) for form in forms)
    assert ("may use either of both" in world.place_note) == either
    assert "This package uses the qform" in world.place_note and np.allclose(world.affine, forms[0], atol=1e-4)


def test_nifti_2_is_not_opened_by_itk(tmp_path):
    image = nib.Nifti2Image(np.zeros(SHAPE, np.float32), SAME)
    image.set_qform(SAME, 1)
    nib.save(image, tmp_path / "old.nii.gz")
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(tmp_path / "old.nii.gz"))
    world = read_nifti_world(tmp_path / "old.nii.gz")
    np.testing.assert_allclose(world.affine, SAME, atol=1e-6)
    assert world.place_note.startswith("The file is NIfTI-2, which viewers built on ITK")
    command = world.place_note.split('python -c "')[1].split('"')[0]
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True)
    np.testing.assert_allclose(viewer_affine(tmp_path / "new.nii.gz"), SAME, atol=1e-5)
    assert read_nifti_world(tmp_path / "new.nii.gz").place_note == ""


def test_check_says_it_once_where_points_are_in_mm(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"images/{name}.nii.gz", *HEADERS["sform moved"][:-1])
        write_landmarks(
            tmp_path / f"world/{name}.mrk.json", LandmarkSet(("dot",), (SAME @ [7, 2, 5, 1])[None, :3], "RAS")
        )
    [note] = [note for note in check_data(tmp_path / "images", tmp_path / "world").notes if "form" in note]
    assert note.startswith("a.nii.gz and 1 more: qform (code 1) and sform (code 2)") and "3.46 mm apart" in note
    (tmp_path / "t.csv").write_text("image,landmark,x,y,z\na,dot,7,2,5\nb,dot,7,2,5\n")
    check = check_data(tmp_path / "images", tmp_path / "t.csv", coordinate_system="index")
    assert check.faults == [] and not any("qform" in note for note in check.notes)
    save(tmp_path / "images/b.nii.gz", *HEADERS["micron"][:-1])
    notes = check_data(tmp_path / "images", tmp_path / "t.csv", coordinate_system="index").notes
    assert "b.nii.gz: The unit of the header is micron; lengths are converted to mm." in notes


@pytest.mark.parametrize("tool", ["SimpleITK", "nibabel"])
def test_the_remedy_of_the_note_works(tmp_path, tool):
    path = save(tmp_path / "old.nii.gz", *HEADERS["sform moved"][:-1])
    note = read_nifti_world(path).place_note
    [command] = [part for part in note.split('python -c "')[1:] if tool in part]
    subprocess.run([sys.executable, "-c", command.split('"')[0]], cwd=tmp_path, check=True)
    new = tmp_path / "new.nii.gz"
    assert read_nifti_world(new).place_note == ""
    kept = viewer_affine(path) if tool == "SimpleITK" else nib.load(path).affine
    for found in (viewer_affine(new), nib.load(new).affine, read_image(new)[1]):
        np.testing.assert_allclose(found, kept, atol=1e-5)
