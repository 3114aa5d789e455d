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
"""Errors of predicted landmarks: functions on errors, MONAI metrics, and the error report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_landmarks.lazy import lazy_names

from .agreement import IntraclassCorrelation, LimitsOfAgreement, intraclass_correlations, limits_of_agreement
from .cobb import angle_smape, cobb_angles
from .error_report import ErrorReport
from .functional import image_specific_error, outlier_count, point_error, success_detection_rate
from .identification import identification
from .statistics import (
    PairedComparison,
    bootstrap_interval,
    bootstrap_interval_of_counts,
    bootstrap_interval_of_sums,
    compare_errors,
    holm_correction,
    signed_rank_test,
)

if TYPE_CHECKING:
    from .chain_shift import ChainShift, best_chain_shift
    from .cobb_metric import CobbAngleMetric
    from .detection_rate import OutlierMetric, SuccessDetectionRateMetric
    from .landmark_metric import LandmarkMetric, error_is_lower, points_error_batch
    from .mistaken import MistakenLandmarksMetric
    from .normalized_coordinates import coordinate_correlation, normalized_mse
    from .point_error_metric import ImageSpecificErrorMetric, PointErrorMetric
    from .presence import PresenceThreshold, choose_presence_threshold

__all__ = [
    "ChainShift",
    "CobbAngleMetric",
    "ErrorReport",
    "ImageSpecificErrorMetric",
    "IntraclassCorrelation",
    "LandmarkMetric",
    "LimitsOfAgreement",
    "MistakenLandmarksMetric",
    "OutlierMetric",
    "PairedComparison",
    "PointErrorMetric",
    "PresenceThreshold",
    "SuccessDetectionRateMetric",
    "angle_smape",
    "best_chain_shift",
    "bootstrap_interval",
    "bootstrap_interval_of_counts",
    "bootstrap_interval_of_sums",
    "choose_presence_threshold",
    "cobb_angles",
    "compare_errors",
    "coordinate_correlation",
    "error_is_lower",
    "holm_correction",
    "identification",
    "image_specific_error",
    "intraclass_correlations",
    "limits_of_agreement",
    "normalized_mse",
    "outlier_count",
    "point_error",
    "points_error_batch",
    "signed_rank_test",
    "success_detection_rate",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ChainShift": "chain_shift",
        "CobbAngleMetric": "cobb_metric",
        "ImageSpecificErrorMetric": "point_error_metric",
        "LandmarkMetric": "landmark_metric",
        "MistakenLandmarksMetric": "mistaken",
        "OutlierMetric": "detection_rate",
        "PointErrorMetric": "point_error_metric",
        "PresenceThreshold": "presence",
        "SuccessDetectionRateMetric": "detection_rate",
        "best_chain_shift": "chain_shift",
        "choose_presence_threshold": "presence",
        "coordinate_correlation": "normalized_coordinates",
        "error_is_lower": "landmark_metric",
        "normalized_mse": "normalized_coordinates",
        "points_error_batch": "landmark_metric",
    },
)
