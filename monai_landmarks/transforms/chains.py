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


"""Heatmaps of landmarks that follow each other, such as vertebrae, to points that do so."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_tensor

from monai_landmarks.heatmaps import DecodedLandmarks, choose_by_graph, choose_by_sequence, find_peaks, with_neighbors
from monai_landmarks.spaces import points_to_world

from .heatmap import HeatmapToLandmarksd

__all__ = [
    "HeatmapToChainLandmarks",
    "HeatmapToChainLandmarksD",
    "HeatmapToChainLandmarksDict",
    "HeatmapToChainLandmarksd",
]

# threshold of a candidate, as published
_THRESHOLDS = {"sequence": 0.25, "graph": 0.05}

Chains = Mapping[str, Sequence[str]] | Sequence[Sequence[str] | Sequence[int]]


class HeatmapToChainLandmarks(Transform):
    """
    Heatmaps to sub-pixel points of landmarks that follow each other in chains.

    Each map gives several candidates, and of each chain those are taken that fit together, by one of two published ways:
    :func:`monai_landmarks.heatmaps.choose_by_sequence` or :func:`monai_landmarks.heatmaps.choose_by_graph`. What does not
    fit is absent. A landmark of no chain is where its map is highest.

    Args:
        chains: landmarks of each chain in their order: names or row numbers; or the ``chains`` of a landmark schema.
        names: of all landmarks in their order; needed for chains by name.
        method: ``"sequence"`` or ``"graph"``.
        offsets: for ``"graph"``: for each chain the mean vectors from each landmark to the next in RAS mm, (n - 1, D), as
            :func:`monai_landmarks.heatmaps.chain_offsets` gives them for training landmarks.
        direction: for ``"sequence"``: vector in RAS along which the chains go, such as (0, 0, -1) from head to foot.
        num_peaks: candidates of each map.
        min_distance: of candidates of one map, in voxels.
        threshold: of a candidate. Default: as published, 0.25 for ``"sequence"`` and 0.05 for ``"graph"``, for heatmaps
            with a peak of about 1.
        min_factor: a candidate below this share of the highest of its map does not count.
        refinement: of a candidate to a fraction of a voxel, see :func:`monai_landmarks.heatmaps.decode_heatmaps`.
        radius: how far around a candidate the refinement looks, in voxels.
        options: further arguments of the way that was chosen, such as its distances.

    Raises:
        ValueError: for an unknown method, an unknown name, offsets that are not those of the chains, or a landmark in two
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
        method: str = "sequence",
        offsets: Sequence[Any] | None = None,
        direction: Sequence[float] | None = None,
        num_peaks: int = 5,
        min_distance: float = 7.0,
        threshold: float | None = None,
        min_factor: float = 0.1,
        refinement: str = "gaussian",
        radius: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if method not in _THRESHOLDS:
            raise ValueError(f"method must be one of {', '.join(_THRESHOLDS)}, got {method!r}.")
        self.chains = _rows(chains.values() if isinstance(chains, Mapping) else chains, names)
        self.method = method
        self.offsets = [torch.as_tensor(vectors).double() for vectors in offsets or ()]
        found = [len(vectors) + 1 for vectors in self.offsets]
        needed = [len(chain) for chain in self.chains] if method == "graph" else []
        if found != needed:
            raise ValueError(
                f"offsets are for chains of {found} landmarks, needed are those of {needed}."
                if needed
                else "offsets are for method='graph' only."
            )
        self.direction = direction
        self.num_peaks, self.min_distance, self.min_factor = num_peaks, min_distance, min_factor
        self.threshold = _THRESHOLDS[method] if threshold is None else threshold
        self.refinement, self.radius = refinement, radius
        self.options: dict[str, Any] = {"threshold": self.threshold} if method == "sequence" else {}
        self.options.update(options or {})

    def __call__(self, heatmaps: NdarrayOrTensor, affine: np.ndarray | None = None) -> DecodedLandmarks:
        """
        Args:
            heatmaps: (N, *spatial).
            affine: 4x4, of the image: index coordinates to RAS mm. None: a voxel is a cube of 1 mm.

        Returns:
            :class:`monai_landmarks.heatmaps.DecodedLandmarks` with points (N, D) in index coordinates, NaN where the landmark
            is absent; scores (N,), of the chosen candidate, or of the highest one where none was chosen; and
            covariances (N, D, D) in square voxels.
        """
        maps = convert_to_tensor(heatmaps, track_meta=False)
        peaks = find_peaks(
            maps,
            maps.ndim - 1,
            self.num_peaks,
            self.min_distance,
            self.threshold,
            method=self.refinement,
            radius=self.radius,
        )
        return self.choose(peaks, affine, maps.shape[1:])

    def choose(
        self, peaks: DecodedLandmarks, affine: np.ndarray | None = None, size: Sequence[int] | None = None
    ) -> DecodedLandmarks:
        """
        Take candidates that fit together.

        Args:
            peaks: candidates, points (N, K, D) in index coordinates, scores (N, K) and covariances (N, K, D, D), the highest
                first, NaN where there are no more: from :func:`monai_landmarks.heatmaps.find_peaks`, or an inferer with
                ``num_peaks``.
            affine: 4x4, of the image. None: a voxel is a cube of 1 mm.
            size: of the image. Without it a chain may begin at its border as elsewhere.

        Returns:
            as from heatmaps.
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
            if self.method == "graph":
                lent, scores = with_neighbors(world[rows], scores)
                chosen = choose_by_graph(lent, scores, self.offsets[number], **self.options)
                points, covariances = (_lent(values) for values in (points, covariances))
            else:
                extent = None if size is None else self._extent(size, affine)
                chosen = choose_by_sequence(world[rows], scores, self.direction, extent, **self.options)
            on_path = chosen >= 0
            place = torch.arange(len(rows), device=counts.device), chosen.clamp(min=0)
            result.points[rows] = torch.where(on_path[:, None], points[place], torch.nan)
            result.covariances[rows] = torch.where(on_path[:, None, None], covariances[place], torch.nan)
            result.scores[rows] = torch.where(on_path, scores[place], result.scores[rows])
        return result

    def _extent(self, shape: Sequence[int], affine: np.ndarray) -> tuple[float, float] | None:
        """Lowest and highest place in the image along the direction of the chains."""
        if self.direction is None:
            return None
        corners = np.array(list(itertools.product(*((0, size - 1) for size in shape))))
        along = points_to_world(corners, affine) @ np.asarray(self.direction, dtype=np.float64)
        return float(along.min()), float(along.max())


def _lent(values: torch.Tensor) -> torch.Tensor:
    """In the order of :func:`with_neighbors`, without its factor."""
    one = torch.ones(values.shape[:2], device=values.device)
    return with_neighbors(values, one)[0]


def _rows(chains: Any, names: Sequence[str] | None) -> list[list[int]]:
    """Row numbers of the landmarks of each chain."""
    order = {name: row for row, name in enumerate(names or ())}
    rows = []
    for chain in chains:
        unknown = [entry for entry in chain if isinstance(entry, str) and entry not in order]
        if unknown:
            raise ValueError(
                f"the chain {list(chain)} names {unknown[0]!r}, which is not among the names {list(order)}."
            )
        rows.append([order[entry] if isinstance(entry, str) else int(entry) for entry in chain])
    every = sorted(row for chain in rows for row in chain)
    twice = [row for row, following in zip(every, every[1:]) if row == following]
    if twice:
        raise ValueError(f"landmark {twice[0]} is in the chains more than once.")
    return rows


class HeatmapToChainLandmarksd(HeatmapToLandmarksd):
    """
    Dictionary form of :class:`HeatmapToChainLandmarks`, in the place of ``HeatmapToLandmarksd``; distances are in mm.

    Args:
        keys: heatmaps (N, *spatial), such as a network's ``"pred"`` after decollation. Or what an inferer that ends in
            points gives in their place with ``num_peaks``; then ``num_peaks``, ``min_distance``, ``refinement`` and
            ``radius`` are the inferer's.
        chains: see :class:`HeatmapToChainLandmarks`.
        names: see :class:`HeatmapToChainLandmarks`.
        method: see :class:`HeatmapToChainLandmarks`.
        offsets: see :class:`HeatmapToChainLandmarks`.
        direction: see :class:`HeatmapToChainLandmarks`.
        points_keys: see :class:`HeatmapToLandmarksd`.
        score_keys: see :class:`HeatmapToLandmarksd`.
        covariance_keys: see :class:`HeatmapToLandmarksd`.
        refer_keys: see :class:`HeatmapToLandmarksd`.
        space: see :class:`HeatmapToLandmarksd`.
        allow_missing_keys: do not raise when a key is missing.
        kwargs: further arguments of :class:`HeatmapToChainLandmarks`.

    Raises:
        ValueError: as :class:`HeatmapToLandmarksd` and :class:`HeatmapToChainLandmarks`; for the points of an inferer without
            ``num_peaks``, which has only one candidate.
    """

    backend = HeatmapToChainLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        chains: Chains,
        names: Sequence[str] | None = None,
        method: str = "sequence",
        offsets: Sequence[Any] | None = None,
        direction: Sequence[float] | None = None,
        points_keys: KeysCollection | None = None,
        score_keys: KeysCollection | None = None,
        covariance_keys: KeysCollection | None = None,
        refer_keys: KeysCollection | None = "image",
        space: str = "world",
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            keys, points_keys, score_keys, covariance_keys, refer_keys, space, allow_missing_keys=allow_missing_keys
        )
        self.chooser = HeatmapToChainLandmarks(chains, names, method, offsets, direction, **kwargs)

    def decode(self, heatmaps: NdarrayOrTensor, affine: np.ndarray | None) -> Sequence[NdarrayOrTensor]:
        """Points (N, D) in index coordinates, score and covariance."""
        return self.chooser(heatmaps, affine)

    def _present(
        self, found: Mapping[str, torch.Tensor], affine: np.ndarray | None, size: Sequence[int] | None
    ) -> Sequence[torch.Tensor]:
        if found["points"].ndim != 3:
            raise ValueError(
                "the candidates of a chain come from heatmaps, or from an inferer with num_peaks; this one gives one point a"
                " landmark."
            )
        return self.chooser.choose(DecodedLandmarks(*(found[name] for name in DecodedLandmarks._fields)), affine, size)


HeatmapToChainLandmarksD = HeatmapToChainLandmarksDict = HeatmapToChainLandmarksd
