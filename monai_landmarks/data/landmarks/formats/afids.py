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

"""AFIDs: 32 anatomical fiducials of the brain, as point lists of 3D Slicer (``.fcsv``).

The label of a point is the number of the fiducial, 1 to 32; the description is its name.

References:
    Lau et al., A framework for evaluating correspondence between brain images using anatomical fiducials, Human Brain
    Mapping 40 (2019), https://doi.org/10.1002/hbm.24693
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from monai_landmarks.data.landmarks.landmark_set import LandmarkSet

from .common import require_names
from .slicer_fcsv import read_fcsv, write_point_list

__all__ = ["AFIDS_LANDMARKS", "AFIDS_PAIRS", "is_afids", "read_afids", "write_afids"]

AFIDS_LANDMARKS = (
    "AC",
    "PC",
    "infracollicular sulcus",
    "PMJ",
    "superior interpeduncular fossa",
    "R superior LMS",
    "L superior LMS",
    "R inferior LMS",
    "L inferior LMS",
    "Culmen",
    "Intermammillary sulcus",
    "R MB",
    "L MB",
    "pineal gland",
    "R LV at AC",
    "L LV at AC",
    "R LV at PC",
    "L LV at PC",
    "Genu of CC",
    "Splenium of CC",
    "R AL temporal horn",
    "L AL temporal horn",
    "R superior AM temporal horn",
    "L superior AM temporal horn",
    "R inferior AM temporal horn",
    "L inferior AM temporal horn",
    "R indusium griseum origin",
    "L indusium griseum origin",
    "R ventral occipital horn",
    "L ventral occipital horn",
    "R olfactory sulcal fundus",
    "L olfactory sulcal fundus",
)
AFIDS_PAIRS = tuple((name, f"R{name[1:]}") for name in AFIDS_LANDMARKS if name.startswith("L "))

_NUMBERS = {str(number): name for number, name in enumerate(AFIDS_LANDMARKS, 1)}


def is_afids(text: str) -> bool:
    """Return whether text is a point list with the point 1, AC."""
    return re.search(r"^[^#\n]*,1,AC,", text, flags=re.MULTILINE) is not None


def read_afids(path: Path) -> LandmarkSet:
    """Read the 32 fiducials by their numbers; descriptions are ignored. Fiducials that are not in the file are missing.

    Raises:
        ValueError: if the file is malformed, or a label is not a number from 1 to 32.
    """
    found = read_fcsv(path)
    require_names(found, tuple(_NUMBERS), "labels of AFIDs")
    named = replace(
        found,
        names=tuple(_NUMBERS[label] for label in found.names),
        scores=None,
        covariances=None,
        regions=None,
        coverage=None,
    )
    return replace(named.reorder(AFIDS_LANDMARKS), pairs=AFIDS_PAIRS)


def write_afids(path: Path, landmark_set: LandmarkSet) -> None:
    """Write the fiducials with their numbers as labels and their names as descriptions.

    Raises:
        ValueError: if a landmark is none of the 32, or the points are pixel index.
    """
    require_names(landmark_set, AFIDS_LANDMARKS, "AFIDs")
    ordered = landmark_set.reorder([name for name in AFIDS_LANDMARKS if name in landmark_set.names])
    labels = [str(AFIDS_LANDMARKS.index(name) + 1) for name in ordered.names]
    write_point_list(path, ordered, labels, ordered.names)
