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
"""Layers that keep their weights in the first epochs of a training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.engines.utils import IterationEvents

from .engine_output import Engine

__all__ = ["HoldLayers"]


class HoldLayers:
    """Keep the weights of some layers in the first epochs, so that new layers do not disturb what they have learned.

    The gradients of these layers are removed before the step of the optimizer, which then leaves their weights as they
    are, also with weight decay and momentum. ``requires_grad`` would not do: ``DistributedDataParallel`` must know all
    trained parameters from the start. The epoch is that of the trainer, also in a training that is resumed. Statistics
    of batch normalization follow the images in all epochs.

    Attach this handler before :class:`GradientScale` and :class:`GradientClipping`, which measure the gradients.

    Args:
        network: network, not wrapped.
        epochs: number of epochs. With 0, nothing is held.
        layers: names of submodules. Default: those of the ``first_layers`` of the network; see
            :class:`~monai_landmarks.networks.LandmarkNetwork`.

    Raises:
        ValueError: if the network has no such layer, or states no first layers.
    """

    def __init__(self, network: torch.nn.Module, epochs: int, layers: Sequence[str] | None = None) -> None:
        if layers is None:
            if not hasattr(network, "first_layers"):
                raise ValueError(
                    f"{type(network).__name__} does not state its first layers (first_layers): give layers."
                )
            layers = network.first_layers()  # type: ignore[operator]
        modules = dict(network.named_modules())
        unknown = [name for name in layers if name not in modules]
        if unknown:
            raise ValueError(f"{type(network).__name__} has no layer {unknown[0]!r}.")
        self.epochs = epochs
        self.parameters = [parameter for name in layers for parameter in modules[name].parameters()]

    def attach(self, engine: Engine) -> None:
        """Add the handler to a trainer.

        Args:
            engine: a MONAI trainer.
        """
        if self.epochs > 0 and self.parameters:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._hold)

    def _hold(self, engine: Engine) -> None:
        if engine.state.epoch <= self.epochs:
            for parameter in self.parameters:
                parameter.grad = None
