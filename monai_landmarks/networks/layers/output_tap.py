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

"""A layer whose output a loss can receive during training."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

import torch
import torch.nn as nn

__all__ = ["OutputTap"]


class _Receiver(Protocol):
    def receive(self, output: torch.Tensor) -> None:
        """Take the output of a layer."""


class OutputTap(nn.Module):
    """
    The identity. In training mode it also passes its input to each connected receiver.

    A network that returns one tensor can thereby have intermediate maps supervised by a loss: the maps leave the
    network through a tap, and the loss is the receiver. MONAI's trainer and inferers pass only the returned tensor to a
    loss.

    The tap refers to receivers weakly, so it does not keep a loss alive, and it stores no tensor. Copies of a network,
    by ``copy.deepcopy`` or by ``pickle``, have no receivers. In TorchScript the tap is the identity.

    Shape:
        Any tensor to the same tensor.

    Example:
        >>> class Receiver:
        ...     def receive(self, output):
        ...         self.output = output
        >>> tap, receiver = OutputTap(), Receiver()
        >>> tap.connect(receiver)
        >>> tap(torch.ones(2)) is receiver.output
        True
    """

    def __init__(self) -> None:
        super().__init__()
        # without an annotation, because TorchScript warns of those that it does not support
        self._receivers = list[weakref.ref[_Receiver]]()

    def connect(self, receiver: _Receiver) -> None:
        """
        Add a receiver.

        Args:
            receiver: an object with a method ``receive``, which is called with the output of each pass in training
                mode.
        """
        self._receivers = [known for known in self._receivers if known() is not None] + [weakref.ref(receiver)]

    def __getstate__(self) -> dict[str, Any]:
        # weak references cannot be copied, and a copy of a network must not feed the loss of another network
        return {**self.__dict__, "_receivers": []}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``."""
        # TorchScript leaves this block out and could not compile it; scripted code is not measured
        if not torch.jit.is_scripting():  # pragma: no branch
            if self.training:
                for known in self._receivers:
                    receiver = known()
                    if receiver is not None:
                        receiver.receive(x)
        return x
