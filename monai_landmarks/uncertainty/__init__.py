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
"""Uncertainty of predicted landmarks: covariances, regions with a stated coverage, and the check of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_landmarks.lazy import lazy_names

from .calibration import CovarianceCalibration
from .conformal import ConformalRegions, conformal_quantile
from .coverage import covered, gaussian_coverage, gaussian_level, mahalanobis_distance
from .doubt import Doubt, DoubtModel
from .probability import LandmarkProbabilities, ProbabilityModel
from .weights_files import calibration_path, doubt_path, remove_reliability, sigma_path

if TYPE_CHECKING:
    from .ensemble import ensemble_covariance, ensemble_landmarks, sigma_covariance
    from .learned_sigma import find_learned_sigma, load_sigma

__all__ = [
    "ConformalRegions",
    "CovarianceCalibration",
    "Doubt",
    "DoubtModel",
    "LandmarkProbabilities",
    "ProbabilityModel",
    "calibration_path",
    "conformal_quantile",
    "covered",
    "doubt_path",
    "ensemble_covariance",
    "ensemble_landmarks",
    "find_learned_sigma",
    "gaussian_coverage",
    "gaussian_level",
    "load_sigma",
    "mahalanobis_distance",
    "remove_reliability",
    "sigma_covariance",
    "sigma_path",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ensemble_covariance": "ensemble",
        "ensemble_landmarks": "ensemble",
        "find_learned_sigma": "learned_sigma",
        "load_sigma": "learned_sigma",
        "sigma_covariance": "ensemble",
    },
)
