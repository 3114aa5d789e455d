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

"""Prediction with a bundle, evaluation of predictions, agreement of annotators, reports, and conformal regions.

Each name is imported at its first use, so that a command loads only the modules it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_landmarks.lazy import lazy_names

if TYPE_CHECKING:
    from .agreement_report import write_agreement_report, write_bland_altman
    from .annotator_agreement import AnnotatorAgreement, Difference, compare_annotators
    from .annotators import AnnotatedImages
    from .bundle_facts import BundleFacts, read_bundle_facts, shipped_bundles
    from .bundle_prediction import DoubtfulPrediction, WrittenPredictions, predict_landmarks
    from .conformal_calibration import calibrate_regions, write_predictions_with_regions
    from .dataset_contact_sheet import write_contact_sheet
    from .html_report import write_report
    from .image_measurements import ImageMeasurements, measure_images
    from .prediction_errors import EvaluatedCase, Evaluation, evaluate_predictions
    from .prediction_report import MeasuredRows, write_prediction_report

__all__ = [
    "AnnotatedImages",
    "AnnotatorAgreement",
    "BundleFacts",
    "Difference",
    "DoubtfulPrediction",
    "EvaluatedCase",
    "Evaluation",
    "ImageMeasurements",
    "MeasuredRows",
    "WrittenPredictions",
    "calibrate_regions",
    "compare_annotators",
    "evaluate_predictions",
    "measure_images",
    "predict_landmarks",
    "read_bundle_facts",
    "shipped_bundles",
    "write_agreement_report",
    "write_bland_altman",
    "write_contact_sheet",
    "write_prediction_report",
    "write_predictions_with_regions",
    "write_report",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AnnotatedImages": "annotators",
        "AnnotatorAgreement": "annotator_agreement",
        "BundleFacts": "bundle_facts",
        "Difference": "annotator_agreement",
        "DoubtfulPrediction": "bundle_prediction",
        "EvaluatedCase": "prediction_errors",
        "Evaluation": "prediction_errors",
        "ImageMeasurements": "image_measurements",
        "WrittenPredictions": "bundle_prediction",
        "calibrate_regions": "conformal_calibration",
        "compare_annotators": "annotator_agreement",
        "evaluate_predictions": "prediction_errors",
        "measure_images": "image_measurements",
        "predict_landmarks": "bundle_prediction",
        "read_bundle_facts": "bundle_facts",
        "shipped_bundles": "bundle_facts",
        "write_agreement_report": "agreement_report",
        "write_bland_altman": "agreement_report",
        "write_contact_sheet": "dataset_contact_sheet",
        "MeasuredRows": "prediction_report",
        "write_prediction_report": "prediction_report",
        "write_predictions_with_regions": "conformal_calibration",
        "write_report": "html_report",
    },
)
