# %% [markdown]
# # FARNet: aggregate, then refine
#
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
#
# FARNet, the Feature Aggregation and Refinement Network of Ao and Wu (2023), extracts features with a *backbone* made for image classification. It converts them to heatmaps in two steps: coarse heatmaps
# at half of the resolution, then fine ones. This lesson shows each part on hand phantoms of 64 x 64 pixels and trains a small FARNet in less than a minute on a CPU.
# [02_train_scn](02_train_scn.py) solves the same task with files, MONAI's transforms and metrics in millimeters; this lesson uses a plain training loop.

# %% [markdown]
# ## Setup environment

# %%
# !python -c "import monai_landmarks" || pip install -q -e ".."

# %% [markdown]
# ## Setup imports

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from monai.config import print_config
from monai.utils import set_determinism

from monai_landmarks.data.datasets.phantom import hand_phantom
from monai_landmarks.losses import CoarseToFineLoss, EWCLoss, GaussianTarget
from monai_landmarks.networks.nets import FARNet
from monai_landmarks.transforms import HeatmapToLandmarks, RandLandmarkWarp

print_config()
set_determinism(seed=0)

# %% [markdown]
# ## Images and points
#
# There are 48 hands for training and 12 for testing, each with 37 landmarks. Points are index coordinates: whole numbers are pixel centers.

# %%
size = (64, 64)
phantoms = [hand_phantom(seed, size=size) for seed in range(60)]
images = torch.stack([torch.tensor(image)[None] for image, _ in phantoms])
points = torch.stack([torch.tensor(landmarks.points, dtype=torch.float32) for _, landmarks in phantoms])
train_images, test_images = images[:48], images[48:]
train_points, test_points = points[:48], points[48:]
names = phantoms[0][1].names
print("images", tuple(train_images.shape), "points", tuple(train_points.shape))

# %% [markdown]
# ## The network
#
# `FARNet(spatial_dims=2, in_channels=1, num_landmarks=37)` is the published network with DenseNet-121 as its backbone. This lesson uses a smaller one: a narrower ResNet-18 without its last stage.
#
# * The **backbone** has an output after each stage, with half of the resolution of the previous one. Deeper outputs cover more of the image but are less precise.
# * The **aggregation** combines these outputs on three paths: up to fine grids, down again, and up again. It returns features at half of the resolution that cover the whole hand.
# * The **coarse heatmaps** are computed from these features.
# * The **refinement** takes the image, the features and the coarse heatmaps at full resolution and computes the fine heatmaps.

# %%
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
net = FARNet(
    spatial_dims=2,
    in_channels=1,
    num_landmarks=len(names),
    backbone="resnet18",
    num_stages=4,
    features=64,
    max_features=128,
).to(device)


def run(images):
    """Fine and coarse heatmaps, and the outputs of the backbone."""
    taps = []
    hook = net.backbone.register_forward_hook(lambda module, inputs, outputs: taps.extend(outputs))
    net.eval()
    with torch.no_grad():
        fine, coarse = net.forward_maps(images.to(device))
    hook.remove()
    return fine.cpu(), coarse.cpu(), [tap.cpu() for tap in taps]


fine, coarse, taps = run(test_images)
print(f"{sum(p.numel() for p in net.parameters()):,} parameters")
for number, tap in enumerate(taps, start=1):
    print(f"tap {number}: {tap.shape[1]} channels of {tuple(tap.shape[2:])}")
print(
    f"coarse heatmaps: {coarse.shape[1]} of {tuple(coarse.shape[2:])}, fine: {fine.shape[1]} of {tuple(fine.shape[2:])}"
)

# %% [markdown]
# ## Errors before training
#
# The mean radial error (MRE) is the mean distance between prediction and annotation, here in pixels. The untrained network can only guess. A heatmap without positive values
# gives no point.

# %%
decode = HeatmapToLandmarks()


def errors(heatmaps, points):
    found = torch.stack([torch.as_tensor(decode(maps).points) for maps in heatmaps])
    return torch.linalg.vector_norm(found - points, dim=-1)


before = errors(fine, test_points)
mre_before = before.nanmean().item()
print(f"MRE before training: {mre_before:.1f} px; {before.isnan().float().mean():.0%} without a point")

# %% [markdown]
# ## The loss: exponential weights
#
# Almost all pixels of a heatmap are background. With a plain squared error, a network that predicts zero everywhere has a small loss and may stay there for a long time. The Exponential Weighted Center (EWC)
# loss multiplies the squared error by alpha to the power of the target: 1 in the background, and alpha = 40 at the landmark. The weight decreases faster than the target:
# where the target is one half, the weight is 6.3.

# %%
sigma = 2.0
pixel_loss = EWCLoss(GaussianTarget(sigma=sigma), alpha=40.0)
target = pixel_loss.target(test_points[0, -1:], size)[0]
weight = pixel_loss.alpha**target

row, column = (int(round(index)) for index in test_points[0, -1].tolist())
around = slice(row - 8, row + 9), slice(column - 8, column + 9)
figure, axes = plt.subplots(1, 3, figsize=(15, 4))
for axis, title, shown in zip(axes, (f"target: {names[-1]}", "weight"), (target, weight)):
    plt.colorbar(axis.imshow(shown[around].T), ax=axis)
    axis.set_title(title)
    axis.axis("off")
axes[2].plot(range(-8, 9), target[around][:, 8], "o-", color="tab:blue", label="target")
axes[2].plot(range(-8, 9), weight[around][:, 8] / pixel_loss.alpha, "o-", color="tab:orange", label="weight / alpha")
axes[2].set_xlabel("pixels from the one nearest to the landmark")
axes[2].legend()
plt.show()

# %% [markdown]
# The share of the total weight close to the landmark, where the target is above 0.05:

# %%
for alpha in (1.0, 40.0):
    share = EWCLoss(GaussianTarget(sigma=sigma), alpha=alpha).weight_share(size)
    print(f"alpha {alpha:2.0f}: {share:5.1%} of the weight")

# %% [markdown]
# ## Coarse to fine
#
# Both heatmaps are supervised, but `net(image)` returns only the fine ones, as other code expects. `CoarseToFineLoss` reads the coarse heatmaps from the network.
# Sigma has the same number of pixels on both grids, so the coarse target is twice as wide in the image: the network first learns the rough position, then the exact one.
#
# The training loop warps a few images with their points, predicts, computes the loss and updates the weights.

# %%
loss_function = CoarseToFineLoss(pixel_loss, net).to(device)
warp = RandLandmarkWarp(
    translate_range=4, rotate_range=0.2, scale_range=0.1, elastic_range=4, unit="voxel", prob=1.0
).set_random_state(0)
max_steps, batch_size = 80, 4
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=max_steps)
losses = []
net.train()
for step in range(1, max_steps + 1):
    chosen = torch.randint(len(train_images), (batch_size,))
    pairs = [warp(train_images[i], train_points[i]) for i in chosen]
    batch_images, batch_points = (torch.stack([torch.as_tensor(item) for item in items]) for items in zip(*pairs))
    loss = loss_function(net(batch_images.to(device)), batch_points)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
    if step % 10 == 0:
        print(f"step {step:2d} of {max_steps}: loss {np.mean(losses[-10:]):.4f}")

plt.semilogy(range(1, max_steps + 1), losses)
plt.xlabel("step")
plt.ylabel("training loss")
plt.show()

# %% [markdown]
# ## Errors after training
#
# A coarse pixel covers two fine pixels along each axis: index i of the coarse grid is index 2i + 0.5 of the image. With this, the coarse heatmaps can be decoded too.

# %%
fine, coarse, taps = run(test_images)
fine_errors = errors(fine, test_points)
mre_after = fine_errors.mean().item()
mre_coarse = 2 * errors(coarse, (test_points - 0.5) / 2).mean().item()
print(f"MRE {mre_before:.1f} px before, {mre_after:.2f} px after training; of the coarse heatmaps {mre_coarse:.2f} px")
assert mre_after < 2

figure, axes = plt.subplots(1, 4, figsize=(16, 4.5))
for axis, image, true, heatmaps in zip(axes, test_images, test_points, fine):
    axis.imshow(image[0].T, cmap="gray")
    axis.plot(*true.T, "o", color="tab:orange", markersize=4, label="true")
    axis.plot(*torch.as_tensor(decode(heatmaps).points).T, "x", color="tab:cyan", markersize=4, label="found")
    axis.axis("off")
axes[0].legend(loc="lower left")
plt.show()

# %% [markdown]
# ## Coarse and fine, side by side
#
# The first row shows all landmarks, the second the tip of the little finger. The tips of the other fingers look similar and may be weakly visible. `forward_maps` returns both heatmaps.

# %%
figure, axes = plt.subplots(2, 3, figsize=(13, 9))
for row, which, title in ((axes[0], slice(None), "all landmarks"), (axes[1], slice(-1, None), names[-1])):
    row[0].imshow(test_images[0, 0].T, cmap="gray")
    row[0].plot(*test_points[0, which].T, "o", color="tab:orange", markersize=3)
    row[0].set_title(title)
    for axis, maps, grid in ((row[1], coarse, "coarse"), (row[2], fine, "fine")):
        axis.imshow(maps[0, which].amax(0).T, vmin=0)
        axis.set_title(f"{grid} heatmap, {maps.shape[2]} x {maps.shape[3]}")
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## From the image to the heatmap
#
# The outputs of the backbone have many channels; the pictures show the mean of their absolute values.

# %%
stages = [
    ("image", test_images[0, 0]),
    *((f"tap {number}", tap[0].abs().mean(0)) for number, tap in enumerate(taps, start=1)),
    ("coarse heatmap", coarse[0, -1]),
    ("fine heatmap", fine[0, -1]),
]
figure, axes = plt.subplots(1, len(stages), figsize=(18, 3))
for axis, (title, shown) in zip(axes, stages):
    axis.imshow(shown.T, cmap="gray" if title == "image" else "viridis")
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Two sources of small errors
#
# A network also learns targets that are slightly misplaced. The code released by the authors of FARNet counts the pixels of its grid from 1 but its points from 0, so the peak is
# one pixel before the point along each axis. Its decoder does not correct this: every prediction is one pixel too small, which is 0.3 mm on a cephalogram of 800 x 640 pixels.

# %%
point, grid_from_1 = 40, np.arange(1, 97)
peak = np.exp(-((grid_from_1 - point) ** 2) / (2 * sigma**2)).argmax()
print(f"drawn for pixel {point}, found at pixel {peak}")

# %% [markdown]
# The second source is resizing. In an image of half the size, a point is not at x / 2. Pixels are areas, so their centers move to (x + 1/2) / 2 - 1/2. `CoarseToFineLoss` uses this formula for the coarse grid.

# %%
blob = GaussianTarget(sigma=4.0)(torch.tensor([[40.0, 61.0]]), size)
small = torch.nn.functional.interpolate(blob[None], scale_factor=0.5, mode="bilinear")[0]
print(
    "found at",
    np.round(decode(small.numpy()).points[0], 2),
    "- x / 2 says [20, 30.5], (x + 1/2) / 2 - 1/2 says [19.75, 30.25]",
)

# %% [markdown]
# The bundle `ceph_xray_landmarks_farnet` trains this network at full size, with checkpoints, tables and predictions for 3D Slicer.
