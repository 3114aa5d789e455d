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

"""Frames of a multi-frame DICOM file that are a regular stack, and those that are not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from monai_landmarks.data.images.image_files import read_image
from monai_landmarks.data.images.image_folder import find_images

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
AXIAL, SAGITTAL = "1\\0\\0\\0\\1\\0", "0\\1\\0\\0\\0\\-1"
K = np.arange(6)
STACK = np.stack([0 * K, 0 * K, 2 * K], axis=1)


@pytest.mark.parametrize(
    "positions, orientations, fault",
    [
        (STACK, [AXIAL], ""),
        (STACK[::-1], [AXIAL], ""),
        (STACK[:1], [AXIAL], ""),
        (
            STACK + np.stack([0 * K, 0.8 * K, 0 * K], axis=1),
            [AXIAL],
            "shifted sideways by up to 4 mm, as with a tilted",
        ),
        (STACK + 6 * (STACK > 4), [AXIAL], "frame 3 and frame 4 are 8 mm apart, but the median distance .* is 2 mm"),
        (STACK, [AXIAL] * 3 + [SAGITTAL] * 3, "frames of this DICOM file have different orientations"),
        (STACK[[0, 1, 2, 0, 1, 2]], [AXIAL], "not in the order of their positions, as with several time points"),
        (STACK[[0, 0, 1, 1, 2, 2]], [AXIAL], "not in the order of their positions, as with several time points"),
    ],
)
def test_frames_that_are_no_stack_are_a_fault(tmp_path, write_dicom_tags, positions, orientations, fault):
    """ITK places the volume by its first frames, so the others would be at wrong places."""
    frames = [
        {"t00200032": "\\".join(f"{value:g}" for value in place), "t00200037": orientation, "t00280030": "0.5\\0.5"}
        for place, orientation in zip(positions, orientations * (1 if len(orientations) > 1 else len(positions)))
    ]
    path = tmp_path / "images" / "x.dcm"
    path.parent.mkdir()
    pixels = np.arange(len(frames) * 20, dtype=np.uint16).reshape(len(frames), 4, 5)
    write_dicom_tags(path, pixels, groups=frames, sop_class=ENHANCED_CT)
    [reason] = find_images(tmp_path / "images").values()
    assert re.search(fault, reason) if fault else reason == ""
    if fault:
        with pytest.raises(ValueError, match=re.escape(f"{path}: {reason}")):
            read_image(path)
    else:
        assert read_image(path)[0].shape == (1, 5, 4, len(frames)) or len(frames) == 1
