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
"""Ensembles of one network: its predictions for mirrored images, and with dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch.nn.modules.dropout import _DropoutNd

from monai_landmarks.transforms import RandLandmarkFlip
from monai_landmarks.uncertainty import ensemble_landmarks

__all__ = ["DropoutEnsembleInferer", "FlipEnsembleInferer"]


class _EnsembleInferer(Inferer):
    """Base class: combine the heatmaps of several members, or their points.

    Args:
        inferer: runs the network for a member. None: MONAI's ``SimpleInferer``.
        stack: return the heatmaps of all M members, (B, M, N, *spatial), instead of their mean.
    """

    def __init__(self, inferer: Inferer | None = None, stack: bool = False) -> None:
        super().__init__()
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.stack = stack

    def members(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> Iterator[Any]:
        """Yield the heatmaps (B, N, *spatial) of one member after the other, or their points."""
        raise NotImplementedError

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Run the network for every member.

        Args:
            inputs: (B, C, *spatial).
            network: returns heatmaps (B, N, *spatial).
            args: further arguments of the network.
            kwargs: further arguments of the network.

        Returns:
            Heatmaps (B, N, *spatial), or (B, M, N, *spatial) with ``stack``. For an inferer that ends in points,
            ``points``, ``scores`` and ``covariances``, as that inferer returns them.
        """
        found = self.members(inputs, network, *args, **kwargs)
        total = next(found)
        if isinstance(total, Mapping):
            return self._combined([total, *found])
        if self.stack:
            return torch.stack([total, *found], dim=1)
        # a running sum: never more than two sets of heatmaps at a time
        count = 1
        for heatmaps in found:
            total, count = total + heatmaps, count + 1
        return total / count

    def _combined(self, found: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        if self.stack or found[0]["points"].ndim != 3:
            raise ValueError(
                "An ensemble of an inferer that ends in points needs one point per landmark: use stack=False, and an inferer"
                " without num_peaks."
            )
        names = ("points", "scores", "covariances")
        return dict(zip(names, ensemble_landmarks(*(torch.stack([m[name] for m in found]) for name in names))))


class FlipEnsembleInferer(_EnsembleInferer):
    """Run the network on the image and on its mirror image.

    The heatmaps of the mirror image are mirrored back, those of left and right landmarks are exchanged, and the mean of
    both is returned. Where ``inferer`` ends in points, the same is done with the points, and
    :func:`monai_landmarks.uncertainty.ensemble_landmarks` combines them.

    This undoes what :class:`~monai_landmarks.transforms.RandLandmarkFlip` does in training, and takes the same
    arguments: a network that was trained on mirrored images finds the left landmark of a mirrored image where the right
    one was. An ensemble may be the ``inferer`` of another one that mirrors along another axis, for four members.

    Args:
        spatial_axis: image axis or axes to mirror, 0 is the first spatial axis. An even number of axes is a rotation,
            after which left is still left.
        pairs: left-right pairs of landmarks, by name or by row number.
        names: names of the landmarks in their order, for pairs by name.
        inferer: runs the network on each image. None: MONAI's ``SimpleInferer``.
        stack: return the heatmaps of both, (B, 2, N, *spatial), instead of their mean, for
            ``HeatmapToLandmarksd(covariance="mixture")``. Points have this covariance in any case.
        one_sided: landmarks, by name or by row number, that have no counterpart on the other side. Their heatmap or
            point is taken from the image itself.

    Raises:
        ValueError: for an unknown name, a landmark in two pairs, an axis or a row that the heatmaps do not have; and
            for points with ``stack`` or with several candidates per landmark.

    Example:
        >>> flip = {"pairs": [("left", "right")], "names": ["left", "right"]}
        >>> FlipEnsembleInferer(**flip)(torch.zeros(1, 1, 8, 6), torch.nn.Conv2d(1, 2, 1)).shape
        torch.Size([1, 2, 8, 6])
        >>> from monai_landmarks.inferers import SlidingWindowLandmarkInferer
        >>> inferer = FlipEnsembleInferer(**flip, inferer=SlidingWindowLandmarkInferer(roi_size=(8, 8)))
        >>> inferer(torch.rand(1, 1, 30, 20), torch.nn.Conv2d(1, 2, 1))["points"].shape
        torch.Size([1, 2, 2])
    """

    def __init__(
        self,
        spatial_axis: int | Sequence[int] = 0,
        pairs: Sequence[Sequence[str] | Sequence[int]] = (),
        names: Sequence[str] | None = None,
        inferer: Inferer | None = None,
        stack: bool = False,
        one_sided: Sequence[str] | Sequence[int] = (),
    ) -> None:
        super().__init__(inferer, stack)
        self.flip = RandLandmarkFlip(spatial_axis, pairs, names, prob=1.0, one_sided=one_sided)

    def members(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> Iterator[Any]:
        """Yield the result for the image, and that for its mirror image, mirrored back."""
        axes = self.flip.spatial_axis
        if any(not 0 <= axis < inputs.ndim - 2 for axis in axes):
            raise ValueError(f"spatial_axis {axes} is not an axis of images with {inputs.ndim - 2} spatial axes.")
        first: Any = self.inferer(inputs, network, *args, **kwargs)
        yield first
        found = self.inferer(torch.flip(inputs, [2 + axis for axis in axes]), network, *args, **kwargs)
        if isinstance(found, Mapping):
            back = self._points_back(dict(found), inputs.shape[2:])
            yield {name: self._both_sided(values, first[name]) for name, values in back.items()}
        else:
            rows = torch.tensor(self.flip.partners(found.shape[1]), device=found.device)
            yield self._both_sided(torch.flip(found, [2 + axis for axis in axes]).index_select(1, rows), first)

    def _both_sided(self, mirrored: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Return the result for the mirror image (B, N, ...), with one-sided landmarks from the image itself."""
        if len(self.flip.spatial_axis) % 2 and self.flip.one_sided:
            mirrored[:, self.flip.one_sided] = first[:, self.flip.one_sided]
        return mirrored

    def _points_back(self, found: dict[str, torch.Tensor], size: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return points of the mirror image as points of the image, left and right exchanged."""
        points = found["points"]
        mirrored = [axis in self.flip.spatial_axis for axis in range(len(size))]
        sign = points.new_tensor([-1.0 if m else 1.0 for m in mirrored])
        origin = points.new_tensor([length - 1.0 if m else 0.0 for m, length in zip(mirrored, size)])
        back = {**found, "points": origin + sign * points}
        back["covariances"] = sign[:, None] * found["covariances"] * sign
        rows = torch.tensor(self.flip.partners(points.shape[1]), device=points.device)
        return {name: values.index_select(1, rows) for name, values in back.items()}


class DropoutEnsembleInferer(_EnsembleInferer):
    """Run the network several times with dropout switched on: Monte-Carlo dropout.

    See Gal and Ghahramani, *Dropout as a Bayesian approximation*, ICML 2016. Only the dropout layers are set to
    training mode, and afterwards back to the mode they had. The members depend on torch's random numbers.

    Args:
        members: number of members.
        inferer: runs the network for each member. None: MONAI's ``SimpleInferer``.
        stack: return the heatmaps of all members, (B, members, N, *spatial), instead of their mean, for
            ``HeatmapToLandmarksd(covariance="spread")``.

    Raises:
        ValueError: for fewer than two members, or a network without dropout, whose members would be equal; and for
            points with ``stack`` or with several candidates per landmark.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Dropout(0.2), torch.nn.Conv2d(4, 3, 1))
        >>> DropoutEnsembleInferer(members=5, stack=True)(torch.zeros(1, 1, 8, 6), network.eval()).shape
        torch.Size([1, 5, 3, 8, 6])
    """

    def __init__(self, members: int = 8, inferer: Inferer | None = None, stack: bool = False) -> None:
        super().__init__(inferer, stack)
        if members < 2:
            raise ValueError(f"members must be at least 2, got {members}.")
        self.count = members

    def members(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> Iterator[Any]:
        """Yield the result of each run."""
        with _dropout_on(network):
            for _ in range(self.count):
                yield self.inferer(inputs, network, *args, **kwargs)


@contextmanager
def _dropout_on(network: Any) -> Iterator[None]:
    """Set the dropout layers of a network to training mode, and back afterwards."""
    modules = network.modules() if isinstance(network, torch.nn.Module) else ()
    layers = [module for module in modules if isinstance(module, _DropoutNd) and module.p > 0]
    if not layers:
        raise ValueError(
            f"{type(network).__name__} has no dropout layer with p > 0, so that all members would be equal. Build the"
            " network with dropout, or use another ensemble."
        )
    modes = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        yield
    finally:
        for layer, mode in zip(layers, modes):
            layer.train(mode)
