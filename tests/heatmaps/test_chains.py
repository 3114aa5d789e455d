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


"""The choice of candidates in a chain, against trying all paths."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from monai_landmarks.heatmaps import (
    chain_offsets,
    choose_by_evidence,
    choose_by_graph,
    choose_by_sequence,
    with_neighbors,
)

NAN = float("nan")


def all_paths(num_landmarks, num_candidates):
    """Every choice of one candidate for some landmarks in a row."""
    for first in range(num_landmarks):
        for last in range(first, num_landmarks):
            for chosen in itertools.product(range(num_candidates), repeat=last - first + 1):
                yield [-1] * first + list(chosen) + [-1] * (num_landmarks - 1 - last)


def steps(path):
    return [(i, a, b) for i, (a, b) in enumerate(itertools.pairwise(path)) if a >= 0 and b >= 0]


def random_candidates(dims, seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(5, 3, dims, generator=generator) * 6
    points[..., -1] -= 30 * torch.arange(5)[:, None]
    points += torch.randint(-1, 2, (5, 3, 1), generator=generator) * 25
    score = torch.rand(5, 3, generator=generator)
    points[1, 2] = NAN
    score[1, 2] = NAN
    return points, score


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dims", [2, 3])
def test_graph_is_the_best_of_all_paths(dims, seed):
    points, score = random_candidates(dims, seed)
    offsets = torch.zeros(4, dims)
    offsets[:, -1], offsets[:, 0] = -30.0, 2.0

    def gain(path):
        chosen = [(i, k) for i, k in enumerate(path) if k >= 0]
        if any(math.isnan(score[i, k]) for i, k in chosen):
            return -math.inf
        total = sum(0.2 * float(score[i, k]) for i, k in chosen)
        for i, a, b in steps(path):
            mean = offsets[i].double()
            size = float(mean.norm())
            delta = (points[i + 1, b].double() - points[i, a].double() - mean) / size
            along = float(delta @ mean) / size
            across = delta - along * mean / size
            along *= 3 if along > 0 else 1
            total += 2 + 0.8 * (1 - 4 * (float(across @ across) + along**2))
        return total

    best = max(all_paths(5, 3), key=gain)
    chosen = choose_by_graph(points, score, offsets).tolist()
    assert gain(chosen) == pytest.approx(gain(best)) and chosen == best


@pytest.mark.parametrize("extent", [None, (-10.0, 140.0)])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dims", [2, 3])
def test_sequence_is_the_best_of_all_paths(dims, seed, extent):
    points, score = random_candidates(dims, seed)
    direction = [0.0] * (dims - 1) + [-1.0]

    def gain(path):
        chosen = [(i, k) for i, k in enumerate(path) if k >= 0]
        if not all(float(score[i, k]) > 0.25 for i, k in chosen):
            return -math.inf
        for i, a, b in steps(path):
            step = points[i + 1, b] - points[i, a]
            if not (12.5 < float(step.norm()) < 50 and float(step[-1]) < 0):
                return -math.inf
        i, k = chosen[0]
        position = -float(points[i, k, -1])
        if extent and (position < extent[0] + 15 or position > extent[1] - 15) and float(score[i, k]) <= 0.5:
            return -math.inf
        return sum(float(score[i, k]) for i, k in chosen)

    best = max(all_paths(5, 3), key=gain)
    # nothing is appended to the ends
    chosen = choose_by_sequence(points, score, direction, extent, end_distance=(0.0, 0.0)).tolist()
    assert chosen == best


def test_sequence_appends_to_its_ends():
    """The first lies too near the border to begin a chain, the last goes back: neither is in it, both are appended."""
    heights = torch.tensor([100.0, 80.0, 60.0, 40.0, 60.0])
    points = torch.stack([torch.tensor([0.0, 0, 0, 0, 12.0]), heights], dim=-1)[:, None]
    score = torch.tensor([[0.3], [0.9], [0.9], [0.9], [0.9]])
    arguments = {"direction": (0.0, -1.0), "extent": (-110.0, 0.0)}
    assert choose_by_sequence(points, score, **arguments, end_distance=(0.0, 0.0)).tolist() == [-1, 0, 0, 0, -1]
    assert choose_by_sequence(points, score, **arguments).tolist() == [0, 0, 0, 0, 0]
    assert choose_by_sequence(points, score, **arguments, end_distance=(15.0, 21.0)).tolist() == [0, 0, 0, 0, -1]


@pytest.mark.parametrize("choose", ["sequence", "graph"])
def test_a_jump_by_one_vertebra_is_undone(choose):
    """The third map has its highest peak at the fourth vertebra, and a lower one where it belongs."""
    spine = torch.tensor([[0.0, 0.0, -30.0 * i] for i in range(5)])
    points = torch.full((5, 2, 3), NAN)
    points[:, 0], score = spine, torch.full((5, 2), NAN)
    score[:, 0] = 0.8
    points[2, 0], score[2, 0] = spine[3], 0.9
    points[2, 1], score[2, 1] = spine[2], 0.4
    if choose == "graph":
        found = choose_by_graph(points, score, chain_offsets(spine[None]))
    else:
        found = choose_by_sequence(points, score, direction=(0.0, 0.0, -1.0))
    assert found.tolist() == [0, 0, 1, 0, 0]


def test_neighbors_lend_their_candidates():
    """All maps are one vertebra too far down: only the neighbors' candidates can say where the first is."""
    points = torch.arange(6.0).view(3, 1, 2)
    score = torch.tensor([[0.5], [1.0], [0.8]])
    lent, lent_score = with_neighbors(points, score)
    assert torch.equal(lent[1], points[[1, 0, 2], 0])
    assert lent_score[1].tolist() == pytest.approx([1.0, 0.05, 0.08])
    assert lent[0, 1].isnan().all() and lent_score[2, 2].isnan()


def test_offsets_are_means_over_those_present():
    points = torch.tensor([[[0.0, 0], [1, 2], [3, 3]], [[0, 0], [3, 4], [NAN, NAN]]])
    assert chain_offsets(points).tolist() == [[2.0, 3.0], [2.0, 1.0]]
    points[0, 2] = NAN
    with pytest.raises(ValueError, match="1 and 2 of the chain"):
        chain_offsets(points)


def test_no_candidates_and_one_landmark():
    points, score = torch.full((3, 2, 2), NAN), torch.full((3, 2), NAN)
    assert choose_by_sequence(points, score).tolist() == [-1, -1, -1]
    assert choose_by_graph(points, score, torch.ones(2, 2)).tolist() == [-1, -1, -1]
    assert choose_by_graph(torch.zeros(1, 2, 2), torch.tensor([[0.1, 0.4]]), torch.ones(0, 2)).tolist() == [1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: choose_by_sequence(torch.zeros(3, 2), torch.zeros(3)),
        lambda: choose_by_sequence(torch.zeros(3, 1, 2), torch.zeros(3, 1), extent=(0, 1)),
        lambda: choose_by_graph(torch.zeros(3, 1, 2), torch.zeros(3, 1), torch.ones(3, 2)),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ValueError):
        call()


@pytest.mark.parametrize("extent,chosen", [((-300.0, 0.0), 0), ((-110.0, 0.0), -1), ((-300.0, -90.0), -1)])
def test_a_weak_start_counts_only_away_from_both_borders(extent: tuple[float, float], chosen: int) -> None:
    points = torch.tensor([[[0.0, 100.0]], [[math.nan, math.nan]]])
    scores = torch.tensor([[0.4], [math.nan]])  # above the threshold of 0.25, below that of a start, 0.5
    assert choose_by_sequence(points, scores, (0.0, -1.0), extent).tolist() == [chosen, -1]
    long = [10 * end for end in extent]
    assert choose_by_sequence(points, scores, (0.0, -10.0), long).tolist() == [chosen, -1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dims", [2, 3])
def test_evidence_is_the_best_of_all_assignments(dims, seed):
    points, score = (values[:4] for values in random_candidates(dims, seed))
    points[0] = points[1]  # the plain answer is not a chain
    score[0] = score[1]
    offsets = torch.zeros(3, dims)
    offsets[:, -1], offsets[:, 0] = -30.0, 2.0
    every = [(i, k) for i in range(4) for k in range(3) if not math.isnan(score[i, k])]

    def evidence(i, place):
        own = [float(score[i, k]) for k in range(3) if not math.isnan(score[i, k])]
        near = [float(score[i, k]) for k in range(3) if (i, k) in every and (points[i, k] - points[place]).norm() < 6]
        return math.log(max(max(near, default=0.0) / max(own), 0.001))

    def cost(i, a, b):
        mean = offsets[i].double()
        delta = (points[b].double() - points[a].double() - mean) / mean.norm()
        along = delta @ mean / mean.norm()
        across = (delta - along * mean / mean.norm()).norm()
        return min(float(along**2 / 0.12**2 + across**2 / 0.25**2), 25.0) / 2

    own = [[evidence(i, place) for place in every] for i in range(4)]
    steps = [[[cost(i, a, b) for b in every] for a in every] for i in range(3)]

    def gain(path):
        return sum(own[i][c] for i, c in enumerate(path)) - sum(steps[i][path[i]][path[i + 1]] for i in range(3))

    best = max(gain(path) for path in itertools.product(range(len(every)), repeat=4))
    landmark, number = choose_by_evidence(points, score, offsets, distance=6.0)
    assert gain([every.index(place) for place in zip(landmark.tolist(), number.tolist())]) == pytest.approx(best)


def test_evidence_never_moves_a_plausible_chain():
    """Even where all maps have a higher sum elsewhere: the maxima are the plain answer."""
    spine = torch.stack([torch.tensor([[3.0 * i, 30.0 * i], [3.0 * i, 30.0 * i + 30.0]]) for i in range(5)])
    scores = torch.tensor([[0.6, 0.59]]).expand(5, 2)
    landmark, number = choose_by_evidence(spine, scores, torch.tensor([[0.0, 29.0]]).expand(4, 2), distance=5.0)
    assert landmark.tolist() == [0, 1, 2, 3, 4] and number.tolist() == [0] * 5


def test_evidence_mends_a_double_landmark_from_its_neighbors_map():
    """Landmarks 1 and 2 are at one place, and nothing but the map of landmark 0 has a peak at the place of landmark 1."""
    y = torch.tensor([[0.0, 30.0], [60.0, NAN], [60.0, NAN], [90.0, NAN]])
    points = torch.stack([torch.zeros_like(y).masked_fill(y.isnan(), NAN), y], dim=-1)
    scores = torch.tensor([[0.9, 0.2], [0.9, NAN], [0.9, NAN], [0.9, NAN]])
    landmark, number = choose_by_evidence(points, scores, torch.tensor([[0.0, 30.0]]).expand(3, 2), distance=5.0)
    assert points[landmark, number][:, 1].tolist() == [0.0, 30.0, 60.0, 90.0]


def test_evidence_without_candidates_and_faults():
    none = torch.full((3, 2), NAN)
    offsets = torch.ones(2, 2)
    assert choose_by_evidence(none[..., None].expand(3, 2, 2), none, offsets, 1.0)[0].tolist() == [-1] * 3
    with pytest.raises(ValueError, match="not logits"):
        choose_by_evidence(torch.zeros(3, 2, 2), -torch.ones(3, 2), offsets, 1.0)
    with pytest.raises(ValueError, match="offsets must have shape"):
        choose_by_evidence(torch.zeros(3, 2, 2), torch.ones(3, 2), offsets[:1], 1.0)
