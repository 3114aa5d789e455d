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

"""What compares predictions to annotations, reports, calibrates, and predicts with a bundle.

A function is imported when it is first used, so that a command loads only what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle_prediction import Prediction, predict_landmarks
    from .comparison import Evaluation, evaluate_predictions
    from .conformal_calibration import calibrate_predictions, state_regions
    from .dataset_contact_sheet import write_contact_sheet
    from .html_report import write_report

__all__ = [
    "Evaluation",
    "Prediction",
    "calibrate_predictions",
    "evaluate_predictions",
    "predict_landmarks",
    "state_regions",
    "write_contact_sheet",
    "write_report",
]

_MODULES = {
    "Evaluation": "comparison",
    "Prediction": "bundle_prediction",
    "calibrate_predictions": "conformal_calibration",
    "evaluate_predictions": "comparison",
    "predict_landmarks": "bundle_prediction",
    "state_regions": "conformal_calibration",
    "write_contact_sheet": "dataset_contact_sheet",
    "write_report": "html_report",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
