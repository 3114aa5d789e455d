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

"""Whether the slices of a DICOM series, or the frames of a multi-frame DICOM file, are a regular stack."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from .dicom_pixel_size import read_functional_groups

__all__ = ["frames_fault", "stack_fault"]

_POSITION, _ORIENTATION = "0020|0032", "0020|0037"  # Image Position and Image Orientation (Patient)
_UNEVEN = 0.1  # tolerance, relative to the median distance between slices, because positions are rounded
_ASKEW = 1e-3  # tolerance of directions, which are unit vectors
_ROUNDING = 0.01  # mm, of positions


def frames_fault(path: str | os.PathLike) -> str:
    """Return why the frames of a multi-frame DICOM file are no volume; empty if they are, and for any other file.

    ITK places a volume by the first frames alone. Each frame states its position in the functional groups.
    """
    found = read_functional_groups(path, (_POSITION, _ORIENTATION))
    positions, orientations = (_vectors(found.get(tag, []), size) for tag, size in ((_POSITION, 3), (_ORIENTATION, 6)))
    if len(positions) < 2 or not len(orientations):
        return ""
    directions = np.cross(orientations[:, :3], orientations[:, 3:])
    places = np.concatenate([orientations, directions], axis=1).reshape(-1, 3, 3)
    steps = np.diff(positions @ directions[0])
    if np.ptp(places, axis=0).max() <= _ASKEW and not (np.all(steps > 0) or np.all(steps < 0)):
        return (
            "the frames of this DICOM file are not in the order of their positions, as with several time points or"
            " contrasts, so they are no volume; save one volume as NIfTI."
        )
    return stack_fault(positions, places, [f"frame {number}" for number in range(1, len(positions) + 1)], "file")


def stack_fault(positions: np.ndarray, directions: np.ndarray, names: Sequence[str], what: str) -> str:
    """Return why slices are no volume; empty if they are one.

    Args:
        positions: (F, 3) positions of the slices in the patient in mm, in their order.
        directions: (F, 3, 3) or (1, 3, 3) directions along row, column and normal.
        names: names of the slices.
        what: ``"series"`` of files or ``"file"`` of frames, for the text.
    """
    of_all = "slices of this DICOM series" if what == "series" else "frames of this DICOM file"
    if np.ptp(directions, axis=0).max() > _ASKEW:
        mend = (
            "put those of each orientation into a folder of its own" if what == "series" else "save one volume as NIfTI"
        )
        return f"the {of_all} have different orientations, as in a localizer, so they are no volume; {mend}."
    steps, normal = positions - positions[0], directions[0, 2]
    sideways = np.linalg.norm(steps - np.outer(steps @ normal, normal), axis=1).max()
    if sideways > _ASKEW * np.linalg.norm(steps[-1]) + _ROUNDING:  # ITK would put the slices straight above each other
        return (
            f"the {of_all} are shifted sideways by up to {sideways:.3g} mm, as with a tilted gantry, so points in mm would be"
            " wrong; resample the series without the tilt, for example by the gantry tilt correction of dcm2niix, and give"
            " the NIfTI file."
        )
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    widest = int(np.argmax(np.abs(gaps - np.median(gaps))))
    if abs(gaps[widest] - np.median(gaps)) <= _UNEVEN * np.median(gaps):
        return ""
    pair = " and ".join(names[widest : widest + 2])
    return (
        f"{pair} are {gaps[widest]:g} mm apart, but the median distance in this DICOM {what} is {np.median(gaps):g} mm: is a slice"
        " missing or damaged?"
    )


def _vectors(texts: Sequence[str], size: int) -> np.ndarray:
    """Return the values (F, size) of an attribute; none if any of them is no such vector."""
    try:
        values = [[float(value) for value in text.split("\\")] for text in texts]
    except ValueError:
        return np.empty((0, size))
    return np.array(values) if values and all(len(row) == size for row in values) else np.empty((0, size))
