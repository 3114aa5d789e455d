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


"""Rules that choose, among candidates of ordered landmarks such as vertebrae, those that fit together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

__all__ = ["chain_offsets", "choose_by_evidence", "choose_by_graph", "choose_by_sequence", "with_neighbors"]

# gain of a forbidden step
_NEVER = -torch.inf


def _best_path(start: torch.Tensor, edges: Sequence[torch.Tensor]) -> torch.Tensor:
    """Find the path of largest gain through consecutive landmarks of a chain. It may begin and end at any landmark.

    Args:
        start: (n, K) gain of a path that begins at a candidate and ends there.
        edges: n - 1 matrices (K, K), gain of a step from a candidate to one of the next landmark.

    Returns:
        (n,) number of the candidate of each landmark on the path, -1 for a landmark that is not on it.
    """
    total, parents = start[0], [torch.full(start[0].shape, -1, device=start.device)]
    best, end = total.max(dim=0).values, (0, total.argmax(dim=0))
    for index, edge in enumerate(edges, start=1):
        gain, parent = (total[:, None] + edge).max(dim=0)
        goes_on = gain > start[index]
        total = torch.where(goes_on, gain, start[index])
        parents.append(torch.where(goes_on, parent, -1))
        if total.max() > best:
            best, end = total.max(dim=0).values, (index, total.argmax(dim=0))
    chosen = torch.full(start.shape[:1], -1, device=start.device)
    landmark, candidate = end[0], int(end[1])
    if best == _NEVER:
        return chosen
    while candidate >= 0:
        chosen[landmark] = candidate
        landmark, candidate = landmark - 1, int(parents[landmark][candidate])
    return chosen


def _ensure_candidates(points: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points and scores in float64; the score of a missing candidate is -inf, its point zero."""
    if points.ndim != 3 or points.shape[:2] != scores.shape or 0 in scores.shape:
        raise ValueError(
            f"candidates of a chain must be points (n, K, D) and scores (n, K), got {tuple(points.shape)} and "
            f"{tuple(scores.shape)}."
        )
    points, scores = points.detach().double(), scores.detach().double()
    missing = points.isnan().any(dim=-1) | scores.isnan()
    return torch.where(missing[..., None], 0.0, points), torch.where(missing, _NEVER, scores)


def _between(value: torch.Tensor, limits: Sequence[float]) -> torch.Tensor:
    low, high = limits
    return (value > low) & (value < high)


def choose_by_sequence(
    points: torch.Tensor,
    scores: torch.Tensor,
    direction: Sequence[float] | None = None,
    extent: Sequence[float] | None = None,
    threshold: float = 0.25,
    start_threshold: float = 0.5,
    border: float = 15.0,
    distance: Sequence[float] = (12.5, 50.0),
    end_distance: Sequence[float] = (15.0, 35.0),
) -> torch.Tensor:
    """Choose the chain of candidates with the largest sum of scores whose neighbors are at a plausible distance.

    This is the post-processing of SCN for vertebrae (Payer et al., VISAPP 2020; VerSe 2019). The chain consists of
    consecutive landmarks without a gap. Each of them is above a threshold, at a plausible distance from the one before
    it, and further along the spine. Then landmarks are appended at both ends, as long as the next one has a candidate
    at the distance of one vertebra. The defaults are the published ones, for heatmaps with a peak of about 1 and
    vertebrae of adults.

    Args:
        points: candidates (n, K, D) in mm of the n landmarks of a chain, in their order, NaN for no candidate.
        scores: (n, K) scores of the candidates.
        direction: (D,) vector along which the chain goes, for example (0, 0, -1) for vertebrae from head to foot in
            RAS. None: any direction, which may change along the chain.
        extent: smallest and largest value of ``direction @ point`` in the image, for a direction of any length. A chain
            that begins within ``border`` of one of them must begin above ``start_threshold``, since vertebrae that are cut by the border of the image
            have low peaks. None: no such rule.
        threshold: a candidate that is not above it does not count.
        start_threshold: see ``extent``.
        border: see ``extent``, in mm.
        distance: smallest and largest distance of neighbors in the chain, in mm.
        end_distance: smallest and largest distance of an appended landmark from the end of the chain, in mm.

    Returns:
        (n,) number of the chosen candidate of each landmark, -1 for none.

    Raises:
        ValueError: for candidates of another shape, or an extent without a direction.

    Example:
        >>> spine = torch.tensor([[[0.0, 100.0]], [[3.0, 70.0]], [[0.0, 12.0]]])  # the third is one vertebra too far
        >>> choose_by_sequence(spine, torch.tensor([[0.9], [0.8], [0.7]]), direction=(0.0, -1.0)).tolist()
        [0, 0, -1]
    """
    points, scores = _ensure_candidates(points, scores)
    if extent is not None and direction is None:
        raise ValueError("extent is measured along a direction: pass direction, too.")
    along = None if direction is None else points @ torch.as_tensor(direction).to(points)
    scores = torch.where(scores > threshold, scores, _NEVER)
    start = scores
    if extent is not None and direction is not None and along is not None:
        near = border * math.hypot(*direction)
        at_border = (along < min(extent) + near) | (along > max(extent) - near)
        start = torch.where(at_border & (scores <= start_threshold), _NEVER, scores)
    edges = []
    for index in range(len(points) - 1):
        allowed = _between(torch.cdist(points[index], points[index + 1]), distance)
        if along is not None:
            allowed &= along[index][:, None] < along[index + 1][None]
        edges.append(torch.where(allowed, scores[index + 1][None], _NEVER))
    chosen = _best_path(start, edges)
    on_path = (chosen >= 0).nonzero()[:, 0].tolist()
    if on_path:
        for step, end in ((-1, on_path[0]), (1, on_path[-1])):
            while 0 <= end + step < len(points):
                apart = torch.linalg.vector_norm(points[end + step] - points[end, chosen[end]], dim=-1)
                gain = torch.where(_between(apart, end_distance), scores[end + step], _NEVER)
                if gain.max() == _NEVER:
                    break
                end += step
                chosen[end] = gain.argmax()
    return chosen


def chain_offsets(points: torch.Tensor) -> torch.Tensor:
    """Compute the mean vector from each landmark of a chain to the next, for :func:`choose_by_graph`.

    Args:
        points: training landmarks (B, n, D) in mm, in the order of the chain, NaN where missing.

    Returns:
        (n - 1, D) vectors in mm.

    Raises:
        ValueError: if no case has both landmarks of a pair of neighbors.
    """
    steps = points[:, 1:] - points[:, :-1]
    offsets = steps.nanmean(dim=0)
    if offsets.isnan().any():
        first = int(offsets.isnan().any(dim=-1).nonzero()[0])
        raise ValueError(f"no case has both landmarks {first} and {first + 1} of the chain.")
    return offsets


def choose_by_graph(
    points: torch.Tensor,
    scores: torch.Tensor,
    offsets: torch.Tensor,
    score_weight: float = 0.2,
    bias: float = 2.0,
    shape_weight: float = 0.8,
    overshoot: float = 3.0,
) -> torch.Tensor:
    r"""Choose the path through candidates whose steps are most like those of the training landmarks.

    This is the post-processing of SCN for vertebrae at VerSe 2020 (Payer et al.). The gain of a step to a candidate
    with score :math:`s` is

    .. math::
        0.2\, s + 2 + 0.8 \left(1 - \sum (2 \Delta)^2\right), \qquad \Delta = (m - o) / |m|

    with the offset :math:`o` of the step and the mean offset :math:`m` of this pair of neighbors. The part of
    :math:`\Delta` that goes too far along the chain is multiplied by 3, since such a step has probably skipped a
    landmark. Here "along the chain" means along :math:`m`; in the published form it means along the z axis. A path may
    begin and end at any landmark, and leaves out none between. The published rules for supernumerary vertebrae are not
    included.

    Args:
        points: candidates (n, K, D) in mm of the n landmarks of a chain, in their order, NaN for no candidate. A
            network often finds the right place and the wrong number: :func:`with_neighbors` adds the candidates of a
            landmark's neighbors.
        scores: (n, K) scores of the candidates.
        offsets: (n - 1, D) mean vectors from each landmark to the next, see :func:`chain_offsets`.
        score_weight: the factor 0.2 above.
        bias: the term 2 above, the gain of a longer chain.
        shape_weight: the factor 0.8 above.
        overshoot: the factor 3 above.

    Returns:
        (n,) number of the chosen candidate of each landmark, -1 for none.

    Raises:
        ValueError: for candidates or offsets of another shape.

    Example:
        >>> spine = torch.tensor([[[0.0, 100.0], [0.0, 70.0]], [[0.0, 40.0], [2.0, 71.0]]])
        >>> choose_by_graph(spine, torch.tensor([[0.9, 0.3], [0.8, 0.1]]), torch.tensor([[0.0, -29.0]])).tolist()
        [1, 0]
    """
    points, scores = _ensure_candidates(points, scores)
    offsets = torch.as_tensor(offsets).to(points)
    if offsets.shape != (len(points) - 1, points.shape[-1]):
        raise ValueError(
            f"offsets must have shape {(len(points) - 1, points.shape[-1])} for {len(points)} landmarks, got "
            f"{tuple(offsets.shape)}."
        )
    worth = torch.where(scores > _NEVER, score_weight * scores, _NEVER)
    edges = []
    for index, mean in enumerate(offsets):
        size = torch.linalg.vector_norm(mean)
        unit = mean / size
        delta = (points[index + 1][None] - points[index][:, None] - mean) / size
        along = delta @ unit
        across = delta - along[..., None] * unit
        squared = across.square().sum(dim=-1) + torch.where(along > 0, overshoot * along, along).square()
        edges.append(worth[index + 1][None] + bias + shape_weight * (1 - 4 * squared))
    return _best_path(worth, edges)


def with_neighbors(
    points: torch.Tensor, scores: torch.Tensor, factor: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the candidates of both neighbors to each landmark of a chain, at a lower score.

    Args:
        points: candidates (n, K, D).
        scores: (n, K) scores of the candidates.
        factor: by which the scores of the neighbors' candidates are multiplied.

    Returns:
        Points (n, 3 K, D) and scores (n, 3 K): first the landmark's own, then those of the landmark before, then those
        of the landmark after.
    """

    def around(values: torch.Tensor) -> list[torch.Tensor]:
        none = torch.full_like(values[:1], torch.nan)
        return [torch.cat([none, values[:-1]]), torch.cat([values[1:], none])]

    return (
        torch.cat([points, *around(points)], dim=1),
        torch.cat([scores, *(factor * other for other in around(scores))], dim=1),
    )


def choose_by_evidence(
    points: torch.Tensor,
    scores: torch.Tensor,
    offsets: torch.Tensor,
    distance: float,
    along: float = 0.12,
    across: float = 0.25,
    step_weight: float = 1.0,
    floor: float = 0.001,
    limit: float = 5.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Choose the most probable position of each landmark of a complete chain, by the evidence of all maps together.

    The candidates of all landmarks are put together, so that a landmark can be where only its neighbor's map has a
    peak. The evidence of landmark i for a candidate is the highest of its own peaks nearby, as a share of its highest
    peak, or ``floor`` if it has none. A step from one landmark to the next costs more, the more it deviates from the
    mean step. Dynamic programming finds the chain with the largest sum:

    .. math::
        \sum_i \ln e_i(x_i) - \frac{w}{2} \sum_i \min\left(l^2,\;
        \frac{a_i^2}{\sigma_a^2} + \frac{c_i^2}{\sigma_c^2}\right)

    where :math:`e_i` is the evidence, and :math:`a_i` and :math:`c_i` are the components of the deviation along the
    mean step and across it, relative to the length of the mean step.

    The highest peak of each landmark has the largest evidence. **These peaks are returned unchanged if they are a
    plausible chain**, which means that no step deviates by more than ``limit`` standard deviations. Otherwise the chain
    replaces them. So a chain cannot move landmarks that fit together.

    Args:
        points: candidates (n, K, D) of the n landmarks of a chain, in their order, the highest first, NaN for none.
        scores: (n, K) scores of the candidates, not negative.
        offsets: (n - 1, D) mean vectors from each landmark to the next, see :func:`chain_offsets`.
        distance: candidates that are closer than this show the same place.
        along: :math:`\sigma_a`, standard deviation of a step along the mean step, as a share of its length.
        across: :math:`\sigma_c`, standard deviation of a step across the mean step, as a share of its length.
        step_weight: w, weight of the steps against the evidence.
        floor: smallest evidence.
        limit: l, in standard deviations. A worse step does not cost more, since a candidate may be lacking.

    Returns:
        Landmark (n,) and number (n,) of the candidate that is chosen for each landmark: landmark i is at
        ``points[landmark[i], number[i]]``. Both are -1 for all landmarks if there is no candidate at all.

    Raises:
        ValueError: for candidates or offsets of another shape, and a negative score.

    Example:
        >>> spine = torch.tensor([[[0.0, 100.0], [0.0, 70.0]], [[0.0, 40.0], [2.0, 71.0]], [[0.0, 42.0], [0.0, 100.0]]])
        >>> scores = torch.tensor([[0.9, 0.3], [0.8, 0.1], [0.9, 0.0]])
        >>> offsets = torch.tensor([[0.0, -29.0], [0.0, -29.0]])
        >>> landmark, number = choose_by_evidence(spine, scores, offsets, distance=8.0)
        >>> spine[landmark, number].tolist()
        [[0.0, 100.0], [2.0, 71.0], [0.0, 42.0]]
    """
    points, scores = _ensure_candidates(points, scores)
    offsets = torch.as_tensor(offsets).to(points)
    count, peaks, dims = points.shape
    if offsets.shape != (count - 1, dims):
        raise ValueError(
            f"offsets must have shape {(count - 1, dims)} for {count} landmarks, got {tuple(offsets.shape)}."
        )
    found = scores > _NEVER
    if bool((found & (scores < 0)).any()):
        raise ValueError("scores of candidates must not be negative: pass probabilities or heatmaps, not logits.")
    if not found.any():
        return torch.full((count,), -1, device=points.device), torch.full((count,), -1, device=points.device)
    every, owner = points.flatten(0, 1)[found.flatten()], found.nonzero()
    steps = torch.stack([_step_gain(every, offset, along, across, limit) for offset in offsets]) if count > 1 else None
    # position of the highest candidate of each landmark among all candidates
    first = torch.full((count,), -1, device=points.device)
    for position, (landmark, number) in enumerate(owner.tolist()):
        if first[landmark] < 0 or scores[landmark, number] > scores[tuple(owner[first[landmark]])]:
            first[landmark] = position
    plain = bool((first >= 0).all()) and (
        steps is None or bool((steps[torch.arange(count - 1), first[:-1], first[1:]] > -0.5 * limit**2).all())
    )
    if plain or steps is None:
        return owner[first, 0], owner[first, 1]
    near = torch.cdist(every, every) < distance
    total, parents = torch.zeros(len(every)).to(every), []
    for landmark in range(count):
        own = torch.where(owner[:, 0] == landmark, scores[found], _NEVER)
        best = torch.where(near, own[None], _NEVER).amax(dim=1) / own.max().clamp(min=1e-12)
        if landmark:
            gain, parent = (total[:, None] + step_weight * steps[landmark - 1]).max(dim=0)
            total, parents = gain, [*parents, parent]
        total = total + best.nan_to_num(nan=0.0).clamp(min=floor).log()
    path = [int(total.argmax())]
    for parent in reversed(parents):
        path.append(int(parent[path[-1]]))
    chosen = owner[path[::-1]]
    return chosen[:, 0], chosen[:, 1]


def _step_gain(points: torch.Tensor, mean: torch.Tensor, along: float, across: float, limit: float) -> torch.Tensor:
    """Return the logarithm of the likelihood of the step from each point (M, D) to each other one, (M, M)."""
    size = torch.linalg.vector_norm(mean)
    delta = (points[None] - points[:, None] - mean) / size
    forward = delta @ (mean / size)
    sideways = delta.square().sum(dim=-1) - forward.square()
    return -0.5 * ((forward / along).square() + sideways / across**2).clamp(max=limit**2)
