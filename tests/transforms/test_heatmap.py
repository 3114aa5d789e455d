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

"""Heatmap transforms: types, spaces, the reference image, and the way there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import Compose, GenerateHeatmap, Resized, SpatialCropd

from monai_landmarks.losses import CoarseToFineLoss, SCNLoss, TargetSigma
from monai_landmarks.networks.nets import LocalizationUNet
from monai_landmarks.transforms import (
    HeatmapToLandmarks,
    HeatmapToLandmarksd,
    LandmarksToHeatmap,
    LandmarksToHeatmapd,
    LandmarksToIndexd,
)
from monai_landmarks.transforms.lost_affine import mark_loaded
from monai_landmarks.uncertainty import sigma_path

POINTS = {2: [[10.25, 20.5], [30.75, 12.0]], 3: [[10.25, 20.5, 9.75], [20.5, 12.0, 15.25]]}
SHAPE = {2: (40, 48), 3: (32, 40, 28)}
AFFINE = np.array([[0.0, -0.5, 0.0, 12.0], [0.8, 0.0, 0.0, -30.0], [0.0, 0.0, 2.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


def to_world(index, affine=AFFINE):
    index = np.asarray(index)
    padded = np.zeros((len(index), 3))
    padded[:, : index.shape[1]] = index
    return (padded @ affine[:3, :3].T + affine[:3, 3])[:, : index.shape[1]]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "kind", [np.array, torch.tensor, lambda p: MetaTensor(torch.tensor(p), affine=torch.eye(4) * 2)]
)
@pytest.mark.parametrize("channel_axis", [False, True])
def test_types_are_kept_and_the_round_trip_is_exact(dims, kind, channel_axis):
    points = kind(POINTS[dims])
    heatmaps = LandmarksToHeatmap(sigma=2.0)(points[None] if channel_axis else points, spatial_shape=SHAPE[dims])
    assert type(heatmaps) is type(points)
    assert heatmaps.shape == (2, *SHAPE[dims])
    if isinstance(points, MetaTensor):
        assert torch.equal(heatmaps.affine, points.affine)
    found = HeatmapToLandmarks()(heatmaps)
    assert np.allclose(np.asarray(found.points), POINTS[dims], atol=1e-3)
    assert all(isinstance(values, np.ndarray) == isinstance(points, np.ndarray) for values in found)


def test_whole_numbers_of_any_type() -> None:
    points = np.round(POINTS[2])
    found, expected = (LandmarksToHeatmap()(points.astype(kind), SHAPE[2]) for kind in (np.int64, np.float32))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_agrees_with_monai_where_monai_is_exact(dims):
    # on whole voxels MONAI's rounding changes nothing; its truncated, integrated kernel differs by a percent or so
    points = torch.tensor(POINTS[dims]).round()
    ours = LandmarksToHeatmap(sigma=3.0)(points, spatial_shape=SHAPE[dims])
    theirs = GenerateHeatmap(sigma=3.0)(points, spatial_shape=SHAPE[dims])
    assert (ours - theirs).abs().max() < 0.03


@pytest.mark.parametrize("dims", [2, 3])
def test_score_and_covariance_on_request(dims):
    heatmaps = LandmarksToHeatmap(sigma=2.0, amplitude=3.0)(torch.tensor(POINTS[dims]), spatial_shape=SHAPE[dims])
    points, score, covariance = HeatmapToLandmarks()(heatmaps)
    assert torch.equal(score, heatmaps.flatten(1).amax(1))
    assert torch.allclose(covariance, 4 * torch.eye(dims).expand(2, dims, dims), atol=1e-2)


def test_batches():
    heatmaps = LandmarksToHeatmap(sigma=2.0)(torch.tensor(POINTS[2]), spatial_shape=SHAPE[2])
    points = HeatmapToLandmarks(spatial_dims=2)(torch.stack([heatmaps, heatmaps.flip(0)])).points
    assert points.shape == (2, 2, 2) and torch.allclose(points[0], points[1].flip(0))


@pytest.mark.parametrize("dims", [2, 3])
def test_sigma_in_mm_follows_the_spacing(dims):
    spacing = (0.5, 2.0, 1.0)[:dims]
    points = torch.tensor(POINTS[dims])
    in_mm = LandmarksToHeatmap(sigma=2.0, unit="mm")(points, SHAPE[dims], spacing=spacing)
    in_voxels = LandmarksToHeatmap(sigma=[[2.0 / s for s in spacing]])(points, SHAPE[dims])
    assert torch.allclose(in_mm, in_voxels, atol=1e-6)
    affine = torch.diag(torch.tensor([*spacing, *[1.0] * (4 - dims)], dtype=torch.float64))
    from_affine = LandmarksToHeatmap(sigma=2.0, unit="mm")(MetaTensor(points, affine=affine), SHAPE[dims])
    assert torch.allclose(from_affine.as_tensor(), in_voxels, atol=1e-6)


def test_sigma_in_mm_without_a_spacing_is_refused():
    with pytest.raises(ValueError, match="spacing"):
        LandmarksToHeatmap(sigma=2.0, unit="mm")(torch.zeros(1, 2), (8, 8))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("space", ["world", "index"])
def test_dictionary_round_trip_through_the_world(dims, space):
    image = MetaTensor(torch.zeros(1, *SHAPE[dims]), affine=torch.as_tensor(AFFINE))
    index = POINTS[dims] + [[float("nan")] * dims]
    label = to_world(index)[None] if space == "world" else np.array(index)[None]
    points = MetaTensor(torch.as_tensor(label), affine=torch.eye(4) if space == "world" else image.affine)
    data = LandmarksToHeatmapd("label", sigma=2.0)({"image": image, "label": points})
    assert data["label_heatmap"].shape == (3, *SHAPE[dims])
    assert torch.equal(data["label_heatmap"].affine, image.affine)
    data = HeatmapToLandmarksd("label_heatmap", points_keys="found")(data)
    assert data["found"].shape == (1, 3, dims)
    assert torch.equal(data["found"].affine, torch.eye(4, dtype=torch.float64))
    assert np.allclose(data["found"][0].numpy(), to_world(index), atol=2e-3, equal_nan=True)
    assert data["label_heatmap_scores"].tolist()[2] == 0
    # a rotated, anisotropic grid: the covariance in mm has the spacings squared, along the axes the affine leads to
    linear = AFFINE[:dims, :dims]
    assert np.allclose(data["label_heatmap_covariances"][0].numpy(), 4 * linear @ linear.T, atol=0.05)


def test_dictionary_index_space():
    image = MetaTensor(torch.zeros(1, *SHAPE[2]), affine=torch.as_tensor(AFFINE))
    heatmaps = LandmarksToHeatmap(sigma=2.0)(torch.tensor(POINTS[2]), SHAPE[2])
    data = HeatmapToLandmarksd("pred", space="index")({"pred": heatmaps, "image": image})
    assert torch.equal(data["pred_points"].affine, image.affine)
    assert np.allclose(data["pred_points"][0].numpy(), POINTS[2], atol=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_logits(dims):
    """A Gaussian's logarithm and any constant are the logits of that Gaussian with mass 1."""
    heatmaps = LandmarksToHeatmap(sigma=2.0, normalize="mass")(torch.tensor(POINTS[dims]), SHAPE[dims])[:2]
    logits = heatmaps.clamp(min=1e-30).log() - 50
    points, score, covariance = HeatmapToLandmarks(softmax=True)(logits)
    expected = HeatmapToLandmarks()(heatmaps)
    for found, right in zip((points, score, covariance), expected):
        torch.testing.assert_close(found, right, rtol=1e-2, atol=1e-4)
    batch = HeatmapToLandmarks(softmax=True, spatial_dims=dims)(logits[None].expand(2, *logits.shape))
    torch.testing.assert_close(batch.points[1], points)
    image = MetaTensor(torch.zeros(1, *SHAPE[dims]), affine=torch.as_tensor(AFFINE))
    decode = HeatmapToLandmarksd("pred", space="index", softmax=True)
    torch.testing.assert_close(decode({"pred": logits, "image": image})["pred_points"][0].as_tensor().float(), points)


def test_a_softmax_of_points_is_refused():
    """An inferer that returns points has not applied it, so the points and scores may be wrong."""
    found = {"points": torch.ones(1, 2), "scores": torch.ones(1), "covariances": torch.eye(2)[None]}
    decode = HeatmapToLandmarksd("pred", refer_keys=None, space="index", softmax=True)
    with pytest.raises(ValueError, match="softmax=True needs heatmaps, but an inferer returned points"):
        decode({"pred": found})
    decode = HeatmapToLandmarksd("pred", refer_keys=None, space="index")
    assert torch.equal(decode({"pred": found})["pred_points"][0].as_tensor(), torch.ones(1, 2).double())


def test_shape_is_that_of_the_image_as_it_is_now():
    image = MetaTensor(torch.zeros(1, 64, 80), affine=torch.eye(4), meta={"spatial_shape": (64, 80)})
    points = MetaTensor(torch.tensor([[[30.0, 40.0]]]), affine=torch.eye(4))
    pipeline = Compose(
        [
            Resized("image", (32, 40), mode="bilinear"),
            SpatialCropd("image", roi_start=(4, 8), roi_end=(28, 40)),
            LandmarksToHeatmapd("label", sigma=2.0),
        ]
    )
    data = pipeline({"image": image, "label": points})
    assert data["label_heatmap"].shape == (1, 24, 32)
    # resizing maps x to (x + 1/2) / 2 - 1/2, cropping subtracts the start
    expected = (torch.tensor([30.0, 40.0]) + 0.5) / 2 - 0.5 - torch.tensor([4.0, 8.0])
    assert torch.allclose(HeatmapToLandmarks()(data["label_heatmap"]).points[0], expected, atol=1e-3)


def test_shape_without_an_image() -> None:
    data = LandmarksToHeatmapd("label", refer_keys=None, spatial_shape=(16, 24))({"label": torch.tensor([[8.0, 9.0]])})
    assert torch.equal(data["label_heatmap"], LandmarksToHeatmap()(data["label"], (16, 24)))
    with pytest.raises(KeyError, match="refer_keys=None"):
        HeatmapToLandmarksd("pred")({"pred": torch.zeros(1, 8, 8)})


def test_world_points_without_their_image_are_refused() -> None:
    affine = torch.diag(torch.tensor([-0.5, -0.5, 1.0, 1.0]))
    world = MetaTensor(torch.tensor([[[-4.0, -4.5]]]), affine=torch.eye(4))
    item = {"image": MetaTensor(torch.zeros(1, 16, 24), affine=affine), "label": world}
    mark_loaded(item, ["label"])
    draw = LandmarksToHeatmapd("label", refer_keys=None, spatial_shape=(16, 24))
    with pytest.raises(ValueError, match="'label' are world points, which are no pixels of the image 'image'"):
        draw(item)
    maps = draw(LandmarksToIndexd("label")(item))["label_heatmap"]
    assert torch.equal(maps, LandmarksToHeatmap()(torch.tensor([[8.0, 9.0]]), (16, 24)))


def test_heatmaps_are_not_cached():
    items = [{"image": MetaTensor(torch.zeros(1, 32, 32), affine=torch.eye(4)), "label": torch.tensor([[8.0, 9.0]])}]
    dataset = CacheDataset(items, Compose([LandmarksToHeatmapd("label")]), progress=False)
    assert "label_heatmap" not in dataset._cache[0]
    assert dataset[0]["label_heatmap"].shape == (1, 32, 32)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LandmarksToHeatmap(sigma=0.0),
        lambda: LandmarksToHeatmap(unit="cm"),
        lambda: LandmarksToHeatmap(amplitude=0),
        lambda: LandmarksToHeatmap(dtype=np.int32),
        lambda: LandmarksToHeatmap()(np.zeros((2, 2))),
        lambda: LandmarksToHeatmap()(np.zeros((2, 2, 2)), (8, 8)),
        lambda: LandmarksToHeatmapd("label", refer_keys=None),
        lambda: LandmarksToHeatmapd("label", spatial_shape=(8, 8)),
        lambda: LandmarksToHeatmapd(["a", "b"], heatmap_keys="c"),
        lambda: HeatmapToLandmarksd("pred", space="voxel"),
        lambda: HeatmapToLandmarksd("pred", score_keys=["a", "b"]),
        lambda: HeatmapToLandmarksd("pred", refer_keys=None)({"pred": torch.zeros(1, 8, 8)}),
        # heatmaps of half the image's resolution
        lambda: HeatmapToLandmarksd("pred")(
            {"pred": torch.zeros(1, 8, 8), "image": MetaTensor(torch.zeros(1, 16, 16))}
        ),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize("dims", [2, 3])
def test_covariance_from_a_learned_sigma(dims):
    heatmaps = LandmarksToHeatmap(sigma=2.0)(torch.tensor([*POINTS[dims], [float("nan")] * dims]), SHAPE[dims])
    decoder = HeatmapToLandmarks(covariance="sigma", sigma=[[1.5], [3.0], [2.0]])
    points, _, covariance = decoder(heatmaps)
    assert np.allclose(points[:2], POINTS[dims], atol=1e-3)
    assert torch.equal(covariance[:2], torch.stack([torch.eye(dims) * 1.5**2, torch.eye(dims) * 9]))
    assert covariance[2].isnan().all()


@pytest.mark.parametrize("dims", [2, 3])
def test_sigma_of_a_file(dims, tmp_path):
    """What a loss has learned, for heatmaps and for points of an inferer, in mm."""
    sigma = torch.tensor([1.5, 3.0])
    loss = SCNLoss(2, dims, sigma=sigma.tolist())
    network = LocalizationUNet(dims, 1, 2, (4,) * 6, deep_supervision=2)
    for step in ("upcat_2", "upcat_3"):  # the sigma of the fine heatmaps
        loss = CoarseToFineLoss(loss, network, SCNLoss(2, dims, sigma=9.0), layer=f"{step}.coarse")
    torch.save(TargetSigma(loss).state_dict(), tmp_path / "model_sigma.pt")
    image = MetaTensor(torch.zeros(1, *SHAPE[dims]), affine=np.diag([0.5] * 3 + [1]))
    maps = LandmarksToHeatmap(sigma=2.0)(torch.tensor(POINTS[dims]), SHAPE[dims])
    decode = HeatmapToLandmarksd("pred", covariance="sigma", sigma=sigma_path(tmp_path / "model.pt"))
    points, covariance = torch.tensor(POINTS[dims]), torch.eye(dims).repeat(2, 1, 1)
    for pred in (maps, {"points": points, "scores": torch.ones(2), "covariances": covariance}):
        found = decode({"pred": pred, "image": image})
        expected = (0.5 * sigma[:, None, None]) ** 2 * torch.eye(dims)
        assert torch.allclose(found["pred_covariances"].float(), expected)


def test_no_file_of_a_sigma(tmp_path):
    path = tmp_path / "model_sigma.pt"
    with pytest.raises(ValueError, match="there is no such file"):
        HeatmapToLandmarks(covariance="sigma", sigma=path)
    for wrong in (
        {"weight": torch.ones(2, 1)},
        {"sigma": torch.zeros(2, 1)},
        {"sigma": torch.ones(2)},
        torch.nn.ReLU(),
    ):
        torch.save(wrong, path)
        with pytest.raises(ValueError, match=str(path)):
            HeatmapToLandmarks(covariance="sigma", sigma=path)
    with pytest.raises(ValueError, match="ReLU has no GaussianTarget"):
        TargetSigma(torch.nn.ReLU())


def test_ensembles_in_a_batch_and_of_absent_landmarks():
    """Members in front, then any leading axes; where the mean shows no landmark there is no covariance."""
    maps = LandmarksToHeatmap(sigma=2.0)(torch.tensor(POINTS[2]), SHAPE[2])
    members = torch.stack([maps, maps.roll(1, dims=-1)])[:, None].repeat(1, 4, 1, 1, 1)
    members[:, 2, 1] = 0
    points, _, covariance = HeatmapToLandmarks(spatial_dims=2, covariance="spread")(members)
    assert points.shape == (4, 2, 2) and covariance.shape == (4, 2, 2, 2)
    assert torch.allclose(covariance[0, 0], torch.diag(torch.tensor([0.0, 0.5])), atol=1e-3)
    assert torch.allclose(points[0], torch.tensor(POINTS[2]) + torch.tensor([0, 0.5]), atol=1e-2)
    assert covariance[2, 1].isnan().all() and points[2, 1].isnan().all() and covariance.isfinite().sum() == 4 * 7
    # the image has the grid of the members' maps, not their number
    item = {"pred": members[:, 0], "image": torch.zeros(1, *SHAPE[2])}
    found = HeatmapToLandmarksd("pred", space="index", covariance="spread")(item)
    assert torch.allclose(found["pred_points"][0].float(), points[0])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"covariance": "none"}, "Available options"),
        ({"covariance": "sigma"}, "needs a sigma"),
        ({"sigma": 2.0}, "needs a sigma, and other sources"),
    ],
)
def test_unknown_sources_of_a_covariance(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeatmapToLandmarks(**arguments)
