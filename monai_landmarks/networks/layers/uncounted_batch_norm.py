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

"""Batch normalization that does not count its batches."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

__all__ = ["UncountedBatchNorm"]


class UncountedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """
    Batch normalization without the count of batches, ``num_batches_tracked``, which stays as it is.

    torch's layer adds 1 to the count in each training step, by a GPU kernel of its own per layer. Only a layer with
    ``momentum=None`` uses the count; if the momentum is set to None later, as ``torch.optim.swa_utils.update_bn`` does,
    this layer counts, too. Parameters and state dictionary are those of ``torch.nn.BatchNorm2d``. Use
    :meth:`convert`.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Accept any number of axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        momentum = self.momentum
        if momentum is None:
            momentum = 0.0
            if self.training and self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                momentum = 1.0 / float(self.num_batches_tracked)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, momentum, self.eps
        )

    @classmethod
    def convert(cls, module: nn.Module) -> nn.Module:
        """
        Replace the batch normalization layers of a network, in place.

        Layers without running statistics or with ``momentum=None`` stay.

        Args:
            module: the network.

        Returns:
            The network.
        """
        for child in module.modules():
            if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                if child.track_running_stats and child.momentum is not None:
                    child.__class__ = cls
        return module
