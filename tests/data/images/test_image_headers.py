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

"""NRRD and MetaImage files: their place is that of ITK, and a header without a voxel size is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data.images.image_files import file_note, read_image
from monai_landmarks.data.images.image_headers import NO_VOXEL_SIZE

SHAPE = (4, 5, 6)


def write_nrrd(path: Path, *fields: str) -> Path:
    header = ["NRRD0004", "type: uchar", "dimension: 3", "sizes: 4 5 6", *fields, "encoding: raw", "endian: little"]
    path.write_bytes("\n".join([*header, "", ""]).encode() + bytes(np.prod(SHAPE)))
    return path


def write_mha(path: Path, *fields: str) -> Path:
    header = ["NDims = 3", "DimSize = 4 5 6", *fields, "ElementType = MET_UCHAR", "ElementDataFile = LOCAL", ""]
    path.write_bytes("\n".join(header).encode() + bytes(np.prod(SHAPE)))
    return path


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior", "LAS", "scanner-xyz"])
def test_every_space_of_nrrd(space: str, tmp_path: Path) -> None:
    """Whether or not the package nrrd is installed, which MONAI prefers."""
    sitk = pytest.importorskip("SimpleITK")
    directions = "space directions: (0.5,0,0) (0,0.6,0) (0,0,0.7)"
    path = write_nrrd(tmp_path / "a.nrrd", f"space: {space}", directions, "space origin: (10,20,30)")
    array, affine = read_image(path)
    viewer = sitk.ReadImage(str(path))
    assert array.shape == (1, *SHAPE)
    for index in ((0, 0, 0), (3, 4, 5)):
        x, y, z = viewer.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(affine @ [*index, 1], [-x, -y, z, 1], atol=1e-9)


def test_a_header_without_a_voxel_size(tmp_path: Path) -> None:
    pytest.importorskip("itk")
    none = [
        write_nrrd(tmp_path / "none.nrrd"),
        write_nrrd(tmp_path / "nan.nrrd", "spacings: NaN NaN NaN"),
        write_mha(tmp_path / "none.mha"),
    ]
    for path in none:
        np.testing.assert_allclose(np.abs(np.diag(read_image(path)[1])), 1)
        assert file_note(path) == NO_VOXEL_SIZE, path.name
    stated = [
        write_nrrd(tmp_path / "a.nrrd", "spacings: 1 1 1"),
        write_nrrd(tmp_path / "b.nrrd", "space: LPS", "space directions: (1,0,0) (0,1,0) (0,0,1)"),
        write_mha(tmp_path / "a.mha", "ElementSpacing = 1 1 1"),
        write_mha(tmp_path / "b.mha", "ElementSize = 1 1 1"),
    ]
    for path in stated:
        np.testing.assert_allclose(np.abs(np.diag(read_image(path)[1])), 1)
        assert file_note(path) == "", path.name
