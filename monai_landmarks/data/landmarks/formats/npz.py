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


"""NumPy archives (``.npz``), which Python programs can read with NumPy alone.

The arrays are ``names`` (N,), ``points`` (N, D), ``coordinate_system`` (RAS, LPS or index), and, if known, ``scores``
(N,), ``covariances`` and ``regions`` (N, D, D) with their ``coverage``, ``image`` and ``pairs`` (P, 2), as in
:class:`~monai_landmarks.data.LandmarkSet`. Nothing is pickled::

    with np.load("case.npz") as arrays:
        points = dict(zip(arrays["names"], arrays["points"]))
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

__all__ = ["read_array", "read_npz", "write_npz"]

_MOST_BYTES = 1 << 26  # per array; a small file may hold an array that does not fit into memory when unpacked
_NUMBERS = "fiu"
# type and number of dimensions of each array
_ARRAYS = {
    "names": ("U", 1),
    "points": (_NUMBERS, 2),
    "coordinate_system": ("U", 0),
    "scores": (_NUMBERS, 1),
    "covariances": (_NUMBERS, 3),
    "regions": (_NUMBERS, 3),
    "coverage": (_NUMBERS, 0),
    "image": ("U", 0),
    "pairs": ("U", 2),
}
_NEEDED = ("names", "points", "coordinate_system")


def read_npz(path: Path) -> LandmarkSet:
    """Read an archive.

    Raises:
        ValueError: if the file is not an archive of arrays, or an array has the wrong type or shape.
    """
    arrays = _read_arrays(path)
    missing = [key for key in _NEEDED if key not in arrays]
    if missing:
        raise ValueError(f"no array {missing[0]!r}; expected {', '.join(_NEEDED)}.")
    for key, array in arrays.items():
        kinds, dims = _ARRAYS[key]
        if array.dtype.kind not in kinds:
            expected = "text" if kinds == "U" else "numbers"
            raise ValueError(f"the array {key!r} holds {array.dtype}; expected {expected}.")
        if array.ndim != dims:
            raise ValueError(f"the array {key!r} has the shape {array.shape}; expected {dims} dimensions.")
    return LandmarkSet(
        names=tuple(arrays["names"].tolist()),
        points=arrays["points"],
        coordinate_system=CoordinateSystem(str(arrays["coordinate_system"])),
        pairs=tuple(map(tuple, arrays["pairs"].tolist())) if "pairs" in arrays else (),
        image=str(arrays["image"]) if "image" in arrays else None,
        scores=arrays.get("scores"),
        covariances=arrays.get("covariances"),
        regions=arrays.get("regions"),
        coverage=float(arrays["coverage"]) if "coverage" in arrays else None,
    )


def write_npz(path: Path, landmark_set: LandmarkSet) -> None:
    """Write a landmark set as an archive."""
    arrays: dict[str, Any] = {
        "names": np.array(landmark_set.names, dtype=str),
        "points": landmark_set.points,
        "coordinate_system": np.array(landmark_set.coordinate_system.value),
    }
    for key in ("scores", "covariances", "regions", "coverage"):
        if getattr(landmark_set, key) is not None:
            arrays[key] = np.asarray(getattr(landmark_set, key))
    if landmark_set.image is not None:
        arrays["image"] = np.array(landmark_set.image)
    if landmark_set.pairs:
        arrays["pairs"] = np.array(landmark_set.pairs, dtype=str)
    with open(path, "wb") as file:  # because NumPy adds .npz to a path that ends in .NPZ
        np.savez_compressed(file, **arrays)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays, content = {}, io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            for key in _ARRAYS:
                if f"{key}.npy" in archive.namelist():
                    with archive.open(f"{key}.npy") as file:
                        arrays[key] = read_array(file.read(_MOST_BYTES + 1))
    except Exception as error:  # a damaged archive raises many types of errors
        raise ValueError(f"the archive of arrays cannot be read ({error}).") from error
    return arrays


def read_array(data: bytes) -> np.ndarray:
    """Read one array from the bytes of a ``.npy`` file, without trusting the size that its header states.

    Raises:
        ValueError: if the bytes are no array, an array of Python objects, or a very large array.
    """
    file = io.BytesIO(data)
    try:
        version = npy.read_magic(file)
        shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
        size = int(np.prod([int(count) for count in shape], dtype=object)) * dtype.itemsize
        if len(data) > _MOST_BYTES or size > len(data):
            raise ValueError(f"an array of shape {shape} is too large")
        file.seek(0)
        array = np.asarray(npy.read_array(file, allow_pickle=False))
        if array.dtype.kind == "U" and (_codes(array) > sys.maxunicode).any():
            raise ValueError("its text holds invalid characters")
    except Exception as error:  # a damaged header raises many types of errors
        raise ValueError(f"the array cannot be read ({error}).") from error
    return array


def _codes(text: np.ndarray) -> np.ndarray:
    """Return the code points of an array of text."""
    return np.frombuffer(text.astype(text.dtype.newbyteorder("=")).tobytes(), np.uint32)
