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

"""AASCE 2019 spine radiographs."""

from __future__ import annotations

from monai_landmarks.data.landmarks.landmark_io import register_format

from .datalist import aasce_datalist
from .facts import AASCE, copied_images
from .landmarks_csv import AASCE_LANDMARKS, AASCE_PAIRS, is_aasce, read_aasce

__all__ = ["AASCE", "AASCE_LANDMARKS", "AASCE_PAIRS", "aasce_datalist", "copied_images"]

register_format(
    ".csv",
    name="aasce",
    table_reader=read_aasce,
    fits=is_aasce,
    space="index",
    companions=("filenames.csv", "angles.csv"),
    supersedes=("payer",),
)
