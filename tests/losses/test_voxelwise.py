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

"""Missing landmarks, maps and points, reductions and half precision in all losses between heatmaps."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.losses import AdaptiveWingLoss, EWCLoss, GaussianTarget, HeatmapL2Loss
from monai_landmarks.losses.voxelwise import VoxelwiseLoss

SHAPE = {2: (12, 14), 3: (8, 9, 10)}
LOSSES = [HeatmapL2Loss, EWCLoss, AdaptiveWingLoss]
UNIT_LOSSES = [EWCLoss, AdaptiveWingLoss]


def example(dims, device="cpu"):
    torch.manual_seed(0)
    points = torch.rand(2, 3, dims, device=device) * 7
    points[1, 2] = float("nan")
    return torch.randn(2, 3, *SHAPE[dims], device=device), points


@pytest.mark.parametrize("missing,maps_that_count", [("ignore", 5), ("absent", 6)])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", LOSSES)
def test_reductions(kind, dims, missing, maps_that_count, device):
    prediction, points = example(dims, device)
    value = {r: kind(missing=missing, reduction=r)(prediction, points) for r in ("none", "sum", "mean")}
    assert value["none"].shape == (2, 3) and int((value["none"] > 0).sum()) == maps_that_count
    for b in range(2):
        for n in range(3):
            alone = kind(missing=missing, reduction="sum")(
                prediction[b : b + 1, n : n + 1], points[b : b + 1, n : n + 1]
            )
            assert torch.allclose(value["none"][b, n], alone)
    assert torch.allclose(value["sum"], value["none"].sum())
    assert torch.allclose(value["mean"], value["sum"] / (maps_that_count * prediction[0, 0].numel()))


@pytest.mark.parametrize("kind", LOSSES)
def test_in_a_chain_the_next_one_is_unknown_and_those_beyond_are_absent(kind):
    """The second and third of five landmarks are known. The first and fourth may be cut off, the fifth is absent."""
    points = torch.rand(1, 5, 2) * 7
    points[0, [0, 3, 4]] = float("nan")
    prediction = torch.randn(1, 5, *SHAPE[2])
    values = {m: kind(missing=m, reduction="none")(prediction, points)[0] for m in ("ignore", "absent", "chain")}
    assert (values["chain"] == 0).tolist() == [True, False, False, True, False]
    assert torch.equal(values["chain"][[1, 2]], values["ignore"][[1, 2]])
    assert torch.equal(values["chain"][4], values["absent"][4])


@pytest.mark.parametrize("missing", ["ignore", "absent"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", LOSSES)
def test_heatmaps_and_points_give_the_same(kind, dims, missing, device):
    prediction, points = example(dims, device)
    target = GaussianTarget(sigma=1.5).to(device)
    maps = target(points, SHAPE[dims])
    maps[1, 2] = float("nan")  # a missing landmark as a map
    loss = kind(target, missing=missing)
    assert torch.allclose(loss(prediction, maps), loss(prediction, points))


@pytest.mark.parametrize("kind", LOSSES)
def test_unknown_landmarks_get_no_gradient_and_absent_ones_do(kind):
    for missing, moved in (("ignore", False), ("absent", True)):
        prediction, points = example(2)
        prediction.requires_grad_()
        kind(missing=missing)(prediction, points).backward()
        assert prediction.grad.isfinite().all()
        assert bool(prediction.grad[1, 2].abs().sum() > 0) == moved
        assert prediction.grad[0].abs().sum() > 0


@pytest.mark.parametrize("kind", LOSSES)
def test_all_missing_is_zero_not_nan(kind):
    prediction, points = example(2)
    loss = kind()(prediction.requires_grad_(), torch.full_like(points, float("nan")))
    loss.backward()
    assert loss == 0 and prediction.grad.abs().max() == 0


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", LOSSES)
def test_gradcheck(kind, dims):
    torch.manual_seed(0)
    prediction = torch.randn(1, 2, *(4,) * dims, dtype=torch.float64, requires_grad=True)
    points = torch.rand(1, 2, dims, dtype=torch.float64) * 3
    assert torch.autograd.gradcheck(lambda p: kind()(p, points), (prediction,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", LOSSES)
def test_small_dtypes_are_summed_in_float32(kind, dtype):
    # far from the point every target is zero; the sums are far above the largest half, and too long for bfloat16
    prediction = torch.full((1, 1, 256, 256), 60.0, dtype=dtype, requires_grad=True)
    far = torch.tensor([[[1e4, 1e4]]])
    loss = kind(reduction="sum")
    value = loss(prediction, far)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(65536 * float(loss(prediction[..., :1, :1], far)), rel=1e-5)
    value.backward()
    assert prediction.grad.dtype == dtype and prediction.grad.isfinite().all()


def test_a_loss_of_the_prediction_alone_sees_float32():
    class Sum(VoxelwiseLoss):
        def voxel_loss(self, heatmaps, maps, peak):
            return heatmaps

    prediction = torch.full((1, 1, 256, 256), 60.0, dtype=torch.float16)
    assert Sum(reduction="sum")(prediction, torch.tensor([[[1.0, 2.0]]])) == 65536 * 60
    assert Sum()(prediction.double(), torch.tensor([[[1.0, 2.0]]])).dtype == torch.float64


@pytest.mark.parametrize("kind", LOSSES)
def test_autocast_changes_nothing(kind, device):
    prediction, points = example(2, device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        value = kind()(prediction, points)
    assert torch.equal(value, kind()(prediction, points))


@pytest.mark.parametrize("kind", LOSSES)
def test_meta_tensors_give_a_plain_loss(kind):
    prediction, points = example(2)
    loss = kind()(MetaTensor(prediction), MetaTensor(points[:, None]))
    assert type(loss) is torch.Tensor
    assert torch.allclose(loss, kind()(prediction, points))


@pytest.mark.parametrize("kind", LOSSES)
def test_sigma_learns_from_points(kind):
    # the prediction is wider than the target, which can only grow
    target = GaussianTarget(sigma=1.5, learnable=True)
    points = torch.full((1, 1, 2), 8.0)
    kind(target)(GaussianTarget(sigma=2.0)(points, (17, 17)), points).backward()
    assert float(target.raw_sigma.grad) < 0


@pytest.mark.parametrize(
    "target", [{"amplitude": 10.0}, {"normalize": "mass"}, {"normalize": "mass", "amplitude": 100.0}]
)
@pytest.mark.parametrize("kind", UNIT_LOSSES)
def test_a_target_whose_peak_is_not_one_is_refused(kind, target):
    with pytest.raises(ValueError, match="peak must be 1"):
        kind(GaussianTarget(**target))


@pytest.mark.parametrize("kind", UNIT_LOSSES)
def test_maps_outside_the_unit_range_are_refused(kind):
    prediction, points = example(2)
    maps = GaussianTarget()(points, SHAPE[2])
    kind()(prediction, maps)
    for wrong in (2 * maps, -maps, maps - 0.5):
        with pytest.raises(ValueError, match="divide them by their peak"):
            kind()(prediction, wrong)


@pytest.mark.parametrize("arguments", [{"missing": "skip"}, {"reduction": "median"}])
@pytest.mark.parametrize("kind", LOSSES)
def test_bad_arguments(kind, arguments):
    with pytest.raises(ValueError):
        kind(**arguments)
