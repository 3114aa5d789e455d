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

"""ISBI 2015 cephalograms."""

from __future__ import annotations

from monai_landmarks.data.landmarks.landmark_io import register_format

from .annotation_text import ISBI2015_LANDMARKS, is_isbi2015, read_isbi2015, write_isbi2015
from .datalist import isbi2015_datalist
from .facts import ISBI2015, copied_images

__all__ = ["ISBI2015", "ISBI2015_LANDMARKS", "copied_images", "isbi2015_datalist"]

register_format(".txt", read_isbi2015, write_isbi2015, name="isbi2015", fits=is_isbi2015, space="index")
