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
"""Phantoms: synthetic hand radiographs and lumbar spine CTs with exact landmarks.

They are the data that come with the package: ``hand`` and ``spine`` draw images, ``hand_anatomy`` and ``spine_anatomy``
hold the skeletons, ``radiograph`` renders X-ray images, ``write`` writes files.
"""

from __future__ import annotations

from .hand import hand_phantom, hand_spacing, place_hand, render_hand
from .hand_anatomy import HAND_LANDMARKS, HandPose, hand_skeleton
from .spine import spine_phantom
from .spine_anatomy import SPINE_LANDMARKS, SPINE_PAIRS
from .write import write_hand_phantom, write_spine_phantom

__all__ = [
    "HAND_LANDMARKS",
    "HandPose",
    "SPINE_LANDMARKS",
    "SPINE_PAIRS",
    "hand_phantom",
    "hand_skeleton",
    "hand_spacing",
    "place_hand",
    "render_hand",
    "spine_phantom",
    "write_hand_phantom",
    "write_spine_phantom",
]
