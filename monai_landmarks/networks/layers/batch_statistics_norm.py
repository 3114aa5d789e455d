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


"""Batch normalization with the statistics of the batch, in evaluation mode as well."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

__all__ = ["BatchStatisticsNorm"]


class BatchStatisticsNorm(nn.modules.batchnorm._BatchNorm):
    """
    Batch normalization that uses the statistics of the batch in evaluation mode as well.

    Running statistics are updated in training, and stay unchanged in evaluation. State dictionaries are therefore
    compatible with torch's layers, and a trained network can be evaluated with either. In a batch of several images,
    the prediction for an image depends on the others.

    Args:
        num_features: number of channels. Other arguments are those of ``torch.nn.BatchNorm2d``.

    Shape:
        (B, C, *spatial) to (B, C, *spatial), any number of spatial axes.

    Raises:
        ValueError: for one value per channel, which has no variance.

    Example:
        >>> net = BatchStatisticsNorm.convert(nn.Sequential(nn.BatchNorm2d(3)).eval())
        >>> net(torch.rand(2, 3, 8, 8) + 5).mean().abs().item() < 1e-4
        True
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Accept any number of axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.running_mean if self.training else None
        var = self.running_var if self.training else None
        momentum = 0.1 if self.momentum is None else self.momentum
        return F.batch_norm(x, mean, var, self.weight, self.bias, training=True, momentum=momentum, eps=self.eps)

    @classmethod
    def convert(cls, module: nn.Module) -> nn.Module:
        """
        Replace the batch normalization layers of a network, in place.

        Args:
            module: the network, or a batch normalization layer.

        Returns:
            The network, or the new layer.
        """
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # the same parameter objects, because an optimizer may already refer to them
            layer = cls(module.num_features)
            layer.__dict__.update(module.__dict__)
            return layer
        for name, child in module.named_children():
            setattr(module, name, cls.convert(child))
        return module
