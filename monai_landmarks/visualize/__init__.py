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
"""Matplotlib figures of landmarks, heatmaps, training and errors, made without the global state of pyplot."""

from __future__ import annotations

from .agreement_figure import BlandAltmanPanel, draw_annotators, draw_bland_altman
from .cobb_figure import draw_cobb_angles
from .contact_sheet import draw_contact_sheet
from .curves import draw_error_boxplot, draw_sdr_curve, draw_size_curve, draw_training_curve
from .heatmap_figure import draw_heatmaps
from .landmark_view import LandmarkView, draw_landmarks, draw_views, landmark_view
from .precision_figure import draw_precision
from .report_page import ReportPage
from .uncertainty_figure import draw_calibration, draw_error_against_uncertainty

__all__ = [
    "BlandAltmanPanel",
    "LandmarkView",
    "ReportPage",
    "draw_annotators",
    "draw_bland_altman",
    "draw_calibration",
    "draw_cobb_angles",
    "draw_contact_sheet",
    "draw_error_against_uncertainty",
    "draw_error_boxplot",
    "draw_heatmaps",
    "draw_landmarks",
    "draw_precision",
    "draw_sdr_curve",
    "draw_size_curve",
    "draw_training_curve",
    "draw_views",
    "landmark_view",
]
