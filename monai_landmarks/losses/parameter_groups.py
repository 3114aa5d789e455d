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

"""Parameter groups with and without weight decay."""

from __future__ import annotations

from typing import Any

import torch.nn as nn

__all__ = ["parameter_groups"]


def parameter_groups(
    network: nn.Module, loss: nn.Module | None = None, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """
    Parameter groups for a torch optimizer, with weight decay on kernels only.

    Biases, scales of normalization layers and parameters of the loss, such as a learned sigma, have no weight decay.
    The published code of SCN does the same.

    Args:
        network: the network. Weight decay applies to its parameters with two or more dimensions.
        loss: a loss with parameters, or None.
        weight_decay: weight decay of the kernels.

    Returns:
        Groups with ``params`` and ``weight_decay``. Empty groups are left out.

    Example:
        >>> groups = parameter_groups(nn.Conv2d(1, 2, 3), weight_decay=1e-3)
        >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
        [(1, 0.001), (1, 0.0)]
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1]
    kept = [p for p in parameters if p.ndim <= 1]
    if loss is not None:
        kept += [p for p in loss.parameters() if p.requires_grad]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
