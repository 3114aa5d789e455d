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

"""Coarse-to-fine supervision: both terms, both grids, and a loss that does not keep its network alive."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import sys
import weakref

import pytest
import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from monai.engines import SupervisedTrainer

from monai_landmarks.handlers import wrap_distributed
from monai_landmarks.losses import CoarseToFineLoss, EWCLoss, GaussianTarget, HeatmapL2Loss, SCNLoss
from monai_landmarks.networks.layers import OutputTap
from monai_landmarks.networks.nets import FARNet

SIZE = {2: (16, 13), 3: (10, 8, 9)}


class TinyNet(nn.Module):
    """Coarse heatmaps at half of the resolution, and fine heatmaps made from them."""

    def __init__(self, dims: int = 2, stride: tuple[int, ...] | int = 2) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.down = conv(1, 3, 3, stride=stride, padding=1)
        self.coarse = OutputTap()
        self.refine = conv(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.refine(F.interpolate(self.coarse(self.down(x)), x.shape[2:]))


def example(dims=2, device="cpu", stride=2):
    torch.manual_seed(0)
    network = TinyNet(dims, stride).to(device)
    points = torch.rand(2, 3, dims, device=device) * 7
    points[1, 2] = float("nan")
    return network, torch.randn(2, 1, *SIZE[dims], device=device), points


@pytest.mark.parametrize("points_have_a_channel", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_is_the_weighted_sum_of_both_terms(dims, points_have_a_channel, device):
    network, image, points = example(dims, device)
    fine, coarse = EWCLoss(GaussianTarget(sigma=3.0)), HeatmapL2Loss(GaussianTarget(sigma=1.5))
    expected = 2 * fine(network(image), points) + 0.3 * coarse(network.down(image), points / 2 - 0.25)
    loss = CoarseToFineLoss(fine, network, coarse, weights=(2.0, 0.3)).to(device)
    value = loss(network(image), points[:, None] if points_have_a_channel else points)
    assert torch.allclose(value, expected)


def test_the_coarse_term_is_by_default_the_fine_loss_with_as_many_pixels():
    network, image, points = example()
    fine = EWCLoss(GaussianTarget(sigma=4.0))
    expected = fine(network(image), points) + fine(network.down(image), points / 2 - 0.25)
    loss = CoarseToFineLoss(fine, network)
    assert torch.allclose(loss(network(image), points), expected)
    assert list(loss.state_dict()) == ["fine.target.raw_sigma"]


def test_a_stride_for_each_axis():
    network, image, points = example(3, stride=(1, 2, 2))
    fine = EWCLoss()
    moved = torch.stack([points[..., 0], points[..., 1] / 2 - 0.25, points[..., 2] / 2 - 0.25], dim=-1)
    expected = fine(network(image), points) + fine(network.down(image), moved)
    loss = CoarseToFineLoss(fine, network, coarse_stride=(1, 2, 2))
    assert torch.allclose(loss(network(image), points), expected)


@pytest.mark.parametrize("stride", [2, 4])
def test_the_grids_are_aligned_as_pooling_aligns_them(stride):
    # the mean over blocks of a wide Gaussian is a Gaussian at the same place: there the coarse loss must be least
    point = torch.tensor([[[31.3, 26.9]]])
    sigma = 8.0
    wide = GaussianTarget(sigma=sigma)(point, (64, 56))
    network = nn.Sequential()
    network.add_module("pool", nn.AvgPool2d(stride))
    network.add_module("coarse", OutputTap())
    blurred = (sigma**2 + (stride**2 - 1) / 12) ** 0.5 / stride
    # the mean over blocks keeps the mass, so the peak sinks as the width grows
    peak = (sigma / stride / blurred) ** 2
    term = HeatmapL2Loss(GaussianTarget(sigma=blurred, amplitude=peak), reduction="sum")
    loss = CoarseToFineLoss(term, network, weights=(0.0, 1.0), coarse_stride=stride)

    def at(shift):
        network(wide)
        return float(loss(wide, point + torch.tensor(shift)))

    least = at([0.0, 0.0])
    assert least < 1e-4
    assert all(at(shift) > 30 * least for shift in ([0.2, 0.0], [-0.2, 0.0], [0.0, 0.2], [0.0, -0.2]))


def test_both_terms_train_the_network():
    network, image, points = example()
    loss = CoarseToFineLoss(EWCLoss(), network)
    # the fine heatmaps of this network hide the coarse ones, so that only the coarse term can train what is before
    with torch.no_grad():
        network.refine.weight.zero_()
    loss(network(image), points).backward()
    assert network.down.weight.grad.abs().sum() > 0 and network.refine.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("who", ["loss", "network"])
def test_evaluation_has_the_fine_term_only(who):
    network, image, points = example()
    fine = EWCLoss()
    loss = CoarseToFineLoss(fine, network, weights=(2.0, 1.0))
    (loss if who == "loss" else network).eval()
    assert torch.equal(loss(network(image), points), 2 * fine(network(image), points))
    assert loss(network(image), points) == loss(network(image), points)


def test_what_evaluation_leaves_is_not_used_in_training():
    network, image, points = example()
    loss = CoarseToFineLoss(EWCLoss(), network)
    heatmaps = network.eval()(image)
    network.train()
    with pytest.raises(RuntimeError, match="made no coarse heatmaps"):
        loss(heatmaps, points)
    # a pass in training whose maps wait while the network is evaluated
    heatmaps = network(image)
    network.eval()
    loss(network(image), points)
    network.train()
    with pytest.raises(RuntimeError, match="made no coarse heatmaps"):
        loss(heatmaps, points)


def test_each_pass_counts_once():
    network, image, points = example()
    loss = CoarseToFineLoss(EWCLoss(), network)
    with pytest.raises(RuntimeError, match="Call the loss once after each pass"):
        loss(torch.zeros(2, 3, *SIZE[2]), points)
    heatmaps = network(image)
    loss(heatmaps, points)
    with pytest.raises(RuntimeError, match="Call the loss once after each pass"):
        loss(heatmaps, points)
    loss(network(image), points)


def test_gradients_accumulate_over_passes():
    network, image, points = example()
    points[1, 2] = 3.0
    loss = CoarseToFineLoss(EWCLoss(reduction="sum"), network)
    loss(network(image), points).backward()
    whole = network.down.weight.grad.clone()
    network.zero_grad()
    for i in range(2):
        loss(network(image[i : i + 1]), points[i : i + 1]).backward()
    assert torch.allclose(network.down.weight.grad, whole, rtol=1e-4, atol=1e-5)


def test_no_graph_stays_alive():
    network, image, points = example()
    loss = CoarseToFineLoss(EWCLoss(), network)
    seen = []
    network.coarse.register_forward_hook(lambda module, inputs, output: seen.append(weakref.ref(output)))
    heatmaps = network(image)
    assert seen[0]() is not None
    loss(heatmaps, points).backward()
    del heatmaps
    gc.collect()
    assert seen[0]() is None


@pytest.mark.parametrize("learn", [False, True])
def test_the_network_is_no_part_of_the_loss(learn):
    network, _, _ = example()
    before = list(network.state_dict())
    sub = SCNLoss(3, 2, learn_sigma=learn), SCNLoss(3, 2, learn_sigma=learn)
    loss = CoarseToFineLoss(sub[0], network, sub[1])
    assert list(network.state_dict()) == before
    assert set(loss.parameters()) == {p for s in sub for p in s.parameters()}
    assert len(list(loss.parameters())) == (2 if learn else 0)
    assert list(loss.state_dict()) == ["fine.target.raw_sigma", "coarse.target.raw_sigma"]
    assert not set(loss.modules()) & set(network.modules())


def test_learned_sigmas_of_both_grids_get_gradients():
    network, image, points = example()
    loss = CoarseToFineLoss(SCNLoss(3, 2), network, SCNLoss(3, 2))
    loss(network(image), points).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda network: pickle.loads(pickle.dumps(network))}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_of_the_network_feeds_no_loss(make):
    network, image, points = example()
    fine = EWCLoss()
    expected = fine(network(image), points) + fine(network.down(image), points / 2 - 0.25)
    loss = CoarseToFineLoss(fine, network)
    twin = make(network)
    with pytest.raises(RuntimeError, match="a copy of a network"):
        loss(twin(image), points)
    heatmaps = network(image)
    twin(torch.randn_like(image))
    assert torch.allclose(loss(heatmaps, points), expected)
    # the copy can have a loss of its own
    twin_loss = CoarseToFineLoss(fine, twin)
    assert torch.allclose(twin_loss(twin(image), points), expected)


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_of_the_loss_is_not_connected(make):
    network, image, points = example()
    loss = CoarseToFineLoss(EWCLoss(GaussianTarget(sigma=5.0)), network)
    heatmaps = network(image)  # with maps that wait
    twin = make(loss)
    assert torch.equal(twin.fine.target.sigma, loss.fine.target.sigma)
    with pytest.raises(RuntimeError, match="not connected"):
        twin(heatmaps, points)
    loss(heatmaps, points)


def test_two_losses_on_one_network():
    network, image, points = example()
    losses = [CoarseToFineLoss(EWCLoss(), network, weights=(0.0, w)) for w in (1.0, 2.0)]
    heatmaps = network(image)
    values = [loss(heatmaps, points) for loss in losses]
    assert torch.allclose(2 * values[0], values[1])


def test_neither_loss_nor_network_keeps_the_other_alive():
    network, image, points = example()
    kept = CoarseToFineLoss(EWCLoss(), network)
    lost = CoarseToFineLoss(EWCLoss(), network)
    network(image)
    gone = weakref.ref(lost)
    del lost
    gc.collect()
    assert gone() is None
    kept(network(image), points)
    # a new loss on the same network is connected, and nothing is left of the one that is gone
    new = CoarseToFineLoss(EWCLoss(), network)
    assert len(network.coarse._receivers) == 2
    assert torch.equal(new(network(image), points), kept(network(image), points))
    gone = weakref.ref(network), weakref.ref(network.coarse)
    del network
    gc.collect()
    assert gone[0]() is None and gone[1]() is None


def test_a_network_without_a_loss_keeps_no_maps():
    network, image, _ = example()
    loss = CoarseToFineLoss(EWCLoss(), network)
    seen = []
    network.coarse.register_forward_hook(lambda module, inputs, output: seen.append(weakref.ref(output)))
    del loss
    gc.collect()
    heatmaps = network(image)
    heatmaps.sum().backward()
    del heatmaps
    gc.collect()
    assert seen[0]() is None


def test_a_connected_network_can_be_scripted():
    network, image, points = example()
    losses = [CoarseToFineLoss(EWCLoss(), network) for _ in range(2)]
    for mode in (True, False):
        scripted = torch.jit.script(network.train(mode))
        file = io.BytesIO()
        torch.jit.save(scripted, file)
        file.seek(0)
        assert torch.equal(torch.jit.load(file)(image), network(image))
    network.train()
    expected = losses[0](network(image), points)
    assert torch.equal(losses[0](network(image), points), expected)


def test_a_connected_network_can_be_compiled():
    network, image, points = example()
    loss = CoarseToFineLoss(EWCLoss(), network)
    expected = loss(network(image), points)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    for _ in range(2):
        assert torch.allclose(loss(compiled(image), points), expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype, device):
    network, image, points = example(device=device)
    loss = CoarseToFineLoss(EWCLoss(), network).to(device)
    expected = loss(network(image), points)
    with torch.autocast(device.type, dtype=dtype):
        heatmaps = network(image)
        assert heatmaps.dtype == dtype
        value = loss(heatmaps, points)
    assert value.dtype == torch.float32
    assert torch.allclose(value, expected, rtol=0.02)
    value.backward()
    assert network.down.weight.grad.isfinite().all()


def test_wrapped_for_several_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # torch's process group leaves one of its own
    network, image, points = example()
    loss = CoarseToFineLoss(SCNLoss(3, 2), network)
    expected = loss(network(image), points)
    expected.backward()
    gradients = [p.grad.clone() for p in (*network.parameters(), *loss.parameters())]
    network.zero_grad()
    loss.zero_grad()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        both = [wrap_distributed(module, torch.device("cpu")) for module in (network, loss)]
        assert all(isinstance(module, nn.parallel.DistributedDataParallel) for module in both)
        for accumulated in (1, 2):
            value = both[1](both[0](image), points)
            value.backward()
            assert torch.allclose(value, expected)
            for p, g in zip((*network.parameters(), *loss.parameters()), gradients):
                assert torch.allclose(p.grad, accumulated * g, rtol=1e-4, atol=1e-5)
    finally:
        dist.destroy_process_group()


def test_in_monais_trainer():
    network, image, points = example()
    before = copy.deepcopy(network)
    fine = EWCLoss()
    batch = {"image": image, "label": points}
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch, batch],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.01),
        loss_function=CoarseToFineLoss(fine, network),
        decollate=False,
    )
    trainer.run()
    optimizer = torch.optim.SGD(before.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        (fine(before(image), points) + fine(before.down(image), points / 2 - 0.25)).backward()
        optimizer.step()
    assert torch.allclose(network.down.weight, before.down.weight, atol=1e-6)


@pytest.mark.parametrize("dims,size", [(2, (40, 33)), (3, (33, 40, 36))])
def test_farnet(dims, size):
    torch.manual_seed(0)
    network = FARNet(dims, 1, 2, backbone="resnet18", features=8, num_stages=4)
    image, points = torch.rand(2, 1, *size), torch.rand(2, 2, dims) * 30
    fine = EWCLoss(GaussianTarget(sigma=4.0))
    heatmaps, coarse = network.forward_maps(image)
    expected = fine(heatmaps, points) + fine(coarse, points / 2 - 0.25)
    loss = CoarseToFineLoss(fine, network)
    value = loss(network(image), points)
    assert torch.allclose(value, expected, rtol=1e-5)
    value.backward()
    assert all(p.grad is not None for p in network.coarse_head.parameters())


def test_unknown_layer():
    with pytest.raises(ValueError, match="no layer 'middle'; it has down, coarse, refine"):
        CoarseToFineLoss(EWCLoss(), TinyNet(), layer="middle")
    with pytest.raises(ValueError, match="layer 'refine' of TinyNet is a Conv2d: .* OutputTap"):
        CoarseToFineLoss(EWCLoss(), TinyNet(), layer="refine")


@pytest.mark.parametrize(
    "arguments", [{"weights": (1.0,)}, {"weights": (1.0, -1.0)}, {"coarse_stride": 0}, {"coarse_stride": (2, -2)}]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        CoarseToFineLoss(EWCLoss(), TinyNet(), **arguments)


def test_target_heatmaps_are_refused():
    network, image, points = example()
    with pytest.raises(ValueError, match="pass index points"):
        CoarseToFineLoss(EWCLoss(), network)(network(image), GaussianTarget()(points, SIZE[2]))


@pytest.mark.parametrize("stride", [1, 3, (2, 4), (2, 2, 2)])
def test_another_stride_than_the_networks_is_refused(stride):
    network, image, points = example()
    with pytest.raises(ValueError, match="coarse_stride"):
        CoarseToFineLoss(EWCLoss(), network, coarse_stride=stride)(network(image), points)


def test_coarse_heatmaps_of_another_batch_are_refused():
    network, image, points = example()
    loss = CoarseToFineLoss(EWCLoss(), network)
    heatmaps = network(image)
    network(image[:1])
    with pytest.raises(ValueError, match="do not match"):
        loss(heatmaps, points)
