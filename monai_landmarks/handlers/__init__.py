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
"""Ignite handlers for training and evaluation of landmark models with MONAI's engines."""

from __future__ import annotations

from .cobb_report import CobbReport
from .distributed import finish_distributed, local_device, start_distributed, wrap_distributed
from .engine_output import is_main_process
from .gradient_clipping import GradientClipping
from .gradient_scale import GradientScale
from .hold_layers import HoldLayers
from .landmark_report import LandmarkReport
from .memory import keep_freed_memory
from .overlay_saver import OverlaySaver
from .plain_errors import plain_errors
from .prediction_saver import PredictionSaver, SavedPrediction
from .presence_report import PresenceReport
from .reliability import ReliabilityCopier, ReliabilitySaver
from .reproducible import start_reproducible
from .resume_training import ResumeTraining
from .safe_checkpoint import SafeCheckpointLoader, SafeCheckpointSaver, load_weights
from .stop_on_non_finite import StopOnNonFinite
from .target_precision import TargetPrecision
from .training_curve import TrainingCurve
from .training_progress import TrainingProgress

__all__ = [
    "CobbReport",
    "GradientClipping",
    "GradientScale",
    "HoldLayers",
    "LandmarkReport",
    "OverlaySaver",
    "PredictionSaver",
    "PresenceReport",
    "ReliabilityCopier",
    "ReliabilitySaver",
    "ResumeTraining",
    "SafeCheckpointLoader",
    "SafeCheckpointSaver",
    "SavedPrediction",
    "StopOnNonFinite",
    "TargetPrecision",
    "TrainingCurve",
    "TrainingProgress",
    "finish_distributed",
    "is_main_process",
    "keep_freed_memory",
    "load_weights",
    "local_device",
    "plain_errors",
    "start_distributed",
    "start_reproducible",
    "wrap_distributed",
]
