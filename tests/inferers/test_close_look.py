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
"""The close look finds what the resolution of an image allows, at the right place and for the right landmark."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.inferers import CloseLookInferer, FlipEnsembleInferer
from monai_landmarks.networks.nets import SCN, CloseLookNet, LocalizationUNet
from monai_landmarks.spaces import covariances_to_world, points_to_index, points_to_world
from monai_landmarks.transforms import HeatmapToLandmarksd, LandmarkGroups, ResampleToSpacing

sys.path.insert(0, str(Path(__file__).parents[1] / "transforms"))
from blobs import oblique

SIZE = {2: (90, 70), 3: (40, 34, 36)}
SPACING = {2: (0.5, 0.8), 3: (0.5, 0.8, 0.6)}
PATCH = {2: (24, 24), 3: (16, 16, 16)}
# standard deviation of the blobs in mm
BLOB = 1.2


class Said(torch.nn.Module):
    """A coarse network that finds what it was told, in index coordinates: an inferer asks it for points."""

    def __init__(self, points: torch.Tensor, scores: torch.Tensor | None = None) -> None:
        super().__init__()
        self.points = points
        self.scores = torch.full(points.shape[:2], 3.0) if scores is None else scores

    def forward(self, image: torch.Tensor):
        dims = self.points.shape[-1]
        covariances = torch.eye(dims).expand(*self.points.shape[:2], dims, dims)
        return {"points": self.points, "scores": self.scores, "covariances": covariances}


class Copies(torch.nn.Module):
    """A fine network whose heatmaps are the patch itself, once per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.expand(-1, self.channels, *patches.shape[2:])


class Networks:
    def __init__(self, coarse, fine) -> None:
        self.coarse, self.fine = coarse, fine


def phantom(dims: int, cases: int = 2) -> tuple[MetaTensor, torch.Tensor, torch.Tensor]:
    """Oblique anisotropic images with round blobs apart from each other, their index points and affines."""
    affines = torch.stack([oblique(SPACING[dims]) for _ in range(cases)])
    affines[1:, :dims, 3] += 7
    grid = torch.tensor([0.2, 0.5, 0.8]) if dims == 2 else torch.tensor([0.25, 0.75])
    places = torch.stack(torch.meshgrid(*[grid] * dims, indexing="ij"), dim=-1).reshape(-1, dims)
    torch.manual_seed(0)
    points = (places * (torch.tensor(SIZE[dims]) - 1)).double() + torch.rand(cases, len(places), dims) * 3 - 1.5
    index = torch.stack(torch.meshgrid(*[torch.arange(n).double() for n in SIZE[dims]], indexing="ij"), dim=-1)
    images = []
    for own, affine in zip(points, affines):
        away = points_to_world(index, affine)[None] - points_to_world(own, affine).reshape(-1, *[1] * dims, dims)
        images.append(torch.exp(-0.5 * away.square().sum(-1) / BLOB**2).sum(0, keepdim=True))
    return MetaTensor(torch.stack(images).float(), affine=affines), points, affines


def displaced(points: torch.Tensor, by: float = 2.0) -> torch.Tensor:
    return points + by * (2 * torch.rand(points.shape, generator=torch.Generator().manual_seed(1)) - 1)


@pytest.mark.parametrize("turns", [(0.0,), (0.0, 0.2, -0.2)])
@pytest.mark.parametrize("spacing", [0.5, 0.9])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_tenth_of_a_pixel(dims: int, spacing: float, turns: tuple[float, ...]) -> None:
    image, points, affines = phantom(dims)
    networks = Networks(Said(displaced(points)), Copies(points.shape[1]))
    look = CloseLookInferer(PATCH[dims], spacing, turns=turns, softmax=False)
    found = look(image, networks)
    assert (found["points"] - points).abs().max() < 0.1
    assert torch.equal(found["scores"], torch.full(points.shape[:2], 3.0))
    widths = covariances_to_world(found["covariances"], affines).diagonal(dim1=-2, dim2=-1).sqrt()
    assert widths.numpy() == pytest.approx(BLOB, rel=0.1)


@pytest.mark.parametrize("dims", [2, 3])
def test_an_image_smaller_than_a_patch_is_refused(dims: int) -> None:
    """A picture of a few pixels, of which the network sees an enlarged one, would need many gigabytes."""
    image, points, affines = phantom(dims)
    look = CloseLookInferer(PATCH[dims], 0.5, softmax=False)
    networks = Networks(Said(points), Copies(points.shape[1]))
    affines[1, :dims, :dims] /= 200
    patch = {2: "12 x 12", 3: "8 x 8 x 8"}[dims]
    with pytest.raises(ValueError, match=f"less than a patch of the close look, which covers {patch} mm"):
        look(MetaTensor(image.as_tensor(), affine=affines), networks)


def test_the_coarse_network_has_its_own_grid() -> None:
    """It sees a coarser image, whose points lie elsewhere in the index and at the same place in the world."""
    image, points, affines = phantom(2)
    seen = []

    class Looks(Said):
        def forward(self, given):
            seen.append(given)
            own = torch.as_tensor(given.affine)
            return {
                **super().forward(given),
                "points": points_to_index(points_to_world(displaced(points), affines), own),
            }

    look = CloseLookInferer(PATCH[2], 0.5, coarse_grid=ResampleToSpacing(2.0), softmax=False)
    found = look(image, Networks(Looks(points), Copies(points.shape[1])))
    assert tuple(seen[0].shape) == (2, 1, 22, 28)
    assert (found["points"] - points).abs().max() < 0.1


def test_heatmaps_of_the_coarse_network_are_decoded() -> None:
    image, points, _ = phantom(2)
    maps = 5 * gaussian_heatmaps(displaced(points), SIZE[2], sigma=2.0)
    found = CloseLookInferer(PATCH[2], 0.5, softmax=False)(image, Networks(lambda _: maps, Copies(points.shape[1])))
    assert (found["points"] - points).abs().max() < 0.1
    assert found["scores"].min() > 4


def test_logits_of_the_coarse_network_are_decoded() -> None:
    """Logits whose softmax is a map of mass 1; where it is far from its maximum, they are not near zero."""
    image, points, _ = phantom(2)
    coarse = displaced(points)
    maps = gaussian_heatmaps(coarse, SIZE[2], sigma=2.0)
    logits = (maps / maps.sum(dim=(2, 3), keepdim=True) + 1e-9).log() + 7.0
    look = CloseLookInferer(PATCH[2], 0.5, softmax=False, coarse_softmax=True, coarse_weight=1.0)
    found = look(image, Networks(lambda _: logits, Copies(points.shape[1])))
    assert (found["points"] - coarse).abs().max() < 1e-3
    assert found["scores"].max() < 1


def test_at_the_border_and_beyond() -> None:
    """Half of a patch lies beyond the image, and so may the coarse point."""
    index = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(30.0), indexing="ij"), dim=-1)
    points = torch.tensor([[[3.3, 12.2], [35.6, 26.0], [20.1, 3.4]]])
    image = torch.exp(-0.5 * (index[None] - points[0][:, None, None]).square().sum(-1) / 2).sum(0)
    coarse = points + torch.tensor([[-4.0, 1.0], [4.5, 4.5], [-1.0, -4.0]])
    look = CloseLookInferer((24, 24), 1.0, softmax=False)
    found = look(MetaTensor(image[None, None]), Networks(Said(coarse), Copies(3)))
    assert (found["points"] - points).abs().max() < 0.1


def test_missing_landmarks_stay_missing() -> None:
    image, points, _ = phantom(2)
    coarse = displaced(points)
    coarse[0, 3], coarse[1, 0] = torch.nan, torch.nan
    scores = torch.where(coarse.isnan().any(-1), -1.0, 3.0)
    for turns in ((0.0,), (0.0, 0.1)):
        look = CloseLookInferer(PATCH[2], 0.5, softmax=False, turns=turns, coarse_weight=0.2)
        found = look(image, Networks(Said(coarse, scores), Copies(points.shape[1])))
        assert torch.equal(found["points"].isnan().all(-1), coarse.isnan().any(-1))
        assert torch.equal(found["covariances"].isnan().all(-1).all(-1), coarse.isnan().any(-1))
        assert torch.equal(found["scores"], scores)


def test_the_mean_with_the_coarse_point() -> None:
    image, points, _ = phantom(2)
    coarse = displaced(points)

    def found(weight: float) -> torch.Tensor:
        look = CloseLookInferer(PATCH[2], 0.5, softmax=False, coarse_weight=weight)
        return look(image, Networks(Said(coarse), Copies(points.shape[1])))["points"].double()

    torch.testing.assert_close(found(1.0), coarse, atol=1e-4, rtol=0)
    torch.testing.assert_close(found(0.25), 0.75 * found(0.0) + 0.25 * coarse, atol=1e-4, rtol=0)


@pytest.mark.parametrize("finds_landmarks", [True, False])
def test_groups_share_the_channels_of_the_fine_network(finds_landmarks: bool) -> None:
    """Channel 0 finds bright spots, channel 1 dark ones, in each patch; the coarse network may find only the middles."""
    points = torch.tensor([[[20.3, 20.2], [26.1, 24.7], [60.4, 44.9], [53.2, 40.8]]])
    index = torch.stack(torch.meshgrid(torch.arange(80.0), torch.arange(60.0), indexing="ij"), dim=-1)
    blobs = torch.exp(-0.5 * (index[None] - points[0][:, None, None]).square().sum(-1) / 2.25)
    image = (blobs * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]).sum(0)
    groups = LandmarkGroups(4, [[0, 1], [2, 3]], shared=True)
    coarse = points + 1.5 if finds_landmarks else points.reshape(1, 2, 2, 2).mean(2) - 1
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0] if finds_landmarks else [5.0, 6.0]])
    networks = Networks(Said(coarse, scores), lambda patches: torch.cat([patches, -patches], dim=1))
    found = CloseLookInferer((24, 24), 1.0, groups, softmax=False)(MetaTensor(image[None, None]), networks)
    assert (found["points"] - points).abs().max() < 0.1
    assert found["scores"].tolist() == [[1.0, 2.0, 3.0, 4.0] if finds_landmarks else [5.0, 5.0, 6.0, 6.0]]


def test_batches_of_patches_do_not_matter() -> None:
    image, points, _ = phantom(2)
    networks = Networks(Said(displaced(points)), LocalizationUNet(2, 1, points.shape[1], features=[4] * 6).eval())
    results = [CloseLookInferer((32, 32), 0.5, patch_batch_size=size)(image, networks) for size in (4, 18)]
    torch.testing.assert_close(results[0], results[1], atol=1e-3, rtol=1e-3)


def test_mirrored_images_find_the_mirrored_points() -> None:
    image, points, _ = phantom(2, cases=1)

    class Mirrored(Said):
        def forward(self, given):
            flipped = not torch.equal(given.as_tensor(), image.as_tensor())
            where = self.points * torch.tensor([-1.0, 1.0]) + torch.tensor([SIZE[2][0] - 1.0, 0.0])
            return {**super().forward(given), "points": where if flipped else self.points}

    look = FlipEnsembleInferer(inferer=CloseLookInferer(PATCH[2], 0.5, softmax=False))
    found = look(image, Networks(Mirrored(displaced(points)), Copies(points.shape[1])))
    assert (found["points"] - points).abs().max() < 0.1


def test_exported_networks_find_the_same_points(tmp_path: Path) -> None:
    torch.manual_seed(0)
    image, points, affines = phantom(2)
    coarse = SCN(2, 1, 9, local_appearance="unet", unet_features=[4] * 6, features=4, spatial_kernel=3, norm="instance")
    network = CloseLookNet(coarse, LocalizationUNet(2, 1, 9, features=[4] * 6)).eval()
    before = copy.deepcopy(network.state_dict())
    torch.jit.script(network).save(tmp_path / "model.ts")
    look = CloseLookInferer((32, 32), 0.5, turns=(0.0, 0.1), coarse_weight=0.3)
    expected, found = (look(image, net) for net in (network, torch.jit.load(tmp_path / "model.ts")))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    item = {
        "pred": {name: values[0] for name, values in found.items()},
        "image": MetaTensor(image.as_tensor()[0], affine=affines[0]),
    }
    world = HeatmapToLandmarksd("pred", refer_keys="image")(item)["pred_points"]
    assert np.nan_to_num(world[0]) == pytest.approx(np.nan_to_num(points_to_world(found["points"][0], affines[0])))


def test_only_the_fine_network_is_trained() -> None:
    network = CloseLookNet(torch.nn.Conv2d(1, 2, 3), torch.nn.Conv2d(1, 3, 3))
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["fine.weight", "fine.bias"]


def test_errors_say_what_is_wrong() -> None:
    image, points, _ = phantom(2)
    networks = Networks(Said(points), Copies(9))
    with pytest.raises(ValueError, match="MetaTensor with an affine"):
        CloseLookInferer(PATCH[2], 0.5)(image.as_tensor(), networks)
    with pytest.raises(ValueError, match="9 points, but there are 8 landmarks in 4 groups"):
        groups = LandmarkGroups(8, [[0, 1], [2, 3], [4, 5], [6, 7]])
        CloseLookInferer(PATCH[2], 0.5, groups)(image, networks)
    with pytest.raises(ValueError, match="coarse_weight"):
        CloseLookInferer(PATCH[2], 0.5, coarse_weight=2.0)
    half = torch.nn.AvgPool2d(2)
    for wrong in (Networks(half, Copies(9)), Networks(Said(points), torch.nn.Sequential(Copies(9), half))):
        with pytest.raises(ValueError, match="returned heatmaps of size.*their points would be at wrong places"):
            CloseLookInferer(PATCH[2], 0.5)(image, wrong)
    with pytest.raises(ValueError, match="one point per landmark"):
        CloseLookInferer(PATCH[2], 0.5)(image, Networks(lambda _: {"points": torch.zeros(2, 9, 5, 2)}, Copies(9)))
