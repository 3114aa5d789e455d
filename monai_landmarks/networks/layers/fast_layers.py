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


"""The faster forms of the layers of a network, all at once."""

from __future__ import annotations

import torch.nn as nn

from .instance_norm_activation import InstanceNormActivation
from .lean_up_cat import LeanUpCat
from .slice_gradient_conv import SliceGradientConv3d
from .uncounted_batch_norm import UncountedBatchNorm

__all__ = ["use_fast_layers"]


def use_fast_layers(network: nn.Module) -> nn.Module:
    """
    Replace layers of a network by forms that give the same results in less time, in place.

    The layers are instance normalization with the activation that follows, 3-D convolutions, MONAI's ``UpCat``, and
    batch normalization.
    Names and values of parameters stay the same, so that state dictionaries fit as before.

    Args:
        network: a network, before an optimizer or a loss refers to its layers. They may refer to its parameters.

    Returns:
        The network.
    """
    for layer in (InstanceNormActivation, SliceGradientConv3d, LeanUpCat, UncountedBatchNorm):
        layer.convert(network)
    return network
