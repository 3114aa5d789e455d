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


"""Heatmaps of a spine in which maps point to the wrong vertebra, and where the chain puts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.heatmaps import chain_offsets, gaussian_heatmaps
from monai_landmarks.inferers import LandmarkInferer, SlidingWindowLandmarkInferer
from monai_landmarks.transforms import (
    HeatmapToChainLandmarks,
    HeatmapToChainLandmarksd,
    HeatmapToLandmarks,
    HeatmapToLandmarksd,
)

NAMES = ["L1", "L2", "sacrum", "L3", "L4"]
CHAIN = ["L1", "L2", "L3", "L4"]
# 2 x 1 x 3 mm, first axis to the left, last axis to the feet
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 1, 0, -20], [0, 0, -3, 100], [0, 0, 0, 1.0]])
SHAPE = (20, 30, 60)
ROWS = {"L1": [8.3, 14.0, 8.0], "L2": [9.0, 15.5, 18.4], "L3": [9.6, 13.2, 28.0], "L4": [9.0, 12.0, 38.5]}
ROWS["sacrum"] = [10.0, 20.0, 55.0]


def spine_maps(device="cpu"):
    """The map of L3 is highest at L4, and that of L4 is empty."""
    points = torch.tensor([ROWS[name] for name in NAMES], device=device)
    maps = gaussian_heatmaps(points, SHAPE, sigma=1.5)
    maps[3] = 0.6 * maps[3] + 0.9 * maps[4]
    maps[4] = 0
    return points, maps


def training_offsets():
    index = torch.tensor([[ROWS[name] for name in CHAIN]], dtype=torch.float64)
    affine = torch.as_tensor(AFFINE)
    return chain_offsets(index @ affine[:3, :3].T + affine[:3, 3])


def chooser(method, **arguments):
    if method != "sequence":
        return {"choose_by": method, "offsets": [training_offsets()], **arguments}
    return {"choose_by": "sequence", "direction": (0.0, 0.0, -1.0), **arguments}


@pytest.mark.parametrize("chains", [[CHAIN], {"spine": CHAIN}, [[0, 1, 3, 4]]])
@pytest.mark.parametrize("method", ["sequence", "graph"])
def test_jumps_are_undone(method, chains, device):
    points, maps = spine_maps(device)
    assert float((HeatmapToLandmarks()(maps).points[3] - points[4]).abs().max()) < 0.1  # the jump
    found = HeatmapToChainLandmarks(chains, NAMES, **chooser(method))(maps, AFFINE)
    # the empty map borrows its neighbor's candidate in the graph only
    known = [0, 1, 2, 3] if method == "sequence" else [0, 1, 2, 3, 4]
    torch.testing.assert_close(found.points[known], points[known], atol=0.05, rtol=0)
    if method == "sequence":
        assert found.points[4].isnan().all() and found.covariances[4].isnan().all()
    expected = [1.0, 1.0, 1.0, 0.6, 0.09]
    assert found.scores[known].tolist() == pytest.approx([expected[i] for i in known], rel=0.1)
    sigma = found.covariances[known].diagonal(dim1=-2, dim2=-1).sqrt()
    assert torch.allclose(sigma, torch.full_like(sigma, 1.5), atol=0.1)


def test_evidence_leaves_no_landmark_out(device):
    points, maps = spine_maps(device)
    found = HeatmapToChainLandmarks([CHAIN], NAMES, **chooser("evidence"))(maps, AFFINE)
    torch.testing.assert_close(found.points, points, atol=0.05, rtol=0)


@pytest.mark.parametrize("shift", [0, 1])
def test_evidence_keeps_maxima_that_are_a_chain(shift):
    """Also if every map shows the next vertebra, since then nothing says that this is wrong."""
    index = torch.tensor([[10.0, 8.0 + 9 * i] for i in range(6)])
    maps = gaussian_heatmaps(index, (20, 64), sigma=1.5)
    wanted = maps[shift : shift + 5] + 0.7 * maps[1 - shift : 6 - shift]
    chain = HeatmapToChainLandmarks([range(5)], choose_by="evidence", offsets=[[[0.0, 9.0]] * 4], min_distance=4.0)
    torch.testing.assert_close(chain(wanted).points, index[shift : shift + 5], atol=0.3, rtol=0)


def test_distances_are_in_mm():
    """At a third of the voxel size the vertebrae are too near to one another for a chain."""
    _, maps = spine_maps()
    transform = HeatmapToChainLandmarks([CHAIN], NAMES, **chooser("sequence"))
    found = transform(maps, AFFINE @ np.diag([1, 1, 1 / 3, 1]))
    assert int(found.points[[0, 1, 3, 4]].isnan().any(-1).sum()) > 1
    near = chooser("sequence", options={"distance": (5.0, 15.0), "start_threshold": 0.25})
    assert (
        int(
            HeatmapToChainLandmarks([CHAIN], NAMES, **near)(maps, AFFINE @ np.diag([1, 1, 1 / 3, 1]))
            .points.isnan()
            .any(-1)
            .sum()
        )
        == 1
    )


@pytest.mark.parametrize("method", ["sequence", "graph"])
def test_dictionary_form_goes_to_the_world(method):
    points, maps = spine_maps()
    transform = HeatmapToChainLandmarksd("pred", [CHAIN], NAMES, **chooser(method))
    found = transform({"pred": maps, "image": MetaTensor(torch.zeros(1, *SHAPE), affine=AFFINE)})
    world = points.numpy() @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    assert np.allclose(found["pred_points"][0, :4].numpy(), world[:4], atol=0.2)
    spread = found["pred_covariances"][0].diagonal().sqrt().numpy()
    assert np.allclose(spread, 1.5 * np.array([2.0, 1.0, 3.0]), atol=0.2)
    assert found["pred_scores"].shape == (5,)


@pytest.mark.parametrize("direction", [(1.0, 0.0), None])
def test_two_dimensions_and_arrays(direction):
    points = np.array([[10.0, 16.0], [30.0, 17.5], [50.0, 15.0]])
    maps = gaussian_heatmaps(torch.tensor(points), (64, 32), sigma=2.0).numpy()
    found = HeatmapToChainLandmarks([[0, 1, 2]], direction=direction)(maps)
    assert isinstance(found.points, np.ndarray) and np.allclose(found.points, points, atol=0.02)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"chains": [["L1", "T1"]], "names": NAMES}, "'T1'"),
        ({"chains": [[0, 1], [1, 2]]}, "more than once"),
        ({"chains": [[0, 1]], "choose_by": "tree"}, "tree"),
        ({"chains": [[0, 1]], "method": "tree"}, "method"),
        ({"chains": [[0, 1]], "choose_by": "graph"}, "offsets"),
        ({"chains": [[0, 1]], "choose_by": "graph", "offsets": [torch.zeros(2, 3)]}, "offsets"),
        ({"chains": [[0, 1]], "offsets": [torch.zeros(1, 3)]}, "graph"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeatmapToChainLandmarks(**arguments)


@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("method", ["sequence", "graph"])
def test_candidates_of_an_inferer_are_those_of_the_heatmaps(method, border, device):
    """Also where a chain must not begin at the border of the image on a weak candidate."""
    _, maps = spine_maps(device)
    if border:
        maps = maps[..., 6:].clone()
        maps[0] *= 0.4
    image = MetaTensor(torch.zeros(1, *maps.shape[1:], device=device), affine=AFFINE)
    # nothing is appended to the chain, so that a first one too weak to begin it is left out
    options = {"options": {"end_distance": (15.0, 30.0)}} if method == "sequence" else {}
    choose = HeatmapToChainLandmarksd("pred", [CHAIN], NAMES, **chooser(method, **options))
    expected = choose({"pred": maps, "image": image})
    for inferer in (
        LandmarkInferer(num_peaks=5),
        SlidingWindowLandmarkInferer((20, 20, 24), overlap=0.5, mode="gaussian", num_peaks=5),
    ):
        places = torch.zeros(1, 1, *maps.shape[1:], device=device)
        places[0, 0] = torch.arange(places.numel()).view(maps.shape[1:])

        def network(windows):
            """The part of the maps that a window shows: its voxels tell where they are."""
            index = windows[:, 0].long()
            return torch.stack([maps.flatten(1)[:, one] for one in index])

        found = inferer(places, network)
        result = choose({"pred": {name: values[0] for name, values in found.items()}, "image": image})
        for key in ("pred_points", "pred_scores", "pred_covariances"):
            torch.testing.assert_close(result[key], expected[key], atol=1e-3, rtol=1e-3, equal_nan=True)
    assert bool(expected["pred_points"][0, 0].isnan().all()) == (border and method == "sequence")


def test_the_highest_candidate_is_a_point():
    _, maps = spine_maps()
    found = LandmarkInferer(num_peaks=3)(maps[None], lambda image: image)
    item = {"pred": {name: values[0] for name, values in found.items()}, "image": MetaTensor(maps[:1], affine=AFFINE)}
    several = HeatmapToLandmarksd("pred", threshold=0.1)(item)
    one = HeatmapToLandmarksd("pred", threshold=0.1)({**item, "pred": maps})
    torch.testing.assert_close(several["pred_points"], one["pred_points"], atol=1e-3, rtol=0, equal_nan=True)


def test_points_of_an_inferer_are_refused():
    found = {"points": torch.zeros(2, 2), "scores": torch.ones(2), "covariances": torch.zeros(2, 2, 2)}
    with pytest.raises(ValueError, match="one point per landmark"):
        HeatmapToChainLandmarksd("pred", [[0, 1]], refer_keys=None)({"pred": found})
