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

"""Supervision of a network's coarse heatmaps in addition to the fine heatmaps that it returns."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn

from monai_landmarks.spaces import plain_tensor

__all__ = ["CoarseToFineLoss"]


class CoarseToFineLoss(nn.Module):
    """
    Coarse-to-fine supervision (FARNet, Ao and Wu): a loss of the fine heatmaps plus a loss of the coarse heatmaps.

    The network returns the fine heatmaps only, one tensor. This loss receives the coarse ones from a layer of the
    network, an :class:`~monai_landmarks.networks.layers.OutputTap`, in each pass in training mode, and keeps them until
    it is called. So call the loss once after each training pass, before the next pass.

    The network is not a part of this module, and the loss does not keep it alive. Wrapping the network, for example in
    ``DistributedDataParallel``, changes nothing. The network can be copied, pickled, compiled and scripted; a copy is
    not connected to the loss.

    A point x on the fine grid is at :math:`(x + 1/2) / s - 1/2` on a coarse grid of stride s. In the published scheme,
    sigma is 10 pixels on both grids, so it is twice as wide in mm on the coarse one. The default, one loss for both
    terms, does the same.

    Args:
        fine: loss of the fine heatmaps, called with heatmaps (B, N, *spatial) and index points (B, N, D).
        network: the network itself, before it is wrapped or compiled.
        coarse: loss of the coarse heatmaps and their points; None uses ``fine`` for both.
        layer: name of the network's ``OutputTap`` through which the coarse heatmaps (B, N, *coarse_spatial) pass.
        weights: weights of the fine and the coarse term.
        coarse_stride: fine voxels per coarse voxel, one number or one per axis.

    Raises:
        ValueError: if the network has no such layer, if the layer is not an ``OutputTap``, for weights that are not two
            numbers of at least 0, or for a stride that is not positive.

    Example:
        >>> from collections import OrderedDict
        >>> from monai_landmarks.losses import EWCLoss, GaussianTarget
        >>> from monai_landmarks.networks.layers import OutputTap
        >>> layers = OrderedDict(down=nn.Conv2d(1, 3, 2, stride=2), coarse=OutputTap(), up=nn.Upsample(scale_factor=2))
        >>> network = nn.Sequential(layers)
        >>> loss = CoarseToFineLoss(EWCLoss(GaussianTarget(sigma=10.0)), network)
        >>> heatmaps = network(torch.zeros(2, 1, 32, 24))
        >>> loss(heatmaps, torch.rand(2, 3, 2) * 20).backward()
    """

    def __init__(
        self,
        fine: nn.Module,
        network: nn.Module,
        coarse: nn.Module | None = None,
        layer: str = "coarse",
        weights: Sequence[float] = (1.0, 1.0),
        coarse_stride: float | Sequence[float] = 2,
    ) -> None:
        super().__init__()
        if len(weights) != 2 or min(weights) < 0:
            raise ValueError(f"weights must be two numbers of at least 0, got {weights}.")
        if not (min(coarse_stride) if isinstance(coarse_stride, Sequence) else coarse_stride) > 0:
            raise ValueError(f"coarse_stride must be positive, got {coarse_stride}.")
        self.fine, self.coarse = fine, coarse
        self.fine_weight, self.coarse_weight = weights
        self.coarse_stride = coarse_stride
        tap = _find_tap(network, layer)
        tap.connect(self)
        self._tap: weakref.ref[nn.Module] | None = weakref.ref(tap)
        self._coarse_maps: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        # a copy of the loss is not connected: neither weak references nor a graph can be copied
        return {**self.__dict__, "_tap": None, "_coarse_maps": None}

    def receive(self, output: torch.Tensor) -> None:
        """
        Keep coarse heatmaps for the next call of the loss. The network's tap calls this method.

        Args:
            output: coarse heatmaps (B, N, *coarse_spatial).
        """
        self._coarse_maps = output

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Compute the loss.

        Args:
            input: fine heatmaps (B, N, *spatial), as the network returned them.
            target: index points (B, N, D) or (B, 1, N, D) on the fine grid. NaN is missing.

        Returns:
            The weighted sum of both terms, or only the fine term if this loss or the network is in evaluation mode.

        Raises:
            ValueError: for target heatmaps, which cannot be moved to the coarse grid exactly; for coarse heatmaps whose
                size is not that of the fine ones divided by ``coarse_stride``.
            RuntimeError: in training, if the network has made no coarse heatmaps since the last call.
        """
        # cleared before anything can fail, so that no graph stays alive
        coarse_maps, self._coarse_maps = self._coarse_maps, None
        input, target = plain_tensor(input), plain_tensor(target)
        if target.shape == input.shape:
            raise ValueError("CoarseToFineLoss needs points on both grids: pass index points (B, N, D), not heatmaps.")
        tap = self._tap() if self._tap else None
        fine = self.fine_weight * self.fine(input, target)
        if not self.training or (tap is not None and not tap.training):
            return fine
        if coarse_maps is None:
            raise RuntimeError(
                "the network has made no coarse heatmaps since this loss was last called. Call the loss once after "
                "each pass of the network in training mode, and construct the loss with the network that is trained: a copy "
                "of a network or of a loss, such as a replica of DataParallel, is not connected."
            )
        coarse_maps = plain_tensor(coarse_maps)
        coarse_points = self._on_coarse_grid(target, input.shape[2:], coarse_maps.shape[2:])
        coarse = self.fine if self.coarse is None else self.coarse
        return fine + self.coarse_weight * coarse(coarse_maps, coarse_points)

    def _on_coarse_grid(self, points: torch.Tensor, fine: torch.Size, coarse: torch.Size) -> torch.Tensor:
        """Index points on the coarse grid, from index points on the fine grid."""
        stride = self.coarse_stride if isinstance(self.coarse_stride, Sequence) else [self.coarse_stride] * len(fine)
        # a size that the stride does not divide is rounded up or down
        fits = (abs(f - s * c) < s for f, s, c in zip(fine, stride, coarse))
        if not (len(stride) == len(fine) == len(coarse) and all(fits)):
            raise ValueError(
                f"coarse heatmaps of size {tuple(coarse)} do not match fine heatmaps of size {tuple(fine)} at "
                f"coarse_stride {self.coarse_stride}: set coarse_stride to the stride of the layer."
            )
        return (points + 0.5) / torch.tensor(stride, dtype=torch.float32, device=points.device) - 0.5


def _find_tap(network: nn.Module, name: str) -> Any:
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        names = ", ".join(child for child, _ in network.named_children())
        raise ValueError(f"{type(network).__name__} has no layer {name!r}; it has {names or 'none'}.") from None
    # found by its method, because losses do not depend on the networks of this package
    if not hasattr(layer, "connect"):
        raise ValueError(
            f"layer {name!r} of {type(network).__name__} is a {type(layer).__name__}: pass the coarse heatmaps through "
            "an OutputTap (monai_landmarks.networks.layers) and give its name."
        )
    return layer
