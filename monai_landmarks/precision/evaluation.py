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


"""What a validation says about each landmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

__all__ = ["Evaluation", "discounted_mean", "spread"]


@dataclass(frozen=True)
class Evaluation:
    """
    One validation of a network, landmark by landmark. What is not known is NaN.

    Attributes:
        progress: how much of the training is done, 0 to 1.
        sigma: (N,) the sigmas with which the network was trained before this validation.
        error: (N,) mean radial error over the images, in the unit of sigma.
        square_error: (N,) mean squared radial error.
        train_loss: (N,) mean training loss since the validation before.
        radius: (N,) width of the predicted heatmaps: the standard deviation along an axis, in the unit of sigma.
        peak: (N,) mean height of the predicted heatmaps.
    """

    progress: float
    sigma: torch.Tensor
    error: torch.Tensor
    square_error: torch.Tensor
    train_loss: torch.Tensor
    radius: torch.Tensor
    peak: torch.Tensor

    @property
    def mean_error(self) -> float:
        """Mean over the landmarks that are known."""
        return float(self.error.nanmean())

    def state_dict(self) -> dict[str, Any]:
        """As tensors and plain values."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Evaluation:
        """The evaluation of a :meth:`state_dict`."""
        return cls(**state)


def discounted_mean(values: Sequence[torch.Tensor], decay: float = 0.9, window: int = 3) -> torch.Tensor:
    """
    Mean of the last values, where an older one counts less; NaN does not count.

    Args:
        values: tensors (N,), oldest first.
        decay: weight of a value relative to the next.
        window: how many count.

    Returns:
        (N,), NaN where none is known.

    Example:
        >>> discounted_mean([torch.tensor([4.0]), torch.tensor([1.0])], decay=0.5)
        tensor([2.])
    """
    last = torch.stack(list(values[-window:]))
    weight = decay ** torch.arange(len(last) - 1, -1, -1, dtype=last.dtype)[:, None] * ~last.isnan()
    return (weight * last.nan_to_num()).sum(dim=0) / weight.sum(dim=0)


def spread(values: Sequence[torch.Tensor], window: int = 4) -> torch.Tensor:
    """(N,) standard deviation of the last values; 0 where fewer than two are known."""
    last = torch.stack(list(values[-window:]))
    return (last - last.nanmean(dim=0)).square().nanmean(dim=0).sqrt().nan_to_num()
