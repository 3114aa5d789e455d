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

"""Layers of the landmark networks that MONAI does not provide, or that are faster than those of MONAI and torch."""

from __future__ import annotations

from .batch_statistics_norm import BatchStatisticsNorm
from .cubic_upsample import CubicUpsample
from .fast_layers import use_fast_layers
from .instance_norm_activation import InstanceNormActivation
from .lean_up_cat import LeanUpCat
from .output_tap import OutputTap
from .slice_gradient_conv import SliceGradientConv3d
from .supervised_up_cat import SupervisedUpCat
from .uncounted_batch_norm import UncountedBatchNorm

__all__ = [
    "BatchStatisticsNorm",
    "CubicUpsample",
    "InstanceNormActivation",
    "LeanUpCat",
    "OutputTap",
    "SliceGradientConv3d",
    "SupervisedUpCat",
    "UncountedBatchNorm",
    "use_fast_layers",
]
