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

"""Landmark schemas: names and definitions of landmarks, and clinical measurements."""

from __future__ import annotations

from .landmark_schema import Landmark, LandmarkSchema, Measurement, MeasurementClass
from .matching import LandmarkMatch, match_landmarks
from .measurement_drawing import MeasurementDrawing, measurement_drawings
from .measurement_report import MeasurementComparison, MeasurementReport, compare_measurements
from .measurement_uncertainty import MeasuredValues, measure_with_uncertainty
from .schema_file import json_schema_path, load_landmark_schema, parse_landmark_schema, shipped_schemas

__all__ = [
    "Landmark",
    "LandmarkMatch",
    "LandmarkSchema",
    "MeasuredValues",
    "Measurement",
    "MeasurementClass",
    "MeasurementComparison",
    "MeasurementDrawing",
    "MeasurementReport",
    "compare_measurements",
    "json_schema_path",
    "load_landmark_schema",
    "match_landmarks",
    "measure_with_uncertainty",
    "measurement_drawings",
    "parse_landmark_schema",
    "shipped_schemas",
]
