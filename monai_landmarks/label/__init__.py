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


"""MONAI Label app: propose landmarks to an annotator and train with the corrections.

The modules ``app``, ``tasks``, ``datastore`` and ``asgi`` require MONAI Label, so import from them directly. Everything
that this package exports works without it.
"""

from __future__ import annotations

from .image_queue import image_uncertainty, next_image, served_at, stored_uncertainty
from .models import bundle_names, find_models
from .pictures import from_viewer, to_viewer, viewer_affine, viewer_spacing
from .proposal import image_extent, plain_answer, plain_list, proposed_landmarks
from .result import LandmarkResultD, LandmarkResultd, LandmarkResultDict, ball_label_map
from .submitted_label import label_suffix, matching_model, read_label
from .train_settings import split_labels, training_overrides

__all__ = [
    "LandmarkResultD",
    "LandmarkResultDict",
    "LandmarkResultd",
    "ball_label_map",
    "bundle_names",
    "read_label",
    "find_models",
    "matching_model",
    "from_viewer",
    "image_extent",
    "image_uncertainty",
    "label_suffix",
    "next_image",
    "plain_answer",
    "plain_list",
    "proposed_landmarks",
    "served_at",
    "split_labels",
    "stored_uncertainty",
    "to_viewer",
    "training_overrides",
    "viewer_affine",
    "viewer_spacing",
]
