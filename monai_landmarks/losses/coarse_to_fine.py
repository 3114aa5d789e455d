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

"""Supervision of a network's coarse heatmaps beside the fine ones that it returns."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn

from monai_landmarks.spaces import plain_tensor

__all__ = ["CoarseToFineLoss"]

# Which losses wait for the output of a layer. Known by the layer itself: a copy of a network, or one that was saved and
# loaded, is another network, and feeds no loss.
_WAITING: weakref.WeakKeyDictionary[nn.Module, weakref.WeakSet[CoarseToFineLoss]] = weakref.WeakKeyDictionary()


def _hand_over(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
    """Forward hook: give the output of a layer in training to the losses that wait for it."""
    # TorchScript compiles hooks too, and leaves this out
    if not torch.jit.is_scripting():
        if module.training:
            for loss in _WAITING.get(module, ()):
                loss._coarse_maps = output


class CoarseToFineLoss(nn.Module):
    """
    Coarse-to-fine supervision: a loss of the heatmaps that a network returns, plus one of coarser heatmaps that it makes
    on the way (FARNet, Ao and Wu).

    The network returns one tensor always. Its coarse heatmaps leave through a layer of its own, which this loss watches
    with a forward hook: while the network is in training mode, the layer's last output is kept until the loss is called.
    So call the loss once after each training pass of the network, before the next pass. The network is watched, not held:
    it is no part of this module, and wrapping it, as ``DistributedDataParallel`` does, changes nothing. When the loss
    goes, so does the hook. A network can be copied, pickled, compiled and scripted as before.

    A point x of the fine grid is at (x + 1/2) / stride - 1/2 on the coarse one. In the published scheme sigma is 10
    pixels on both grids, twice as wide in mm on the coarse one: the default here, where both terms are the same loss.

    Args:
        fine: loss of the fine heatmaps, called with heatmaps (B, N, *spatial) and index points (B, N, D).
        network: the network itself, before any wrapping or compiling.
        coarse: loss of the coarse heatmaps and their points; None takes ``fine`` for both.
        layer: name of the network's submodule whose output is the coarse heatmaps, (B, N, *coarse_spatial).
        weights: of the fine and the coarse term.
        coarse_stride: fine voxels per coarse voxel, a number or one per axis.

    Raises:
        ValueError: for a layer that the network does not have, weights that are not two numbers of at least 0, or a
            stride that is not positive.

    Example:
        >>> from collections import OrderedDict
        >>> from monai_landmarks.losses import EWCLoss, GaussianTarget
        >>> layers = OrderedDict(coarse=nn.Conv2d(1, 3, 2, stride=2), fine=nn.Upsample(scale_factor=2))
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
            raise ValueError(f"weights must be two numbers, not negative, got {weights}.")
        if not (min(coarse_stride) if isinstance(coarse_stride, Sequence) else coarse_stride) > 0:
            raise ValueError(f"coarse_stride must be positive, got {coarse_stride}.")
        try:
            watched = network.get_submodule(layer)
        except AttributeError:
            names = ", ".join(name for name, _ in network.named_children())
            raise ValueError(f"{type(network).__name__} has no layer {layer!r}; it has {names or 'none'}.") from None
        self.fine, self.coarse = fine, coarse
        self.fine_weight, self.coarse_weight = weights
        self.coarse_stride = coarse_stride
        self._layer: weakref.ref[nn.Module] | None = weakref.ref(watched)
        self._coarse_maps: torch.Tensor | None = None
        _WAITING.setdefault(watched, weakref.WeakSet()).add(self)
        weakref.finalize(self, watched.register_forward_hook(_hand_over).remove)

    def __getstate__(self) -> dict[str, Any]:
        # a copy of the loss watches no network: neither weak references nor a graph can be copied
        return {**self.__dict__, "_layer": None, "_coarse_maps": None}

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: fine heatmaps (B, N, *spatial), as the network returned them.
            target: index points (B, N, D) or (B, 1, N, D) on the fine grid, NaN where missing.

        Returns:
            The weighted sum of both terms. Only the fine one where this loss or the layer is in evaluation mode.

        Raises:
            ValueError: for target heatmaps, which cannot be moved to the coarse grid exactly; for coarse heatmaps whose
                size is not that of the fine ones divided by ``coarse_stride``.
            RuntimeError: in training, when the network has made no coarse heatmaps since the last call.
        """
        # taken before anything can fail, so that no graph is left behind
        coarse_maps, self._coarse_maps = self._coarse_maps, None
        input, target = plain_tensor(input), plain_tensor(target)
        if target.shape == input.shape:
            raise ValueError("CoarseToFineLoss needs points on both grids: pass index points (B, N, D), not heatmaps.")
        layer = self._layer() if self._layer else None
        fine = self.fine_weight * self.fine(input, target)
        if not self.training or (layer is not None and not layer.training):
            return fine
        if coarse_maps is None:
            raise RuntimeError(
                "the network made no coarse heatmaps since this loss was last called. Call the loss once after each pass "
                "of the network in training mode, and make it with the very network that is trained: a copy of a network "
                "or of a loss, such as the replicas of DataParallel, is not connected."
            )
        coarse_maps = plain_tensor(coarse_maps)
        coarse_points = self._on_coarse_grid(target, input.shape[2:], coarse_maps.shape[2:])
        coarse = self.fine if self.coarse is None else self.coarse
        return fine + self.coarse_weight * coarse(coarse_maps, coarse_points)

    def _on_coarse_grid(self, points: torch.Tensor, fine: torch.Size, coarse: torch.Size) -> torch.Tensor:
        """Index points of a fine grid of that size, on the coarse grid."""
        stride = self.coarse_stride if isinstance(self.coarse_stride, Sequence) else [self.coarse_stride] * len(fine)
        # a size that the stride does not divide is rounded up or down
        fits = (abs(f - s * c) < s for f, s, c in zip(fine, stride, coarse))
        if not (len(stride) == len(fine) == len(coarse) and all(fits)):
            raise ValueError(
                f"coarse heatmaps of size {tuple(coarse)} are not those of size {tuple(fine)} at coarse_stride "
                f"{self.coarse_stride}: set coarse_stride to that of the layer."
            )
        return (points + 0.5) / torch.tensor(stride, dtype=torch.float32, device=points.device) - 0.5
