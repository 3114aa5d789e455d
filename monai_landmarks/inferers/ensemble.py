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
"""Ensembles of one network: what it says of the mirrored image, and with some of its units left out."""

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
    """
    Heatmaps of several members, as their mean or all of them; or their points, as one.

    Args:
        inferer: how the network is run for a member; MONAI's ``SimpleInferer`` if None.
        stack: give the heatmaps of all M members, (B, M, N, *spatial), in place of their mean.
    """

    def __init__(self, inferer: Inferer | None = None, stack: bool = False) -> None:
        super().__init__()
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.stack = stack

    def members(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> Iterator[Any]:
        """The heatmaps (B, N, *spatial), or the points, of each member in turn."""
        raise NotImplementedError

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """
        (B, C, *spatial) to heatmaps (B, N, *spatial), or (B, M, N, *spatial) with ``stack``; where the inferer ends in
        points, to ``points``, ``scores`` and ``covariances``, as it gives them.
        """
        found = self.members(inputs, network, *args, **kwargs)
        total = next(found)
        if isinstance(total, Mapping):
            return self._combined([total, *found])
        if self.stack:
            return torch.stack([total, *found], dim=1)
        # summed up as they come: never more than two sets of heatmaps at a time
        count = 1
        for heatmaps in found:
            total, count = total + heatmaps, count + 1
        return total / count

    def _combined(self, found: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        if self.stack or found[0]["points"].ndim != 3:
            raise ValueError(
                "an ensemble of an inferer that ends in points gives one point a landmark: use stack=False, and an inferer"
                " that gives one point, not several candidates."
            )
        names = ("points", "scores", "covariances")
        return dict(zip(names, ensemble_landmarks(*(torch.stack([m[name] for m in found]) for name in names))))


class FlipEnsembleInferer(_EnsembleInferer):
    """
    Run the network on the image and on its mirror image, and bring the heatmaps of the latter back: mirrored, and those of
    left and right exchanged. Likewise points, where ``inferer`` ends in these; see
    :func:`monai_landmarks.uncertainty.ensemble_landmarks` for what both say together.

    It is the inverse of what :class:`~monai_landmarks.transforms.RandLandmarkFlip` does in training, and takes the same
    arguments: a network that has learned from mirrored images finds the left landmark of a mirrored image where the right one
    was. One ensemble may be the ``inferer`` of another, which mirrors along another axis: four members.

    Args:
        spatial_axis: image axis or axes to mirror, 0 is the first spatial one. An even number of axes is a rotation, after
            which left is still left.
        pairs: left-right pairs of landmarks, by name or by row number.
        names: of the landmarks in their order; needed for pairs by name.
        inferer: how the network is run on each image; MONAI's ``SimpleInferer`` if None.
        stack: give the heatmaps of both, (B, 2, N, *spatial), in place of their mean: for the covariance of
            ``HeatmapToLandmarksd(covariance="mixture")``. Points have that covariance without it.
        one_sided: landmarks, by name or by row number, that have no counterpart on the other side: what is found in the
            mirror image says nothing of them.

    Raises:
        ValueError: an unknown name, a landmark in two pairs, an axis or a row that the heatmaps do not have; for points,
            ``stack`` or several candidates a landmark.

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
        """What is found in the image, and in its mirror image, brought back."""
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
        """What the mirror image says, (B, N, ...), and of one-sided landmarks what the image itself does."""
        if len(self.flip.spatial_axis) % 2 and self.flip.one_sided:
            mirrored[:, self.flip.one_sided] = first[:, self.flip.one_sided]
        return mirrored

    def _points_back(self, found: dict[str, torch.Tensor], size: Sequence[int]) -> dict[str, torch.Tensor]:
        """Points of the mirror image in the image, left and right exchanged."""
        points = found["points"]
        mirrored = [axis in self.flip.spatial_axis for axis in range(len(size))]
        sign = points.new_tensor([-1.0 if m else 1.0 for m in mirrored])
        origin = points.new_tensor([length - 1.0 if m else 0.0 for m, length in zip(mirrored, size)])
        back = {**found, "points": origin + sign * points}
        back["covariances"] = sign[:, None] * found["covariances"] * sign
        rows = torch.tensor(self.flip.partners(points.shape[1]), device=points.device)
        return {name: values.index_select(1, rows) for name, values in back.items()}


class DropoutEnsembleInferer(_EnsembleInferer):
    """
    Run the network several times with its dropout at work: Monte-Carlo dropout.

    Gal, Ghahramani, *Dropout as a Bayesian approximation*, ICML 2016. Only the dropout layers are in training mode, whatever the
    rest of the network is in, and afterwards all are as they were. The members are drawn by torch's random numbers.

    Args:
        members: how many times.
        inferer: how the network is run each time; MONAI's ``SimpleInferer`` if None.
        stack: give the heatmaps of all, (B, members, N, *spatial), in place of their mean: for the covariance of
            ``HeatmapToLandmarksd(covariance="spread")``.

    Raises:
        ValueError: for less than two members, or a network that has no dropout, whose members would be all the same; for
            points, ``stack`` or several candidates a landmark.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Dropout(0.2), torch.nn.Conv2d(4, 3, 1))
        >>> DropoutEnsembleInferer(members=5, stack=True)(torch.zeros(1, 1, 8, 6), network.eval()).shape
        torch.Size([1, 5, 3, 8, 6])
    """

    def __init__(self, members: int = 8, inferer: Inferer | None = None, stack: bool = False) -> None:
        super().__init__(inferer, stack)
        if members < 2:
            raise ValueError(f"members is {members}; an ensemble has at least 2.")
        self.count = members

    def members(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> Iterator[Any]:
        """What each run finds."""
        with _dropout_at_work(network):
            for _ in range(self.count):
                yield self.inferer(inputs, network, *args, **kwargs)


@contextmanager
def _dropout_at_work(network: Any) -> Iterator[None]:
    modules = network.modules() if isinstance(network, torch.nn.Module) else ()
    layers = [module for module in modules if isinstance(module, _DropoutNd) and module.p > 0]
    if not layers:
        raise ValueError(
            f"{type(network).__name__} has no dropout layer with p > 0, so that every member would say the same; build the"
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
