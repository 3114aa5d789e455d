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

"""What tests share: the devices there are, DICOM files made on the spot, and real data where it can be found."""

from __future__ import annotations

import locale
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from one_pixel import save_one_pixel
from PIL import Image

_LOCALE = locale.setlocale(locale.LC_ALL)
_DATA_VARIABLE = "MONAI_LANDMARKS_TEST_DATA"
_DEFAULT_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


def shared_data(name: str) -> Path:
    """Folder of a real data set; skips the test, with the reason, where it is absent."""
    folder = Path(os.environ.get(_DATA_VARIABLE) or _DEFAULT_DATA).resolve() / name
    if not folder.is_dir():
        pytest.skip(f"real data {name!r} is not at {folder}; {_DATA_VARIABLE} names the folder that holds it")
    return folder


@pytest.fixture(autouse=True)
def usual_locale() -> None:
    """ITK leaves the locale "C" where it reads or writes decimals as text: files of later tests would be ASCII."""
    locale.setlocale(locale.LC_ALL, _LOCALE)


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device of this machine in turn."""
    return torch.device(request.param)


@pytest.fixture(autouse=True, scope="session")
def freed_memory_is_returned() -> Iterator[None]:
    """Bundles in this process must not change its allocator: other tests measure memory."""
    with pytest.MonkeyPatch.context() as patch:
        without_mallopt = SimpleNamespace(CDLL=lambda name: object())
        patch.setattr("monai_landmarks.handlers.memory.ctypes", without_mallopt)
        yield


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are composed, but saved as one pixel."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save_one_pixel)


def _write_picture(path: Path, width: int, height: int, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(width * height, dtype=np.uint32).reshape(height, width).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture(scope="session")
def write_picture() -> Callable[..., Path]:
    """Writes a gray picture of any format, for example ``write_picture(path, width, height, dpi=(72, 72))``."""
    return _write_picture


def _write_dicom(
    folder: Path,
    volume: np.ndarray,
    series: str,
    positions: bool = True,
    suffix: str = ".dcm",
    gap: float = 3,
    direction: Sequence[float] = (0, 0, 1),
    orientations: Sequence[str] = ("1\\0\\0\\0\\1\\0",),
) -> None:
    """One file for each slice [..., k], with a gap in mm between them; without positions they are radiographs.

    The slices follow each other in a direction, and have the orientations in turn. Positions have two decimals.
    """
    sitk = pytest.importorskip("SimpleITK")
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(volume.shape[2]):
        image = sitk.GetImageFromArray(volume[:, :, k].T)
        tags = {"0008|0060": "CT", "0020|000e": f"1.2.3.{series}", "0020|000d": "1.2.3", "0020|0013": str(k)}
        tags["0008|0018"] = f"1.2.3.{series}.{k}"
        if positions:
            place = "\\".join(str(round(gap * k * part, 2)) for part in direction)
            tags |= {"0020|0032": place, "0020|0037": orientations[k % len(orientations)]}
        else:
            tags["0008|0060"] = "DX"
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(folder / f"{series}_{k}{suffix}"))
        writer.Execute(image)
        locale.setlocale(locale.LC_ALL, _LOCALE)  # a test may write text after it


def _write_dicom_tags(path: Path, pixels: np.ndarray, groups: Sequence[Mapping[str, str]] = (), **tags: str) -> None:
    """A DICOM file of pixels ([frames,] rows, columns) with exactly these attributes, such as t00280030="0.2\\0.1".

    ``groups`` are attributes in functional groups, of the first and further frames. Written by hand (explicit little endian), because libraries add or change the attributes of the pixel size.
    """
    sop_class = tags.pop("sop_class", "1.2.840.10008.5.1.4.1.1.1")  # CR
    uid = "1.2.3." + str(zlib.crc32(str(path).encode()))

    def element(group: int, number: int, kind: str, value: bytes | str | int) -> bytes:
        if isinstance(value, int):
            value = struct.pack("<H", value)
        elif isinstance(value, str):
            value = value.encode() + (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
        size = struct.pack("<HI", 0, len(value)) if kind in ("OB", "OW") else struct.pack("<H", len(value))
        return struct.pack("<HH", group, number) + kind.encode() + size + value

    meta = element(2, 1, "OB", b"\0\1") + element(2, 2, "UI", sop_class) + element(2, 3, "UI", uid)
    meta += element(2, 16, "UI", "1.2.840.10008.1.2.1")
    rows, columns = pixels.shape[-2:]
    elements = {
        (8, 0x16): ("UI", sop_class),
        (8, 0x18): ("UI", uid),
        (0x20, 0xD): ("UI", "1.2.3"),
        (0x20, 0xE): ("UI", uid + ".1"),
        (0x28, 2): ("US", 1),
        (0x28, 4): ("CS", "MONOCHROME2"),
        (0x28, 0x10): ("US", rows),
        (0x28, 0x11): ("US", columns),
        (0x28, 0x100): ("US", 16),
        (0x28, 0x101): ("US", 16),
        (0x28, 0x102): ("US", 15),
        (0x28, 0x103): ("US", 0),
    }
    if pixels.ndim == 3:
        elements[0x28, 8] = ("IS", str(len(pixels)))
    kinds = {(0x28, 0xA02): "CS", (0x28, 0x34): "IS"}
    sequences = {(0x20, 0x32): (0x20, 0x9113), (0x20, 0x37): (0x20, 0x9116)}  # the others are pixel measures

    def stated(tags: Mapping[str, str]) -> dict[tuple[int, int], tuple[str, str]]:
        keys = {(int(tag[1:5], 16), int(tag[5:], 16)): value for tag, value in tags.items()}
        return {key: (kinds.get(key, "DS"), value) for key, value in keys.items()}

    elements |= stated(tags)
    data = b"".join(element(*key, *elements[key]) for key in sorted(elements))
    if groups:
        frames = b""
        for group in groups:
            parts: dict[tuple[int, int], bytes] = {}
            for key, value in sorted(stated(group).items()):
                sequence = sequences.get(key, (0x28, 0x9110))
                parts[sequence] = parts.get(sequence, b"") + element(*key, *value)
            frame = b""
            for sequence, item in sorted(parts.items()):
                item = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
                frame += struct.pack("<HH2sHI", *sequence, b"SQ", 0, len(item)) + item
            frames += struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
        data += struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, len(frames)) + frames
    data += element(0x7FE0, 0x10, "OW", pixels.astype("<u2").tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + data)


@pytest.fixture(scope="session")
def write_dicom_tags() -> Callable[..., None]:
    """Writes a DICOM file with the given attributes of the pixel size."""
    return _write_dicom_tags


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., None]:
    """Writes the slices of a volume as DICOM files."""
    return _write_dicom


@pytest.fixture(scope="session")
def isbi2015_root() -> Path:
    """Lateral cephalograms, 645x800 at 0.3 mm, 19 landmarks by two doctors."""
    return shared_data("isbi2015_ceph")


@pytest.fixture(scope="session")
def hand_landmarks_root() -> Path:
    """37 landmarks of 910 hand radiographs, without the images."""
    return shared_data("hand_landmarks")


@pytest.fixture(scope="session")
def hand9_root() -> Path:
    """A few hand radiographs with 37 landmarks."""
    return shared_data("hand9")


@pytest.fixture(scope="session")
def mouse_skull_ct_root() -> Path:
    """Micro-CT of mouse heads, NIfTI, 45 landmarks in RAS mm."""
    return shared_data("mouse_skull_ct")


@pytest.fixture(scope="session")
def lumbar_mri_root() -> Path:
    """Lumbar-spine MRI, NIfTI, 5 landmarks in RAS mm."""
    return shared_data("lumbar_mri")


@pytest.fixture(scope="session")
def aasce_spine_root() -> Path:
    """AP spine radiographs of unknown spacing, 68 landmarks."""
    return shared_data("aasce_spine")
