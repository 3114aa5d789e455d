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

"""Pictures are read as every viewer shows them, and points that were drawn on a picture of another size are refused."""

from __future__ import annotations

import pickle
import struct

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.data import ITKReader, PydicomReader
from monai.transforms import Compose, LoadImage, LoadImaged
from PIL import Image, ImageOps, TiffImagePlugin

from monai_landmarks.data import ImageFileReader, LandmarkSet, check_data, read_image
from monai_landmarks.data.datasets.aasce.landmarks_csv import image_size
from monai_landmarks.data.images.image_files import read_header
from monai_landmarks.data.images.pictures import picture_orientation, picture_size, shown_to_stored
from monai_landmarks.label.pictures import from_viewer, to_viewer
from monai_landmarks.transforms import EnsureWorldAffined, LoadLandmarksd, ToGrayd

WIDTH, HEIGHT = 20, 30  # as it is shown
SUFFIXES = [".png", ".jpg", ".tif"]
# how the sensor stores what is shown with orientation 1 to 8 (EXIF 2.32, 4.6.4: place of the 0th row and column)
STORED = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.T,
    6: lambda shown: shown.T[::-1],
    7: lambda shown: shown[::-1, ::-1].T,
    8: lambda shown: shown[::-1].T,
}


def shown(dot=(15, 6)):
    """Rows and columns: a bright square of 3 x 3 around a pixel (x, y), and a darker one in the first corner."""
    pixels = np.full((HEIGHT, WIDTH), 40, np.uint8)
    pixels[:4, :4] = 120
    pixels[dot[1] - 1 : dot[1] + 2, dot[0] - 1 : dot[0] + 2] = 255
    return pixels


def save(path, orientation, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.ascontiguousarray(STORED[orientation](shown() if pixels is None else pixels))
    Image.fromarray(stored).save(path, exif=exif, **({"quality": 100} if path.suffix == ".jpg" else {}))
    return path


def load(*more, **options):
    reader = {"reader": "monai_landmarks.data.ImageFileReader", "ensure_channel_first": True} | options
    return Compose([LoadImaged("image", **reader), *more])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_read_as_it_is_shown(tmp_path, orientation, suffix):
    path = save(tmp_path / f"a{suffix}", orientation)
    if suffix != ".tif":  # the test itself
        np.testing.assert_allclose(np.asarray(ImageOps.exif_transpose(Image.open(path))), shown(), atol=6)
    image, affine = read_image(path, 0.5)
    np.testing.assert_allclose(image[0].T, shown(), atol=6)
    np.testing.assert_array_equal(affine, np.diag([-0.5, -0.5, 1, 1]))
    assert read_header(path)[0] == picture_size(path) == tuple(image_size(path)) == (WIDTH, HEIGHT)
    assert picture_orientation(path) == orientation
    item = load(ToGrayd("image"), EnsureWorldAffined("image"), LoadLandmarksd("label"))(
        {"image": path, "label": [[15, 6]]}
    )
    np.testing.assert_array_equal(item["image"][0].numpy(), image[0])
    np.testing.assert_array_equal(item["image"].meta["spatial_shape"], (WIDTH, HEIGHT))
    x, y = (-item["label"][0, 0]).int().tolist()
    assert item["image"][0, x, y] > 245


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("orientation", range(2, 9))
def test_what_was_loaded_as_it_is_stored_is_refused(tmp_path, orientation, suffix):
    path = save(tmp_path / f"a{suffix}", orientation)
    with pytest.raises((RuntimeError, ValueError)) as error:
        load(EnsureWorldAffined("image"), reader=None)({"image": path})
    reason = error.value.__cause__ or error.value
    assert f"EXIF orientation {orientation}" in str(reason) and "ImageFileReader" in str(reason)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_index_as_stored(orientation):
    stored = STORED[orientation](np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH))
    x, y, *_ = shown_to_stored(orientation, (WIDTH, HEIGHT)) @ [15, 6, 0, 1]
    assert stored[int(y), int(x)] == 6 * WIDTH + 15


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_slicer_does_not_turn_pictures(tmp_path, orientation, suffix):
    """A point of the picture as shown is at the bright square of the picture that ITK reads."""
    sitk = pytest.importorskip("SimpleITK")
    path = save(tmp_path / f"a{suffix}", orientation)
    viewer = sitk.ReadImage(str(path))
    world = LandmarkSet(("dot",), [[15, 6, 0]], "index").to_world(read_image(path, 0.5)[1])
    seen = to_viewer(world, path, 0.5)
    place = viewer.TransformPhysicalPointToIndex(seen.to("LPS").points[0][: viewer.GetDimension()])
    assert np.max(viewer[place]) > 245 and np.min(np.atleast_1d(viewer[place])[:3]) > 245
    np.testing.assert_allclose(from_viewer(seen, path, 0.5).points, world.points, atol=1e-9)


def test_other_orientations_and_damaged_exif(tmp_path):
    exif = Image.Exif()
    exif[274] = 9
    Image.fromarray(shown()).save(tmp_path / "nine.png", exif=exif)
    Image.fromarray(shown()).save(tmp_path / "damaged.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", quality=100)
    Image.fromarray(shown()).save(tmp_path / "nothing.png", exif=b"Exif\0\0nothing")
    for name in ("nine.png", "damaged.jpg", "nothing.png"):
        assert picture_orientation(tmp_path / name) == 1
        np.testing.assert_allclose(read_image(tmp_path / name)[0][0].T, shown(), atol=6)


def test_several_pages_are_refused(tmp_path):
    """They may be a volume, and its voxel size along z is not known."""
    pages = [Image.fromarray(shown()) for _ in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    for read in (read_image, read_header, lambda path: ImageFileReader().get_data([path])):
        with pytest.raises(ValueError, match=r"a\.tif: has 3 pages.*NIfTI or NRRD"):
            read(tmp_path / "a.tif")
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:], tiffinfo={274: 6})
    with pytest.raises(ValueError, match=r"b\.tif: the picture is shown turned \(orientation 6\)"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_orientation_of_a_tiff_with_pixels_that_pillow_does_not_read(tmp_path, orientation):
    """One pixel of float64."""
    tags = {256: 1, 257: 1, 258: 64, 259: 1, 262: 1, 273: 200, 274: orientation, 277: 1, 278: 1, 279: 8, 339: 3}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    content = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(content.ljust(200, b"\0") + struct.pack("<d", 0.5))
    with pytest.raises(OSError, match="cannot identify"):  # the test itself
        Image.open(tmp_path / "a.tif")
    assert picture_orientation(tmp_path / "a.tif") == orientation
    if orientation == 6:
        with pytest.raises(ValueError, match=r"a\.tif: the picture is shown turned \(orientation 6\).*save it upright"):
            read_image(tmp_path / "a.tif")


def test_a_file_that_is_no_picture_is_not_turned(tmp_path):
    (tmp_path / "a.tif").write_text("no picture")
    assert picture_orientation(tmp_path / "a.tif") == 1


def gray_palette(pixels):
    return Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE)


@pytest.mark.parametrize(
    "name, channels",
    [("gray.png", 1), ("inverted.png", 1), ("color.png", 3), ("cmyk.jpg", 3), ("cmyk.tif", 3), ("one.png", 1)],
)
def test_what_check_passes_is_read_by_the_bundles(tmp_path, name, channels):
    """The values are those that Pillow shows; the first transforms of a bundle take them."""
    pixels = np.linspace(0, 255, HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    color = np.stack([pixels, pixels[::-1], np.full_like(pixels, 90)], axis=2)
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / name
    if name == "gray.png":
        gray_palette(pixels).save(path)
    elif name == "inverted.png":  # number 0 is white
        picture = Image.fromarray(255 - pixels, "L")
        picture.putpalette([255 - value // 3 for value in range(768)])
        picture.save(path)
    elif name == "one.png":
        Image.fromarray(pixels).convert("1").save(path)
    else:
        Image.fromarray(color).convert("P" if name == "color.png" else "CMYK").save(path)
    (tmp_path / "t.csv").write_text(f"image,landmark,x,y\n{name},dot,3,5\n")
    assert check_data(tmp_path / "images", tmp_path / "t.csv", spacing=1).faults == []
    loaded = read_image(path)[0]
    assert loaded.shape == (channels, WIDTH, HEIGHT)
    bundle = ConfigParser()
    bundle.read_config("bundles/hand_xray_landmarks_scn/configs/inference.json")
    reading = bundle["preprocessing"]["transforms"]
    reading = reading[
        : 1 + next(i for i, part in enumerate(reading) if part["_target_"].endswith("EnsureWorldAffined"))
    ]
    parser = ConfigParser({"chain": {"_target_": "Compose", "transforms": reading}})
    image = parser.get_parsed_content("chain")({"image": str(path)})["image"]
    expected = np.asarray(Image.open(path).convert("RGB").convert("L"), dtype=float)
    expected = expected / 255 if name == "one.png" else expected
    assert np.abs(image[0].numpy().T - expected).max() <= 0.51


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_a_picture_read_without_monai_is_that_of_the_reader(tmp_path, mode):
    """``read_image`` does not import MONAI for pictures."""
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(pixels).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "F") else "a.png")
    picture.save(path)
    found, expected = read_image(path)[0], load()({"image": path})["image"].numpy()
    assert found.dtype == expected.dtype and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((8, 7, 1, 5), "has 5 channels; expected 1 to 4"),
        ((8, 7, 6, 2), "is a volume with 2 channels"),
        ((8, 7, 6, 4), "is a volume with 4 channels"),
        ((8, 7, 6, 1), ""),
        ((8, 7, 1, 3), ""),
    ],
)
def test_channels_that_are_no_colors_are_a_fault(tmp_path, shape, expected):
    """Contrasts of a volume would be mixed as colors, or left out as alpha."""
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).random(shape, np.float32)
    nib.save(nib.Nifti1Image(pixels, np.eye(4)), tmp_path / "images/a.nii")
    (tmp_path / "t.csv").write_text("image,landmark,x,y,z\na.nii,dot,3,5,0\n")
    faults = check_data(tmp_path / "images", tmp_path / "t.csv", coordinate_system="index").faults
    assert [f"a.nii: {expected}" in fault for fault in faults] == ([True] if expected else [])


def test_the_reader_has_the_reason_of_a_failure(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    reader = LoadImaged("image", reader=ImageFileReader())
    with pytest.raises(Exception, match="cannot identify image file"):
        reader({"image": tmp_path / "a.png"})


def test_the_reader_is_chosen_and_travels_to_other_processes(tmp_path):
    """MONAI tries readers that are registered before its own. A reader that has read other files is pickled, too."""
    picture = save(tmp_path / "a.png", 6)
    np.save(tmp_path / "b.npy", shown())
    reader = ImageFileReader()
    load_any = LoadImage(image_only=True)
    load_any.register(reader)
    for _ in range(2):
        np.testing.assert_array_equal(load_any(picture).numpy().T, shown())
        np.testing.assert_array_equal(load_any(tmp_path / "b.npy").numpy(), shown())
        load_any = pickle.loads(pickle.dumps(load_any))
    assert len(pickle.dumps(reader)) < 1000  # without the readers of MONAI


def test_a_format_that_no_installed_package_reads(tmp_path, monkeypatch):
    for reader in (ITKReader, PydicomReader):  # they take any suffix if their package is installed
        monkeypatch.setattr(reader, "verify_suffix", lambda self, filename: False)
    (tmp_path / "a.mha").touch()
    with pytest.raises(ValueError, match=r"a\.mha: no installed package reads this format; most formats require itk"):
        ImageFileReader().get_data([str(tmp_path / "a.mha")])


@pytest.mark.parametrize("dtype, most", [(np.uint8, 255), (np.uint16, 65535)])
def test_tiff_in_which_white_is_zero(tmp_path, dtype, most):
    """One white pixel on black, as viewers show it."""
    shown = np.zeros((4, 5), dtype)
    shown[1, 2] = most
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0  # PhotometricInterpretation: WhiteIsZero
    # Pillow turns 8 bits around when it writes them, but not 16
    Image.fromarray(shown if dtype == np.uint8 else most - shown).save(tmp_path / "a.tif", tiffinfo=tags)
    pixels, _ = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels[0].T, shown)
