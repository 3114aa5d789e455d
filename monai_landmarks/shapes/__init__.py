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

"""Statistics of the shapes that landmarks form: a robust model, and shapes that differ from it."""

from __future__ import annotations

from .alignment import Similarity, align_shapes, common_shape, fit_similarity
from .findings import ShapeFinding, examine_shape, examine_shapes
from .shape_model import (
    MIN_LANDMARKS,
    MIN_SHAPES,
    Deviations,
    ShapeModel,
    fit_left_out_models,
    fit_shape_model,
    usable_shapes,
)

__all__ = [
    "Deviations",
    "MIN_LANDMARKS",
    "MIN_SHAPES",
    "ShapeFinding",
    "ShapeModel",
    "Similarity",
    "align_shapes",
    "common_shape",
    "examine_shape",
    "examine_shapes",
    "fit_left_out_models",
    "fit_shape_model",
    "fit_similarity",
    "usable_shapes",
]
