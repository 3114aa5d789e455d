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


"""Heatmaps of landmarks that form chains, such as vertebrae, to points that fit together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_tensor, look_up_option
from numpy.typing import ArrayLike

from monai_landmarks.heatmaps import (
    DecodedLandmarks,
    DecodingMethod,
    choose_by_evidence,
    choose_by_graph,
    choose_by_sequence,
    find_peaks,
    require_decoding_method,
    with_neighbors,
)
from monai_landmarks.spaces import affine_spacing, points_to_world

from .decoding import DecodeLandmarksd, arrays_like

__all__ = [
    "HeatmapToChainLandmarks",
    "HeatmapToChainLandmarksD",
    "HeatmapToChainLandmarksDict",
    "HeatmapToChainLandmarksd",
]

ChainRule = Literal["sequence", "graph", "evidence"]
# published thresholds of candidates
_THRESHOLDS: dict[ChainRule, float] = {"sequence": 0.25, "graph": 0.05, "evidence": 0.0}

Chains = Mapping[str, Sequence[str]] | Sequence[Sequence[str] | Sequence[int]]


class HeatmapToChainLandmarks(Transform):
    """Heatmaps to index points of landmarks that form chains.

    Each map has several candidates. A rule chooses, per chain, the candidates that fit together. Two rules are
    published: :func:`monai_landmarks.heatmaps.choose_by_sequence` and :func:`monai_landmarks.heatmaps.choose_by_graph`.
    With them, a landmark without a fitting candidate is missing. The third rule,
    :func:`monai_landmarks.heatmaps.choose_by_evidence`, is for complete chains. It keeps the maxima of the maps if they
    are a plausible chain. A landmark that is in no chain is at the maximum of its map, if it is above the threshold.

    Args:
        chains: landmarks of each chain in their order, by name or row number; or the ``chains`` of a landmark schema.
        names: names of all landmarks in their order, for chains by name.
        choose_by: rule, ``"sequence"``, ``"graph"`` or ``"evidence"``.
        offsets: for ``"graph"`` and ``"evidence"``: per chain the mean vectors from each landmark to the next in RAS
            mm, (n - 1, D), from :func:`monai_landmarks.heatmaps.chain_offsets`.
        direction: for ``"sequence"``: vector in RAS along which the chains go, for example (0, 0, -1) from head to
            foot.
        num_peaks: number of candidates per map.
        min_distance: smallest distance of the candidates of one map, in voxels.
        threshold: a candidate that is not above it does not count. Default: the published value, 0.25 for
            ``"sequence"`` and 0.05 for ``"graph"``, for heatmaps with a peak of about 1; 0 for ``"evidence"``.
        min_factor: a candidate below this share of the highest candidate of its map does not count. Not used for
            ``"evidence"``, which has a floor of its own.
        method: refinement of a candidate to a fraction of a voxel, see
            :func:`monai_landmarks.heatmaps.decode_heatmaps`.
        radius: of the neighborhood that the refinement uses, in voxels.
        options: further arguments of the rule, for example ``distance``.

    Raises:
        ValueError: for an unknown rule, method or name, offsets that do not belong to the chains, or a landmark in two
            chains.

    Example:
        >>> from monai_landmarks.transforms import LandmarksToHeatmap
        >>> spine = np.array([[10.0, 16.0], [30.0, 17.0], [50.0, 15.0]])
        >>> heatmaps = LandmarksToHeatmap(sigma=2.0)(spine[[0, 0, 2]], spatial_shape=(64, 32))  # L2 is taken for L1
        >>> heatmaps[1] += 0.5 * LandmarksToHeatmap(sigma=2.0)(spine[1:2], spatial_shape=(64, 32))[0]
        >>> chain = HeatmapToChainLandmarks([["L1", "L2", "L3"]], names=["L1", "L2", "L3"], direction=(1.0, 0.0))
        >>> chain(heatmaps).points.round().tolist()
        [[10.0, 16.0], [30.0, 17.0], [50.0, 15.0]]
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(
        self,
        chains: Chains,
        names: Sequence[str] | None = None,
        choose_by: ChainRule = "sequence",
        offsets: Sequence[ArrayLike | torch.Tensor] | None = None,
        direction: Sequence[float] | None = None,
        num_peaks: int = 5,
        min_distance: float = 7.0,
        threshold: float | None = None,
        min_factor: float = 0.1,
        method: DecodingMethod = "gaussian",
        radius: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        require_decoding_method(method)
        self.chains = _rows(chains.values() if isinstance(chains, Mapping) else chains, names)
        self.choose_by: ChainRule = look_up_option(choose_by, get_args(ChainRule))
        self.offsets = [torch.as_tensor(vectors).double() for vectors in offsets or ()]
        found = [len(vectors) + 1 for vectors in self.offsets]
        needed = [] if choose_by == "sequence" else [len(chain) for chain in self.chains]
        if found != needed:
            raise ValueError(
                f"offsets must be those of chains of {needed} landmarks, got those of chains of {found}."
                if needed
                else "offsets must be given for choose_by='graph' and 'evidence' only."
            )
        self.direction = direction
        self.num_peaks, self.min_distance = num_peaks, min_distance
        self.min_factor = 0.0 if choose_by == "evidence" else min_factor
        self.threshold = _THRESHOLDS[self.choose_by] if threshold is None else threshold
        self.method: DecodingMethod = method
        self.radius = radius
        self.options: dict[str, Any] = {"threshold": self.threshold} if choose_by == "sequence" else {}
        self.options.update(options or {})

    def __call__(self, heatmaps: NdarrayOrTensor, affine: np.ndarray | None = None) -> DecodedLandmarks:
        """Decode heatmaps.

        Args:
            heatmaps: (N, *spatial).
            affine: 4x4, from index coordinates of the image to RAS mm. None: a voxel is a cube of 1 mm.

        Returns:
            :class:`monai_landmarks.heatmaps.DecodedLandmarks` with points (N, D) in index coordinates, NaN where the
            landmark is missing; scores (N,) of the chosen candidates, or of the highest one where none was chosen, NaN
            where none is above the threshold; and covariances (N, D, D) in square voxels. They are NumPy arrays if the
            heatmaps are one, else plain tensors.
        """
        maps = convert_to_tensor(heatmaps, track_meta=False)
        peaks = find_peaks(
            maps,
            maps.ndim - 1,
            self.num_peaks,
            self.min_distance,
            self.threshold,
            method=self.method,
            radius=self.radius,
        )
        return arrays_like(heatmaps, self.choose(peaks, affine, maps.shape[1:]))

    def choose(
        self, peaks: DecodedLandmarks, affine: np.ndarray | None = None, size: Sequence[int] | None = None
    ) -> DecodedLandmarks:
        """Choose the candidates that fit together.

        Args:
            peaks: candidates, points (N, K, D) in index coordinates, scores (N, K) and covariances (N, K, D, D), the
                highest first, NaN where a map has fewer than K: from :func:`monai_landmarks.heatmaps.find_peaks`, or
                from an inferer with ``num_peaks``.
            affine: 4x4, from index coordinates of the image to RAS mm. None: a voxel is a cube of 1 mm.
            size: of the image. None: the rule for chains that begin at the border of the image is not applied. Where the
                image was padded along ``direction``, the border is that of the padding, so the rule is not applied at
                the border of what was imaged.

        Returns:
            Points (N, D), scores (N,) and covariances (N, D, D), as for a call.
        """
        lowest = (self.min_factor * peaks.scores[:, :1]).clamp(min=self.threshold)
        counts = (peaks.scores > self.threshold) & (peaks.scores >= lowest)
        none = [torch.where(counts.view(*counts.shape, *[1] * (v.ndim - 2)), v, torch.nan) for v in peaks]
        peaks = DecodedLandmarks(*none)
        affine = np.eye(4) if affine is None else affine
        world = points_to_world(peaks.points, affine)
        result = DecodedLandmarks(*(values[:, 0].clone() for values in peaks))
        for number, chain in enumerate(self.chains):
            rows = torch.tensor(chain, device=counts.device)
            points, scores, covariances = (values[rows] for values in peaks)
            landmark = torch.arange(len(rows), device=counts.device)
            if self.choose_by == "evidence":
                near = {
                    "distance": self.min_distance * float(affine_spacing(affine, world.shape[-1]).mean()),
                    **self.options,
                }
                landmark, chosen = choose_by_evidence(world[rows], scores, self.offsets[number], **near)
            elif self.choose_by == "graph":
                lent, scores = with_neighbors(world[rows], scores)
                chosen = choose_by_graph(lent, scores, self.offsets[number], **self.options)
                points, covariances = (_lent(values) for values in (points, covariances))
            else:
                extent = None if size is None else self._extent(size, affine)
                chosen = choose_by_sequence(world[rows], scores, self.direction, extent, **self.options)
            on_path = chosen >= 0
            place = landmark, chosen.clamp(min=0)
            result.points[rows] = torch.where(on_path[:, None], points[place], torch.nan)
            result.covariances[rows] = torch.where(on_path[:, None, None], covariances[place], torch.nan)
            result.scores[rows] = torch.where(on_path, scores[place], result.scores[rows])
        return result

    def _extent(self, shape: Sequence[int], affine: np.ndarray) -> tuple[float, float] | None:
        """Return the smallest and the largest coordinate in the image along the direction of the chains."""
        if self.direction is None:
            return None
        corners = np.array(list(itertools.product(*((0, size - 1) for size in shape))))
        along = points_to_world(corners, affine) @ np.asarray(self.direction, dtype=np.float64)
        return float(along.min()), float(along.max())


def _lent(values: torch.Tensor) -> torch.Tensor:
    """Return values in the order of :func:`with_neighbors`, without its factor."""
    one = torch.ones(values.shape[:2], device=values.device)
    return with_neighbors(values, one)[0]


def _rows(chains: Iterable[Sequence[str] | Sequence[int]], names: Sequence[str] | None) -> list[list[int]]:
    """Return the row numbers of the landmarks of each chain."""
    order = {name: row for row, name in enumerate(names or ())}
    rows = []
    for chain in chains:
        unknown = [entry for entry in chain if isinstance(entry, str) and entry not in order]
        if unknown:
            raise ValueError(
                f"The chain {list(chain)} has the landmark {unknown[0]!r}, which is not among the names {list(order)}."
            )
        rows.append([order[entry] if isinstance(entry, str) else int(entry) for entry in chain])
    every = sorted(row for chain in rows for row in chain)
    twice = [row for row, following in zip(every, every[1:]) if row == following]
    if twice:
        raise ValueError(f"Landmark {twice[0]} is in the chains more than once.")
    return rows


class HeatmapToChainLandmarksd(DecodeLandmarksd):
    """Dictionary-based version of :class:`HeatmapToChainLandmarks`, to be used instead of ``HeatmapToLandmarksd``.

    Args:
        keys: heatmaps (N, *spatial), for example a network's ``"pred"`` after decollation. Or the result of an inferer
            that ends in points, with ``num_peaks``. ``num_peaks``, ``min_distance``, ``method`` and ``radius`` are then
            those of the inferer.
        chains: see :class:`HeatmapToChainLandmarks`.
        names: see :class:`HeatmapToChainLandmarks`.
        choose_by: see :class:`HeatmapToChainLandmarks`.
        offsets: see :class:`HeatmapToChainLandmarks`.
        direction: see :class:`HeatmapToChainLandmarks`.
        points_keys: see :class:`HeatmapToLandmarksd`.
        score_keys: see :class:`HeatmapToLandmarksd`.
        covariance_keys: see :class:`HeatmapToLandmarksd`.
        refer_keys: see :class:`HeatmapToLandmarksd`. Its affine gives the distances in mm.
        space: see :class:`HeatmapToLandmarksd`.
        allow_missing_keys: do not raise if a key is missing.
        kwargs: further arguments of :class:`HeatmapToChainLandmarks`.

    Raises:
        ValueError: see :class:`HeatmapToLandmarksd` and :class:`HeatmapToChainLandmarks`; and for the points of an
            inferer without ``num_peaks``, which have only one candidate.
    """

    backend = HeatmapToChainLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        chains: Chains,
        names: Sequence[str] | None = None,
        choose_by: ChainRule = "sequence",
        offsets: Sequence[ArrayLike | torch.Tensor] | None = None,
        direction: Sequence[float] | None = None,
        points_keys: KeysCollection | None = None,
        score_keys: KeysCollection | None = None,
        covariance_keys: KeysCollection | None = None,
        refer_keys: KeysCollection | None = "image",
        space: Literal["world", "index"] = "world",
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, points_keys, score_keys, covariance_keys, refer_keys, space, allow_missing_keys)
        self.chooser = HeatmapToChainLandmarks(chains, names, choose_by, offsets, direction, **kwargs)

    def decode_maps(self, heatmaps: NdarrayOrTensor, affine: np.ndarray | None) -> DecodedLandmarks:
        """Decode heatmaps."""
        return self.chooser(heatmaps, affine)

    def decode_points(
        self, found: DecodedLandmarks, affine: np.ndarray | None, size: Sequence[int] | None
    ) -> DecodedLandmarks:
        """Choose among the candidates of an inferer."""
        if found.points.ndim != 3:
            raise ValueError(
                "A chain needs several candidates per landmark, but the inferer returned one point per landmark: use "
                "an inferer with num_peaks."
            )
        return self.chooser.choose(found, affine, size)


HeatmapToChainLandmarksD = HeatmapToChainLandmarksDict = HeatmapToChainLandmarksd
