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
"""Weights of a network for other landmarks: what was learned about the common ones is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn as nn

__all__ = ["LandmarkAxis", "LandmarkNetwork", "learned_weights"]


@dataclass(frozen=True)
class LandmarkAxis:
    """An axis of a parameter whose entries belong to landmarks.

    Args:
        axis: 0 for outputs, 1 for inputs.
        start: index of the first entry of the first landmark. The entries before it belong to no landmark. None may
            follow those of the last landmark.
        block: number of consecutive entries per landmark.
    """

    axis: int
    start: int = 0
    block: int = 1


class LandmarkNetwork(Protocol):
    """A network that states which of its parameters belong to landmarks.

    A network whose hidden layers depend on the number of landmarks also has ``resize_hidden(weights, kept)``, which
    returns the weights with hidden layers of the new size, see :class:`~monai_landmarks.networks.nets.FARNet`.
    """

    def landmark_axes(self) -> dict[str, tuple[LandmarkAxis, ...]]:
        """Return the axes that belong to landmarks, by name of the parameter. All other parameters belong to none."""

    def first_layers(self) -> tuple[str, ...]:
        """Return the names of the submodules that find general features, such as edges, in the image."""


def learned_weights(
    network: nn.Module, weights: Mapping[str, torch.Tensor], kept: Sequence[int | None]
) -> dict[str, torch.Tensor]:
    """Return weights for a network of other landmarks.

    Outputs of kept landmarks, and all weights that belong to no landmark, are copied. Outputs of new landmarks keep the
    initial weights of ``network``. Where maps of landmarks are the input of a layer, the weights of new landmarks are
    zero, so that they do not change the outputs of the kept ones. The weights of landmarks that are left out are gone.

    The maps of kept landmarks are those of the old network, in which the maps of the landmarks that are left out are
    zero wherever they are an input.

    Args:
        network: new network, with ``landmark_axes``; see :class:`LandmarkNetwork`. It is not changed.
        weights: state dictionary of the old network, which differs only in the number of landmarks.
        kept: for each landmark of the new network, its index in the old one; None for a new landmark.

    Returns:
        A state dictionary of ``network``, in its precision.

    Raises:
        ValueError: if the network does not state which parameters belong to landmarks, or if the weights are of a
            network that differs in something else.

    Example:
        >>> from monai_landmarks.networks.nets import LocalizationUNet
        >>> old, new = (LocalizationUNet(2, 1, n, features=(8,) * 6) for n in (3, 2))
        >>> state = learned_weights(new, old.state_dict(), [2, None])
        >>> torch.equal(state["final_conv.bias"][0], old.final_conv.bias[2])
        True
    """
    title = type(network).__name__
    if not hasattr(network, "landmark_axes"):
        raise ValueError(f"{title} does not state which of its parameters belong to landmarks (landmark_axes).")
    axes: Mapping[str, tuple[LandmarkAxis, ...]] = network.landmark_axes()  # type: ignore[operator]
    fresh = network.state_dict()
    if set(fresh) != set(weights):
        name = sorted(set(fresh) ^ set(weights))[0]
        where = "lack" if name in fresh else "have"
        raise ValueError(f"the weights are not of this {title}: they {where} {name!r}.")
    if hasattr(network, "resize_hidden"):
        weights = network.resize_hidden(weights, kept)  # type: ignore[operator]
    return {
        name: _learned(name, value.detach(), weights[name], axes.get(name, ()), kept) for name, value in fresh.items()
    }


def _learned(
    name: str, fresh: torch.Tensor, old: torch.Tensor, axes: Sequence[LandmarkAxis], kept: Sequence[int | None]
) -> torch.Tensor:
    result, old = fresh.clone(), old.to(fresh)
    rows = {axis.axis: _sources(fresh.shape[axis.axis], axis, kept) for axis in axes}
    lengths = [old.shape[axis] if axis in rows else n for axis, n in enumerate(fresh.shape)]
    if list(old.shape) != lengths or any(max(found) >= old.shape[axis] for axis, found in rows.items()):
        raise ValueError(f"{name!r} of the weights has the shape {list(old.shape)}, which does not fit this network.")
    outputs = rows.get(0, list(range(len(fresh)))) if fresh.dim() else []
    known = [row for row, source in enumerate(outputs) if source >= 0]
    if not fresh.dim():
        return old
    part = old[[outputs[row] for row in known]]
    if 1 in rows:
        inputs = torch.tensor(rows[1], device=old.device)
        part = part[:, inputs.clamp(min=0)]
        part[:, inputs < 0] = 0
    result[known] = part
    return result


def _sources(length: int, axis: LandmarkAxis, kept: Sequence[int | None]) -> list[int]:
    """Return, for each entry of the new axis, its index in the old axis; -1 for entries of new landmarks."""
    blocks = [-1 if row is None else row for row in kept]
    inside = [-1 if row < 0 else axis.start + row * axis.block + i for row in blocks for i in range(axis.block)]
    behind = length - axis.start - len(inside)
    if behind:  # no network has any; their place in the old axis would depend on its number of landmarks
        raise ValueError(f"an axis of {length} entries does not end with the {len(inside)} of the landmarks.")
    return [*range(axis.start), *inside]
