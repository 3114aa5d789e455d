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

"""VerSe: vertebrae in CT."""

from __future__ import annotations

from monai_landmarks.data.landmarks.landmark_io import register_format

from .centroids import VERSE_LANDMARKS, is_verse, read_verse, write_verse
from .datalist import VERSE_CHAIN, verse_datalist
from .facts import VERSE, copied_images

__all__ = ["VERSE", "VERSE_CHAIN", "VERSE_LANDMARKS", "copied_images", "verse_datalist"]

register_format(".json", read_verse, write_verse, name="verse", fits=is_verse, space="index")
