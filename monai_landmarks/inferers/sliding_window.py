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


"""Sliding-window inference that returns points and does not stitch whole heatmaps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import SlidingWindowInferer, sliding_window_inference
from monai.utils import BlendMode, PytorchPadMode

from monai_landmarks.heatmaps import (
    DecodingMethod,
    Neighborhoods,
    cut_neighborhoods,
    decode_neighborhoods,
    find_maxima,
    local_maxima,
    neighborhood_radius,
    peak_reach,
    require_decoding_method,
    suppress_peaks,
)
from monai_landmarks.spaces import plain_tensor

from .heatmap_size import require_size_of

__all__ = ["SlidingWindowLandmarkInferer"]

# Largest size of a cell along each axis, in voxels. Smaller cells have closer bounds, but there are more of them.
_CELL_SIZE = 16
# The second pass stitches all cells whose bound is at least this share of the highest one. The maximum in a cell is
# rarely below this share of its bound, so that a third pass is rarely needed. Stitching a few cells more costs less
# than running the network on their windows once more. Cells below this share are not kept for the third pass.
_NEAR = 0.7
# Memory for blended values that are kept from the first pass for the next ones, in bytes.
_KEPT_BYTES = 2**27
# Default number of candidates per peak: a peak at the corner of a cell lies in eight cells in 3-D.
_CELLS_OF_PEAK = 8
# Voxels of heatmaps of a window that are worked on at once, to limit the memory of intermediate results.
_VOXELS = 2**20

# MONAI's coordinates of a batch of windows: for each window, slices of cases, channels and spatial axes
Places = Sequence[Sequence[slice]]


class SlidingWindowLandmarkInferer(SlidingWindowInferer):
    """Run the network on overlapping windows, and return points instead of stitched heatmaps.

    Windows, overlap and blending are those of MONAI's ``SlidingWindowInferer``, and the points are those of its
    stitched heatmaps. The result can differ if more than ``candidates`` parts of a heatmap could contain its maximum
    (or, with ``num_peaks``, a peak), as in noisy heatmaps without a clear maximum: the remaining parts are not
    stitched, and a landmark may be found at a lower maximum. Increase ``candidates`` for such heatmaps.

    The N heatmaps are stitched only in small boxes around the candidates for each maximum. ``HeatmapToLandmarksd``
    accepts the result in place of heatmaps, applies its threshold and transforms the points to the world.

    The volume is divided into cells, such that every window includes a cell as a whole or not at all. The network runs
    in up to three passes:

    1. All windows. For each landmark and cell, the pass computes an upper bound of the blended values: the sum over the
       windows of the largest weighted value in the cell, or the largest value of any window, whichever is smaller.
    2. The windows that overlap the best cells of any landmark. The pass stitches these cells and finds their maximum.
    3. The windows that overlap other cells whose bound is above this maximum, up to ``candidates`` cells per landmark.
       The pass stitches them, too. It is rarely needed.

    The first pass blends the heatmaps cell by cell, and keeps what the next passes may need, in up to 128 MiB. If more
    is needed, it drops the cells that are least likely to hold the maximum. The network runs again only on the windows
    of cells that were dropped and are needed after all. If the stitched heatmaps need several times this memory, these
    can be most of the windows.

    With ``num_peaks``, the result has several candidates per landmark, those that
    :func:`monai_landmarks.heatmaps.find_peaks` finds in the stitched heatmaps. ``HeatmapToChainLandmarksd`` uses them
    where a landmark can be mistaken for its neighbor. The second pass then stitches all cells whose bound is above
    ``threshold``, up to ``candidates`` of them, and there is no third pass.

    Besides the network and the image, this needs the memory of one volume of blending weights for all landmarks, of a
    few boxes per landmark, of at most 28 voxels per axis (at the default radius in 3-D), and of what is kept.

    Args:
        roi_size: size of a window. See MONAI's ``SlidingWindowInferer`` for this argument and the next nine.
        sw_batch_size: number of windows per run of the network.
        overlap: share of a window by which the next one overlaps it, one number or one per axis.
        mode: blending of overlapping windows, ``"constant"`` or ``"gaussian"``.
        sigma_scale: width of the Gaussian as a share of the window.
        padding_mode: padding of images that are smaller than the window.
        cval: value for constant padding.
        sw_device: device of the windows, on which the network runs. Default: that of the image.
        device: device of the blending weights and of the boxes that are stitched, for example the CPU for a large
            volume. Default: that of the windows.
        progress: print a progress bar.
        method: see :func:`monai_landmarks.heatmaps.decode_heatmaps`.
        radius: of the neighborhood that the refinement uses, in voxels. Default: 8 in 2-D and 6 in 3-D.
        candidates: largest number of cells per landmark that are stitched. Default: 8, times ``num_peaks`` if given. If
            it is too small for the bounds of a heatmap, the maximum may be missed.
        num_peaks: K, return the K highest peaks of each map instead of its maximum.
        min_distance: smallest distance of the peaks of one map, in voxels. Only for ``num_peaks``.
        threshold: a peak that is not above it does not count. A higher threshold saves runs of the network. Only for
            ``num_peaks``; without it, the threshold is that of ``HeatmapToLandmarksd``.

    Raises:
        ValueError: for an unknown method, fewer than one candidate or peak, or a negative distance.

    Example:
        >>> inferer = SlidingWindowLandmarkInferer(roi_size=(16, 16), overlap=0.5, mode="gaussian")
        >>> inferer(torch.rand(1, 1, 40, 30), torch.nn.Conv2d(1, 3, 3, padding=1))["points"].shape
        torch.Size([1, 3, 2])
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int,
        sw_batch_size: int = 1,
        overlap: Sequence[float] | float = 0.25,
        mode: BlendMode | str = BlendMode.CONSTANT,
        sigma_scale: Sequence[float] | float = 0.125,
        padding_mode: PytorchPadMode | str = PytorchPadMode.CONSTANT,
        cval: float = 0.0,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        method: DecodingMethod = "gaussian",
        radius: int | None = None,
        candidates: int | None = None,
        num_peaks: int | None = None,
        min_distance: float = 7.0,
        threshold: float = 0.0,
    ) -> None:
        super().__init__(
            roi_size,
            sw_batch_size,
            overlap,
            mode,
            sigma_scale,
            padding_mode,
            cval,
            sw_device,
            device,
            progress=progress,
            with_coord=True,
        )
        if candidates is None:
            candidates = _CELLS_OF_PEAK * (num_peaks or 1)
        if candidates < 1 or (num_peaks is not None and num_peaks < 1) or min_distance < 0:
            raise ValueError(
                "candidates and num_peaks must be at least 1 and min_distance not negative, got "
                f"{candidates}, {num_peaks} and {min_distance}."
            )
        require_decoding_method(method)
        self.method: DecodingMethod = method
        self.radius = radius
        self.candidates = candidates
        self.num_peaks, self.min_distance, self.threshold = num_peaks, min_distance, threshold

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Run the network on the windows and decode the blended heatmaps.

        Args:
            inputs: (B, C, *spatial).
            network: returns heatmaps (B, N, *spatial) of the size of its input.
            args: further arguments of the network.
            kwargs: further arguments of the network.

        Returns:
            ``points`` (B, N, D), index coordinates in the image; ``scores`` (B, N), the maximum of each blended map;
            and ``covariances`` (B, N, D, D) of each peak in square voxels. With ``num_peaks`` their shapes are (B, N,
            K, D), (B, N, K) and (B, N, K, D, D), the highest peak first, NaN where a map has fewer peaks.

        Raises:
            ValueError: if the heatmaps have another size than the window.
        """
        spatial_dims = inputs.ndim - 2
        radius = neighborhood_radius(self.radius, spatial_dims)

        def heatmaps_of(windows: torch.Tensor) -> torch.Tensor:
            heatmaps = network(windows, *args, **kwargs)
            require_size_of(windows, heatmaps)
            return plain_tensor(heatmaps).to(self._stitching_device(inputs))

        layout = self._layout(inputs)
        margin = radius if self.num_peaks is None else max(radius, peak_reach(self.min_distance, spatial_dims))
        bounds = _Bounds(layout, len(inputs))
        kept = _Kept(layout, bounds, margin, self.candidates, None if self.num_peaks is None else self.threshold)

        def visit(windows: torch.Tensor, places: Places) -> None:
            heatmaps = heatmaps_of(windows)
            bounds.add(heatmaps, places)
            kept.add(heatmaps, places)

        self._walk(inputs, visit, self.progress)
        ranking = bounds.best(self.candidates)

        def stitch(boxes: Sequence[_Box]) -> None:
            missing = kept.stitch(boxes)
            if missing:
                self._walk(inputs, partial(_stitch, layout, missing, heatmaps_of))

        choose = self._highest if self.num_peaks is None else self._several
        every = choose(ranking, layout, radius, margin, stitch)
        windows = [candidate.window for candidate in every]
        decoded = decode_neighborhoods(
            Neighborhoods(
                windows[0].offsets, torch.cat([w.values for w in windows]), torch.cat([w.inside for w in windows])
            ),
            torch.stack([candidate.center for candidate in every]),
            torch.stack([candidate.score for candidate in every]),
            self.method,
            None,
            radius,
        )
        lead = (len(inputs), len(ranking) // len(inputs), *([] if self.num_peaks is None else [self.num_peaks]))
        return {
            name: result.reshape(*lead, *result.shape[1:]).to(inputs.device)
            for name, result in decoded._asdict().items()
        }

    def _highest(
        self, ranking: _Ranking, layout: _Layout, radius: int, margin: int, stitch: _Stitcher
    ) -> list[_Candidate]:
        """Find the maximum of each map, in the second and, where needed, the third pass."""
        found: dict[tuple[int, int], _Candidate] = {}
        scores: dict[tuple[int, int], float] = {}
        for _ in range(2):
            boxes = []
            for key, cells in ranking.items():
                taken = _next_cells(cells, scores.get(key))
                ranking[key] = cells[len(taken) :]
                boxes += [_Box(layout, key, cell.cell, margin) for cell in taken]
            stitch(boxes)
            candidates = [box.candidate(layout, radius) for box in boxes]
            for box, candidate, score in zip(boxes, candidates, _numbers([c.score for c in candidates])):
                # not "if score > best": a score of NaN counts if there is no other
                if box.key not in found or score > scores[box.key]:
                    found[box.key], scores[box.key] = candidate, score
        return [found[key] for key in sorted(found)]

    def _several(
        self, ranking: _Ranking, layout: _Layout, radius: int, margin: int, stitch: _Stitcher
    ) -> list[_Candidate]:
        """Find ``num_peaks`` peaks of each map, in the second pass."""
        num_peaks = self.num_peaks or 1
        reach = peak_reach(self.min_distance, len(layout.inside))
        boxes = {
            key: [_Box(layout, key, cell.cell, margin) for cell in cells if cell.bound > self.threshold]
            for key, cells in ranking.items()
        }
        every = [box for some in boxes.values() for box in some]
        stitch(every)
        highest = dict(zip(map(id, every), _numbers([box.highest(layout) for box in every])))
        # per map: the boxes of its local maxima, their places, and values and numbers of the peaks among them
        peaks: dict[tuple[int, int], tuple[list[_Box], torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        for key, some in boxes.items():
            maxima = [(box, *box.maxima(layout, reach, num_peaks)) for box in some if highest[id(box)] > self.threshold]
            if maxima:
                values, places = (torch.cat(column) for column in list(zip(*maxima))[1:])
                owner = [box for box, found, _ in maxima for _ in range(len(found))]
                scores, index = suppress_peaks(values[None], places[None], self.min_distance, num_peaks)
                peaks[key] = owner, places, scores[0], index[0]
        chosen = [torch.stack([scores.double(), index.double()]) for *_, scores, index in peaks.values()]
        numbers = dict(zip(peaks, torch.stack(chosen).tolist() if chosen else []))
        result: list[_Candidate] = []
        for key in sorted(boxes):
            taken: list[_Candidate] = []
            if key in peaks:
                owner, places, scores, index = peaks[key]
                taken = [
                    owner[int(number)].candidate_at(layout, radius, places[i], score)
                    for i, score, value, number in zip(index, scores, *numbers[key])
                    if value > self.threshold
                ]
            result += taken + [_no_candidate(layout, radius)] * (num_peaks - len(taken))
        return result

    def _walk(self, inputs: torch.Tensor, visit: Callable[[torch.Tensor, Places], Any], progress: bool = False) -> None:
        """Let MONAI cut all windows, and call ``visit`` instead of a network."""

        def predictor(windows: torch.Tensor, places: Places) -> torch.Tensor:
            visit(windows, places)
            # MONAI stitches what a network returns: something small
            return windows.new_zeros(len(windows), 1, *[1] * (windows.ndim - 2))

        sliding_window_inference(
            plain_tensor(inputs),
            self.roi_size,
            self.sw_batch_size,
            predictor,
            self.overlap,
            self.mode,
            self.sigma_scale,
            self.padding_mode,
            self.cval,
            self.sw_device,
            progress=progress,
            with_coord=True,
        )

    def _stitching_device(self, inputs: torch.Tensor) -> torch.device | str:
        return self.device or self.sw_device or inputs.device

    def _layout(self, inputs: torch.Tensor) -> _Layout:
        """Find out where MONAI puts the windows, without a network."""
        places: list[tuple[slice, ...]] = []
        # one case with one channel, expanded from a single value so that it takes no memory
        blank = torch.zeros((), device=inputs.device).expand(1, 1, *inputs.shape[2:])
        self._walk(blank, lambda _, batch: places.extend(tuple(place[2:]) for place in batch))
        roi_size = [axis.stop - axis.start for axis in places[0]]
        device = self._stitching_device(inputs)
        importance = compute_importance_map(tuple(roi_size), self.mode, self.sigma_scale, device, torch.float32)
        size = [max(axis.stop for axis in axes) for axes in zip(*places)]
        total = torch.zeros(size, device=device)
        for place in places:
            total[place] += importance
        # MONAI pads half of what is missing in front
        low = [(padded - own) // 2 for padded, own in zip(size, inputs.shape[2:])]
        inside = tuple(slice(start, start + own) for start, own in zip(low, inputs.shape[2:]))
        windows = [(case, *place) for case in range(len(inputs)) for place in places]
        return _Layout(importance, total, inside, [_cuts(axes) for axes in zip(*places, inside)], windows)


class _Layout(NamedTuple):
    """Positions of windows and cells in the padded image.

    Attributes:
        importance: (*window) blending weights of a window.
        total: (*padded) sum of the blending weights of all windows.
        inside: position of the image in the padded image.
        cuts: per axis, the borders of the cells.
        windows: case and position of each window in the padded image.
    """

    importance: torch.Tensor
    total: torch.Tensor
    inside: tuple[slice, ...]
    cuts: list[list[int]]
    windows: list[tuple[Any, ...]]

    def share(self, place: tuple[slice, ...]) -> torch.Tensor:
        """Return the factor of each value of a window in the blended value."""
        return self.importance / self.total[place]

    def cells(self, place: Sequence[slice]) -> tuple[slice, ...]:
        """Return per axis which cells a part of the padded image touches."""
        return tuple(_touched(cuts, axis.start, axis.stop) for cuts, axis in zip(self.cuts, place))

    def extent(self, cell: Sequence[int]) -> tuple[slice, ...]:
        """Return the position of a cell in the padded image."""
        return tuple(slice(cuts[index], cuts[index + 1]) for cuts, index in zip(self.cuts, cell))

    def coverage(self) -> np.ndarray:
        """Return how many windows of a case include each cell."""
        count = np.zeros([len(cuts) - 1 for cuts in self.cuts], dtype=np.int64)
        for case, *place in self.windows:
            if case == 0:
                count[self.cells(place)] += 1
        return count


def _cuts(axes: Sequence[slice]) -> list[int]:
    """Return the borders of cells along one axis: the ends of all windows, and more where these are far apart."""
    ends = sorted({end for axis in axes for end in (axis.start, axis.stop)})
    cuts = ends[:1]
    for low, high in zip(ends, ends[1:]):
        pieces = -(-(high - low) // _CELL_SIZE)
        cuts += [low + (high - low) * piece // pieces for piece in range(1, pieces + 1)]
    return cuts


def _touched(cuts: Sequence[int], start: int, stop: int) -> slice:
    """Return which cells an interval touches."""
    return slice(max(bisect_right(cuts, start) - 1, 0), min(bisect_left(cuts, stop), len(cuts) - 1))


def _each(cells: Sequence[slice]) -> Iterator[tuple[int, ...]]:
    """Return the number of each cell along each axis."""
    return product(*[range(axis.start, axis.stop) for axis in cells])


class _Cell(NamedTuple):
    """A cell, by its number along each axis, with an upper bound of the blended values in it."""

    bound: float
    cell: list[int]


class _Bounds:
    """Upper bounds of the blended values, per case, landmark and cell."""

    def __init__(self, layout: _Layout, num_cases: int) -> None:
        self.layout, self.num_cases = layout, num_cases
        # A blended value is the sum over the windows of share * h. It is at most the sum of the largest terms in the
        # cell. As a weighted mean, it is also at most the largest h.
        self.sums: torch.Tensor | None = None
        self.largest: torch.Tensor | None = None

    def add(self, heatmaps: torch.Tensor, places: Places) -> None:
        """Include the heatmaps of some windows."""
        cuts = self.layout.cuts
        if self.sums is None or self.largest is None:
            cells = [len(axis) - 1 for axis in cuts]
            self.sums = heatmaps.new_zeros(self.num_cases, heatmaps.shape[1], *cells, dtype=torch.float32)
            self.largest = torch.full_like(self.sums, -torch.inf)
        for maps, (case, _, *axes) in zip(heatmaps, places):
            place = tuple(axes)
            share = self.layout.share(place)
            cells = self.layout.cells(place)
            widths = [[high - low for low, high in zip(c[s], c[s.start + 1 : s.stop + 1])] for c, s in zip(cuts, cells)]
            # a few landmarks at a time, to avoid a copy of all heatmaps of the window
            step = max(1, _VOXELS // share.numel())
            for first in range(0, len(maps), step):
                some = maps[first : first + step].float()
                where = (case.start, slice(first, first + step), *cells)
                self.sums[where] += _cell_maxima(some * share, widths)
                self.largest[where] = torch.maximum(self.largest[where], _cell_maxima(some, widths))

    def values(self, complete: torch.Tensor | None = None) -> torch.Tensor:
        """Return the bounds (B, N, *cells) on the CPU, -inf in the padding.

        Args:
            complete: (B, 1, *cells) whether all windows of a cell are included. Until then it has no bound, and the
                largest value so far is returned. Default: all cells are complete.
        """
        assert self.sums is not None and self.largest is not None
        values = torch.minimum(self.sums, self.largest).cpu()
        if complete is not None:
            values = torch.where(complete, values, self.largest.cpu())
        for axis, (cuts, image) in enumerate(zip(self.layout.cuts, self.layout.inside), start=2):
            padding = torch.tensor([not image.start <= low < image.stop for low in cuts[:-1]])
            values = values.index_fill(axis, padding.nonzero()[:, 0], -torch.inf)
        return values

    def best(self, candidates: int) -> dict[tuple[int, int], list[_Cell]]:
        """Return the cells with the largest bounds per case and landmark, in descending order."""
        values = self.values()
        bounds, index = values.flatten(2).topk(min(candidates, values[0, 0].numel()))
        cells = torch.stack(torch.unravel_index(index, values.shape[2:]), dim=-1).tolist()
        return {
            (case, landmark): [_Cell(*pair) for pair in zip(bounds[case, landmark].tolist(), cells[case][landmark])]
            for case in range(values.shape[0])
            for landmark in range(values.shape[1])
        }


def _cell_maxima(maps: torch.Tensor, widths: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the largest value of maps (n, *spatial) in each cell, for cells of given widths along each axis."""
    for axis, parts in enumerate(widths, start=1):
        maps = torch.stack([part.amax(dim=axis) for part in maps.split(parts, axis)], dim=axis)
    return maps


class _Part(NamedTuple):
    """Sums of the weighted values of the windows in one cell.

    Attributes:
        landmarks: (n,) numbers of the landmarks that are kept, ascending.
        sums: (n, *cell).
    """

    landmarks: np.ndarray
    sums: torch.Tensor

    def select(self, mask: np.ndarray) -> _Part:
        """Return the part with some of its landmarks."""
        return self if mask.all() else _Part(self.landmarks[mask], self.sums[torch.from_numpy(np.flatnonzero(mask))])


class _Kept:
    """Blended values of the cells that may be needed, as many as fit into the memory for them.

    Args:
        layout: positions of windows and cells.
        bounds: of the values in the cells. They include a window before it is added here.
        margin: of the boxes that will be filled, in voxels.
        candidates: largest number of boxes per landmark.
        threshold: of the bound, for a box. None: it depends on the highest bound, see ``_NEAR``.
    """

    def __init__(self, layout: _Layout, bounds: _Bounds, margin: int, candidates: int, threshold: float | None) -> None:
        self.layout, self.bounds, self.candidates, self.threshold = layout, bounds, candidates, threshold
        self.coverage = layout.coverage()
        # windows that were added, per case and cell
        self.added = np.zeros((bounds.num_cases, *self.coverage.shape), dtype=np.int64)
        self.parts: dict[tuple[int, ...], _Part] = {}
        self.size, self.limit = 0, _KEPT_BYTES // 8
        # per axis and cell, the cells whose boxes touch it
        self.near = [
            [_touched(cuts, low - margin, high + margin) for low, high in zip(cuts, cuts[1:])] for cuts in layout.cuts
        ]

    def add(self, heatmaps: torch.Tensor, places: Places) -> None:
        """Add the heatmaps of some windows."""
        for maps, (case, _, *place) in zip(heatmaps, places):
            for cell in _each(self.layout.cells(place)):
                key = (case.start, *cell)
                self.added[key] += 1
                part = self.parts.get(key)
                if part is None and self.added[key] > 1:  # it was dropped
                    continue
                where = _shifted(self.layout.extent(cell), place)
                some = maps[(slice(None), *where)]
                if part is not None and len(part.landmarks) < len(maps):
                    some = some[torch.from_numpy(part.landmarks)]
                sums = some.float() * self.layout.importance[where]
                if part is not None:
                    part.sums.add_(sums)
                    continue
                self.parts[key] = _Part(np.arange(len(maps)), sums)
                self.size += sums.nbytes
                if self.size > self.limit:
                    self._drop()

    def stitch(self, boxes: Sequence[_Box]) -> dict[tuple[int, ...], list[_Box]]:
        """Fill the boxes of which every cell is kept.

        Args:
            boxes: parts of blended maps, empty.

        Returns:
            For each window that overlaps other boxes, these boxes.
        """
        missing: dict[tuple[int, ...], list[_Box]] = {}
        for box in boxes:
            if not self._fill(box):
                for window in self.layout.windows:
                    if window[0] == box.key[0] and box.common(window[1:]) is not None:
                        missing.setdefault(_key(window), []).append(box)
        return missing

    def _fill(self, box: _Box) -> bool:
        case, landmark = box.key
        found = []
        for cell in _each(self.layout.cells(box.place)):
            part = self.parts.get((case, *cell))
            if part is None or landmark not in part.landmarks:
                return False
            place = self.layout.extent(cell)
            found.append((place, part.sums[int(np.searchsorted(part.landmarks, landmark))]))
        for place, sums in found:
            common = box.common(place)
            assert common is not None
            box.values[_shifted(common, box.place)] = sums[_shifted(common, place)]
        return True

    def _drop(self) -> None:
        """Drop what is not needed and, if the memory is full, a quarter of it: what is least likely to be needed."""
        chances = self._chances()
        chance = np.concatenate([chances[(k[0], part.landmarks, *k[1:])] for k, part in self.parts.items()])
        size = np.concatenate([np.full(len(part.landmarks), part.sums[0].nbytes) for part in self.parts.values()])
        kept = chance > -np.inf
        if self.size > _KEPT_BYTES:
            order = np.argsort(-chance, kind="stable")
            kept[order] &= np.cumsum(size[order]) <= 3 * _KEPT_BYTES // 4
        ends = np.cumsum([len(part.landmarks) for part in self.parts.values()])
        self.parts = {
            key: part.select(mask)
            for (key, part), mask in zip(self.parts.items(), np.split(kept, ends[:-1]))
            if mask.any()
        }
        self.size = int(size[kept].sum())
        # rarely: it takes time
        self.limit = min(_KEPT_BYTES, max(2 * self.size, _KEPT_BYTES // 8))

    def _chances(self) -> np.ndarray:
        """Return how likely it is that cells are needed (B, N, *cells): 0 at best, -inf where they are not needed.

        The measure is the highest value so far in any box that touches the cell, relative to the highest one of the
        landmark. It decides which windows run again if memory is short, and never the result.
        """
        complete = (self.added == self.coverage)[:, None]
        values = self.bounds.values(torch.from_numpy(complete)).numpy()
        axes = tuple(range(2, values.ndim))
        best = values.max(axis=axes, keepdims=True)
        with np.errstate(invalid="ignore", over="ignore"):
            chances = (values - best) / np.maximum(abs(best), np.finfo(np.float32).tiny)
        # before its first window, a cell counts like one of value 0; NaN is above all other values
        chances = np.where((self.added == 0)[:, None], -1.0, np.where(np.isnan(chances), 0.0, chances))
        # a complete cell gets no box if enough complete ones are higher, or if it is too low
        bounds = np.where(complete, values, -np.inf)
        flat = bounds.reshape(*bounds.shape[:2], -1)
        count = min(self.candidates, flat.shape[2])
        lowest = np.partition(flat, -count, axis=2)[..., -count].reshape(best.shape)
        highest = bounds.max(axis=axes, keepdims=True)
        low = values < np.minimum(highest, _NEAR * highest) if self.threshold is None else values <= self.threshold
        chances = np.where(complete & (low | (values < lowest)), -np.inf, chances)
        for axis, near in enumerate(self.near, start=2):
            slices = np.moveaxis(chances, axis, 0)
            chances = np.moveaxis(np.stack([slices[cells].max(axis=0) for cells in near]), 0, axis)
        return chances


def _key(window: Sequence[Any]) -> tuple[int, ...]:
    """Return the case and the first voxel of a window; slices have no hash."""
    case, *axes = window
    return (case, *[axis.start for axis in axes])


class _Candidate(NamedTuple):
    """A local maximum of a blended map.

    Attributes:
        center: (D,) index coordinates in the image.
        score: scalar.
        window: neighborhood of the maximum.
    """

    center: torch.Tensor
    score: torch.Tensor
    window: Neighborhoods


# the best cells per case and landmark
_Ranking = dict[tuple[int, int], list[_Cell]]


def _no_candidate(layout: _Layout, radius: int) -> _Candidate:
    """Return a placeholder for a map with fewer peaks. Its score is NaN, so that point and covariance become NaN."""
    blank = layout.total.new_zeros(1, *[1] * layout.total.ndim)
    center = torch.zeros(blank.ndim - 1, dtype=torch.long, device=blank.device)
    return _Candidate(center, blank.new_tensor(torch.nan), cut_neighborhoods(blank, center[None], radius))


def _numbers(scalars: Sequence[torch.Tensor]) -> list[float]:
    """Return the values of some scalars on one device, which is asked once."""
    return torch.stack(list(scalars)).tolist() if scalars else []


def _next_cells(cells: Sequence[_Cell], best: float | None) -> Sequence[_Cell]:
    """Return the first of a landmark's cells, those to stitch in the next pass.

    In the second pass (``best`` is None), these are the cells whose bound is near the highest one, see ``_NEAR``. In
    the third pass, they are the cells whose bound is above the maximum found so far.
    """
    if best is None:
        return cells[: max(1, sum(cell.bound >= _NEAR * cells[0].bound for cell in cells))]
    return cells[: sum(cell.bound > best for cell in cells)]


class _Box:
    """A part of one blended map: a cell, with a margin for the refinement of a maximum in it.

    Args:
        layout: positions of windows and cells.
        key: case and landmark.
        cell: number of the cell along each axis.
        margin: in voxels.
    """

    def __init__(self, layout: _Layout, key: tuple[int, int], cell: Sequence[int], margin: int) -> None:
        self.key = key
        ends = [(cuts[index], cuts[index + 1]) for cuts, index in zip(layout.cuts, cell)]
        self.place = tuple(
            slice(max(low - margin, image.start), min(high + margin, image.stop))
            for (low, high), image in zip(ends, layout.inside)
        )
        self.cell = tuple(slice(low - box.start, high - box.start) for (low, high), box in zip(ends, self.place))
        self.values = layout.total.new_zeros([box.stop - box.start for box in self.place])

    def common(self, place: Sequence[slice]) -> tuple[slice, ...] | None:
        """Return the overlap with a window, in coordinates of the padded image, or None."""
        both = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(self.place, place))
        return both if all(axis.start < axis.stop for axis in both) else None

    def add(self, axes: Sequence[slice], importance: torch.Tensor, heatmaps: torch.Tensor) -> None:
        """Add a window that overlaps the box.

        Args:
            axes: position of the window in the padded image.
            importance: (*window) blending weights of a window.
            heatmaps: (N, *window).
        """
        common = self.common(axes)
        assert common is not None
        part = _shifted(common, axes)
        self.values[_shifted(common, self.place)] += importance[part] * heatmaps[(self.key[1], *part)].float()

    def candidate(self, layout: _Layout, radius: int) -> _Candidate:
        """Return the maximum of the cell. All windows must have been added."""
        center, score = find_maxima(self._blended(layout)[(None, *self.cell)])
        place = center[0] + center.new_tensor([axis.start for axis in self.cell])
        return self.candidate_at(layout, radius, place + self._corner(layout), score[0])

    def highest(self, layout: _Layout) -> torch.Tensor:
        """Return the highest value of the cell. All windows must have been added."""
        return self._blended(layout)[self.cell].amax()

    def maxima(self, layout: _Layout, reach: int, num_peaks: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the local maxima of the cell and their places in the image. All windows must have been added."""
        values, places = local_maxima(self._blended(layout), reach, num_peaks, self.cell)
        return values, places + self._corner(layout)

    def candidate_at(self, layout: _Layout, radius: int, place: torch.Tensor, score: torch.Tensor) -> _Candidate:
        """Return a maximum with its neighborhood."""
        center = place - self._corner(layout)
        return _Candidate(place, score, cut_neighborhoods(self._blended(layout)[None], center[None], radius))

    def _blended(self, layout: _Layout) -> torch.Tensor:
        return self.values / layout.total[self.place]

    def _corner(self, layout: _Layout) -> torch.Tensor:
        """Return the first voxel of the box in the image."""
        begin = [box.start - image.start for box, image in zip(self.place, layout.inside)]
        return torch.tensor(begin, device=self.values.device)


# runs the network on the windows that overlap some boxes, and adds them to the boxes
_Stitcher = Callable[[Sequence[_Box]], None]


def _shifted(axes: Sequence[slice], origin: Sequence[slice]) -> tuple[slice, ...]:
    """Return slices relative to the start of others."""
    return tuple(slice(axis.start - o.start, axis.stop - o.start) for axis, o in zip(axes, origin))


def _stitch(
    layout: _Layout,
    missing: dict[tuple[int, ...], list[_Box]],
    heatmaps_of: Callable[[torch.Tensor], torch.Tensor],
    windows: torch.Tensor,
    places: Places,
) -> None:
    """Run the network once more on the windows that are missing in some boxes, and add them to these boxes."""
    touched = [missing.get(_key((case.start, *axes)), []) for case, _, *axes in places]
    needed = [index for index, boxes in enumerate(touched) if boxes]
    if not needed:
        return
    for index, maps in zip(needed, heatmaps_of(windows[needed])):
        for box in touched[index]:
            box.add(places[index][2:], layout.importance, maps)
