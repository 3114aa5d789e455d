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


"""Sliding-window inference that ends in points, without stitched volumes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from monai.data.utils import compute_importance_map
from monai.inferers import SlidingWindowInferer, sliding_window_inference
from monai.utils import BlendMode, PytorchPadMode

from monai_landmarks.heatmaps import (
    Neighborhoods,
    check_decoding,
    cut_neighborhoods,
    decode_neighborhoods,
    find_maxima,
    local_maxima,
    neighborhood_radius,
    peak_reach,
    suppress_peaks,
)
from monai_landmarks.spaces import plain_tensor

__all__ = ["SlidingWindowLandmarkInferer"]

# voxels along an axis: smaller cells bound the maximum more closely, and are more of them
_CELL_SIZE = 16
# the maximum in a cell is seldom less than this share of the bound
_NEAR = 0.7
# a peak can lie in so many cells, those of a corner in 3-D
_CELLS_OF_PEAK = 8
# of a window's heatmaps, worked on at once
_VOXELS = 2**20

# what MONAI tells of a batch of windows: for each, slices of case, channels and spatial axes
Places = Sequence[Sequence[slice]]


class SlidingWindowLandmarkInferer(SlidingWindowInferer):
    """
    Sliding-window inference whose result is points, and which stitches no volume.

    Windows, their overlap and their blending are those of MONAI's ``SlidingWindowInferer``, and so is the result, decoded:
    but of the N stitched volumes, only small boxes around the candidates are ever made. ``HeatmapToLandmarksd`` takes the
    result in the place of heatmaps, applies its threshold, and goes to the world.

    The volume is cut into cells such that a window holds a cell whole or not at all. A first pass adds up, for each
    landmark and cell, the largest share of every window in the blended value: no value of the stitched volume in the cell
    is above that sum, nor above the largest value of a window. A second pass runs the windows that touch the best cells of
    any landmark once more, and stitches these cells. Where the maximum found there is below the bound of another cell, that
    one is looked at, too, up to ``candidates`` of them, in a third pass. So the network runs at most three times on a
    window, seldom more than twice, and once on all that lie apart from the landmarks.

    With ``num_peaks`` the result is several candidates of each landmark, as
    :func:`monai_landmarks.heatmaps.find_peaks` finds them in the stitched volume: for ``HeatmapToChainLandmarksd``, where a
    landmark may be taken for its neighbor. Then the second pass stitches all cells whose bounds are above ``threshold``, up
    to ``candidates`` of them, and there is no third.

    Memory, beside the network's own and the image: one volume of blending weights (not one a landmark), and a few boxes of
    at most 28 voxels along each axis (at the default radius in 3-D) for each landmark.

    Args:
        roi_size: size of a window; see MONAI's ``SlidingWindowInferer``, as for what follows.
        sw_batch_size: windows that the network runs on at once.
        overlap: share of a window that the next one overlaps, one number or one an axis.
        mode: ``"constant"`` or ``"gaussian"``: how overlapping windows are blended.
        sigma_scale: width of the Gaussian, as a share of the window.
        padding_mode: for images smaller than the window.
        cval: value for constant padding.
        sw_device: device of the windows. Default: that of the image.
        progress: print a bar.
        method: see :func:`monai_landmarks.heatmaps.decode_heatmaps`.
        radius: how far around the maximum the refinement looks, in voxels. Default 8 in 2-D, 6 in 3-D.
        candidates: at most so many cells are looked at for each landmark. Default 8, or 8 for each of ``num_peaks``.
        num_peaks: K, give the K highest peaks of each landmark in place of the highest voxel.
        min_distance: of peaks of one landmark, in voxels.
        threshold: a peak that is not above it does not count. A higher one saves runs of windows. Only for ``num_peaks``:
            otherwise ``HeatmapToLandmarksd`` has one.

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
        progress: bool = False,
        method: str = "gaussian",
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
        self.method = check_decoding(method)
        self.radius = radius
        self.candidates = candidates
        self.num_peaks, self.min_distance, self.threshold = num_peaks, min_distance, threshold

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            inputs: (B, C, *spatial).
            network: gives heatmaps of the size of its input.
            args: for the network.
            kwargs: for the network.

        Returns:
            ``points`` (B, N, D), index coordinates in the image; ``scores`` (B, N), the maximum of each blended map; and
            ``covariances`` (B, N, D, D) of each peak in square voxels. With ``num_peaks`` (B, N, K, D), (B, N, K) and
            (B, N, K, D, D), the highest first, NaN from where there are no more.

        Raises:
            ValueError: when the heatmaps have another size than the window.
        """
        spatial_dims = inputs.ndim - 2
        radius = neighborhood_radius(self.radius, spatial_dims)

        def heatmaps_of(windows: torch.Tensor) -> torch.Tensor:
            heatmaps = network(windows, *args, **kwargs)
            if heatmaps.shape[2:] != windows.shape[2:]:
                raise ValueError(
                    f"the network made heatmaps of size {tuple(heatmaps.shape[2:])} of a window of size "
                    f"{tuple(windows.shape[2:])}; sliding windows need the same size."
                )
            return plain_tensor(heatmaps)

        layout = self._layout(inputs)
        bounds = _Bounds(layout, len(inputs))
        self._walk(inputs, lambda windows, places: bounds.add(heatmaps_of(windows), places), self.progress)
        ranking = bounds.best(self.candidates)

        def stitch(boxes: Sequence[_Box]) -> None:
            if boxes:
                self._walk(inputs, partial(_stitch, layout, boxes, heatmaps_of))

        choose = self._highest if self.num_peaks is None else self._several
        every = choose(ranking, layout, radius, stitch)
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

    def _highest(self, ranking: _Ranking, layout: _Layout, radius: int, stitch: _Stitcher) -> list[_Candidate]:
        """The maximum of each landmark's map."""
        found: dict[tuple[int, int], _Candidate] = {}
        for _ in range(2):
            boxes = []
            for key, cells in ranking.items():
                taken = _next_cells(cells, found.get(key))
                ranking[key] = cells[len(taken) :]
                boxes += [_Box(layout, key, cell.cell, radius) for cell in taken]
            stitch(boxes)
            for box in boxes:
                candidate, best = box.candidate(layout, radius), found.get(box.key)
                if best is None or bool(candidate.score > best.score):
                    found[box.key] = candidate
        return [found[key] for key in sorted(found)]

    def _several(self, ranking: _Ranking, layout: _Layout, radius: int, stitch: _Stitcher) -> list[_Candidate]:
        """``num_peaks`` peaks of each landmark's map, one landmark after the other."""
        num_peaks = self.num_peaks or 1
        reach = peak_reach(self.min_distance, len(layout.inside))
        boxes = {
            key: [_Box(layout, key, cell.cell, max(radius, reach)) for cell in cells if cell.bound > self.threshold]
            for key, cells in ranking.items()
        }
        stitch([box for some in boxes.values() for box in some])
        result: list[_Candidate] = []
        for key in sorted(boxes):
            maxima = [
                (box, *box.maxima(layout, reach, num_peaks))
                for box in boxes[key]
                if box.exceeds(layout, self.threshold)
            ]
            taken: list[_Candidate] = []
            if maxima:
                values, places = (torch.cat(column) for column in list(zip(*maxima))[1:])
                owner = [box for box, found, _ in maxima for _ in range(len(found))]
                scores, index = suppress_peaks(values[None], places[None], self.min_distance, num_peaks)
                taken = [
                    owner[int(i)].candidate_at(layout, radius, places[i], score)
                    for score, i in zip(scores[0], index[0])
                    if score > self.threshold
                ]
            result += taken + [_no_candidate(layout, radius)] * (num_peaks - len(taken))
        return result

    def _walk(self, inputs: torch.Tensor, visit: Callable[[torch.Tensor, Places], Any], progress: bool = False) -> None:
        """Let MONAI cut all windows, and visit them in place of a network."""

        def predictor(windows: torch.Tensor, places: Places) -> torch.Tensor:
            visit(windows, places)
            return windows.new_zeros(len(windows), 1, *[1] * (windows.ndim - 2))  # something small for it to stitch

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

    def _layout(self, inputs: torch.Tensor) -> _Layout:
        places: list[tuple[slice, ...]] = []
        # one case of one channel, which takes no memory
        blank = torch.zeros((), device=inputs.device).expand(1, 1, *inputs.shape[2:])
        self._walk(blank, lambda _, batch: places.extend(tuple(place[2:]) for place in batch))
        roi_size = [axis.stop - axis.start for axis in places[0]]
        device = self.sw_device or inputs.device
        importance = compute_importance_map(tuple(roi_size), self.mode, self.sigma_scale, device, torch.float32)
        size = [max(axis.stop for axis in axes) for axes in zip(*places)]
        total = torch.zeros(size, device=device)
        for place in places:
            total[place] += importance
        # MONAI pads half of what is missing in front
        low = [(padded - own) // 2 for padded, own in zip(size, inputs.shape[2:])]
        inside = tuple(slice(start, start + own) for start, own in zip(low, inputs.shape[2:]))
        return _Layout(importance, total, inside, [_cuts(axes) for axes in zip(*places, inside)])


class _Layout(NamedTuple):
    """Where the windows lie, in the padded image."""

    importance: torch.Tensor  # (*window) how much the voxels of a window count
    total: torch.Tensor  # (*padded) sum of that over the windows
    inside: tuple[slice, ...]  # the image
    cuts: list[list[int]]  # per axis, where a cell ends and the next begins

    def share(self, place: tuple[slice, ...]) -> torch.Tensor:
        """Share of a window in the blended values."""
        return self.importance / self.total[place]


def _cuts(axes: Sequence[slice]) -> list[int]:
    """The ends of all windows along one axis, and between them as many more as make cells small."""
    ends = sorted({end for axis in axes for end in (axis.start, axis.stop)})
    cuts = ends[:1]
    for low, high in zip(ends, ends[1:]):
        pieces = -(-(high - low) // _CELL_SIZE)
        cuts += [low + (high - low) * piece // pieces for piece in range(1, pieces + 1)]
    return cuts


class _Cell(NamedTuple):
    """A cell, by its number along each axis, and what no value in it exceeds."""

    bound: float
    cell: list[int]


class _Bounds:
    """For each case, landmark and cell a number that no blended value there exceeds."""

    def __init__(self, layout: _Layout, num_cases: int) -> None:
        self.layout, self.num_cases = layout, num_cases
        # S = sum over the windows of share * h is at most the sum of the largest terms, and, as a mean, at most the largest h
        self.sums: torch.Tensor | None = None
        self.largest: torch.Tensor | None = None

    def add(self, heatmaps: torch.Tensor, places: Places) -> None:
        cuts = self.layout.cuts
        if self.sums is None or self.largest is None:
            cells = [len(axis) - 1 for axis in cuts]
            self.sums = heatmaps.new_zeros(self.num_cases, heatmaps.shape[1], *cells, dtype=torch.float32)
            self.largest = torch.full_like(self.sums, -torch.inf)
        for maps, (case, _, *axes) in zip(heatmaps, places):
            place = tuple(axes)
            share = self.layout.share(place)
            cells = [slice(bisect_left(c, a.start), bisect_left(c, a.stop)) for c, a in zip(cuts, place)]
            widths = [[high - low for low, high in zip(c[s], c[s.start + 1 : s.stop + 1])] for c, s in zip(cuts, cells)]
            # a few landmarks at a time: no copy of all heatmaps of the window
            step = max(1, _VOXELS // share.numel())
            for first in range(0, len(maps), step):
                some = maps[first : first + step].float()
                where = (case.start, slice(first, first + step), *cells)
                self.sums[where] += _cell_maxima(some * share, widths)
                self.largest[where] = torch.maximum(self.largest[where], _cell_maxima(some, widths))

    def best(self, candidates: int) -> dict[tuple[int, int], list[_Cell]]:
        """The cells of each case and landmark whose bounds are largest, falling."""
        assert self.sums is not None and self.largest is not None
        values = torch.minimum(self.sums, self.largest).cpu()
        for axis, (cuts, image) in enumerate(zip(self.layout.cuts, self.layout.inside), start=2):
            padding = torch.tensor([not image.start <= low < image.stop for low in cuts[:-1]])
            values = values.index_fill(axis, padding.nonzero()[:, 0], -torch.inf)
        bounds, index = values.flatten(2).topk(min(candidates, values[0, 0].numel()))
        cells = torch.stack(torch.unravel_index(index, values.shape[2:]), dim=-1).tolist()
        return {
            (case, landmark): [_Cell(*pair) for pair in zip(bounds[case, landmark].tolist(), cells[case][landmark])]
            for case in range(values.shape[0])
            for landmark in range(values.shape[1])
        }


def _cell_maxima(maps: torch.Tensor, widths: Sequence[Sequence[int]]) -> torch.Tensor:
    """Largest value of (n, *spatial) maps in each cell, whose widths along each axis are given."""
    for axis, parts in enumerate(widths, start=1):
        maps = torch.stack([part.amax(dim=axis) for part in maps.split(parts, axis)], dim=axis)
    return maps


class _Candidate(NamedTuple):
    """The maximum of a cell."""

    center: torch.Tensor  # (D,) index coordinates in the image
    score: torch.Tensor  # scalar
    window: Neighborhoods  # of one map


# the best cells of each case and landmark
_Ranking = dict[tuple[int, int], list[_Cell]]


def _no_candidate(layout: _Layout, radius: int) -> _Candidate:
    """What stands where a landmark has no more peaks: its score is NaN, and so will be all else."""
    blank = layout.total.new_zeros(1, *[1] * layout.total.ndim)
    center = torch.zeros(blank.ndim - 1, dtype=torch.long, device=blank.device)
    return _Candidate(center, blank.new_tensor(torch.nan), cut_neighborhoods(blank, center[None], radius))


def _next_cells(cells: Sequence[_Cell], best: _Candidate | None) -> Sequence[_Cell]:
    """
    The first of a landmark's cells, which are to be stitched in the next pass.

    At first those whose bounds come near the highest one: it is dearer to run a window once more than to stitch some cells in
    vain. Then all whose bounds are above the maximum that was found.
    """
    if best is None:
        return cells[: max(1, sum(cell.bound >= _NEAR * cells[0].bound for cell in cells))]
    return cells[: sum(cell.bound > float(best.score) for cell in cells)]


class _Box:
    """A part of one stitched map: a cell, and as much around it as is looked at to find and refine a maximum in it."""

    def __init__(self, layout: _Layout, key: tuple[int, int], cell: Sequence[int], margin: int) -> None:
        self.key = key  # case and landmark
        ends = [(cuts[index], cuts[index + 1]) for cuts, index in zip(layout.cuts, cell)]
        self.place = tuple(
            slice(max(low - margin, image.start), min(high + margin, image.stop))
            for (low, high), image in zip(ends, layout.inside)
        )
        self.cell = tuple(slice(low - box.start, high - box.start) for (low, high), box in zip(ends, self.place))
        self.values = layout.total.new_zeros([box.stop - box.start for box in self.place])

    def common(self, place: Sequence[slice]) -> tuple[slice, ...] | None:
        """What it has in common with a window, in the padded image; None where that is nothing."""
        both = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(self.place, place))
        return both if all(axis.start < axis.stop for axis in both) else None

    def candidate(self, layout: _Layout, radius: int) -> _Candidate:
        """The maximum of the cell, once all windows were added."""
        center, score = find_maxima(self._blended(layout)[(None, *self.cell)])
        place = center[0] + center.new_tensor([axis.start for axis in self.cell])
        return self.candidate_at(layout, radius, place + self._corner(layout), score[0])

    def exceeds(self, layout: _Layout, threshold: float) -> bool:
        """Whether a value of the cell is above a threshold, once all windows were added."""
        return bool((self._blended(layout)[self.cell] > threshold).any())

    def maxima(self, layout: _Layout, reach: int, num_peaks: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Local maxima of the cell and where they are in the image, once all windows were added."""
        values, places = local_maxima(self._blended(layout), reach, num_peaks, self.cell)
        return values, places + self._corner(layout)

    def candidate_at(self, layout: _Layout, radius: int, place: torch.Tensor, score: torch.Tensor) -> _Candidate:
        """A maximum in the image, with what lies around it."""
        center = place - self._corner(layout)
        return _Candidate(place, score, cut_neighborhoods(self._blended(layout)[None], center[None], radius))

    def _blended(self, layout: _Layout) -> torch.Tensor:
        return self.values / layout.total[self.place]

    def _corner(self, layout: _Layout) -> torch.Tensor:
        """Where the box begins in the image."""
        begin = [box.start - image.start for box, image in zip(self.place, layout.inside)]
        return torch.tensor(begin, device=self.values.device)


# lets the windows that touch some boxes run once more
_Stitcher = Callable[[Sequence[_Box]], None]


def _shifted(axes: Sequence[slice], origin: Sequence[slice]) -> tuple[slice, ...]:
    """Slices counted from where others begin."""
    return tuple(slice(axis.start - o.start, axis.stop - o.start) for axis, o in zip(axes, origin))


def _stitch(
    layout: _Layout,
    boxes: Sequence[_Box],
    heatmaps_of: Callable[[torch.Tensor], torch.Tensor],
    windows: torch.Tensor,
    places: Places,
) -> None:
    """Add what some windows tell of the boxes; the network runs on those that touch one."""
    touched = [
        [(box, common) for box in boxes if box.key[0] == case.start and (common := box.common(axes)) is not None]
        for case, _, *axes in places
    ]
    needed = [index for index, hits in enumerate(touched) if hits]
    if not needed:
        return
    for index, maps in zip(needed, heatmaps_of(windows[needed])):
        axes = places[index][2:]
        for box, common in touched[index]:
            part = _shifted(common, axes)
            box.values[_shifted(common, box.place)] += layout.importance[part] * maps[(box.key[1], *part)].float()
