# %% [markdown]
# # Train a SpatialConfiguration-Net
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
# A small SpatialConfiguration-Net (SCN) learns to find 37 landmarks in hand radiographs. The images are phantoms of 64 x 64 pixels, so the lesson takes less than a minute on a CPU.
# The bundle `hand_xray_landmarks_scn` trains such a network at full size, with a cross-entropy as its loss.
#
# SCN has two parts. *Local appearance* sees the image and marks all places that look like the landmark; all finger tips look similar. *Spatial configuration*
# sees only these maps at a coarse resolution and predicts where each landmark can be, given the others. The heatmap is the product of both.

# %% [markdown]
# ## Setup environment

# %%
# !python -c "import monai_landmarks" || pip install -q -e ".."

# %% [markdown]
# ## Setup imports

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from monai.config import print_config
from monai.data import CacheDataset, DataLoader, decollate_batch
from monai.transforms import Compose, LoadImaged, RandAdjustContrastd, ScaleIntensityd
from monai.utils import set_determinism

from monai_landmarks.data import load_landmark_datalist
from monai_landmarks.data.datasets.phantom import write_hand_phantom
from monai_landmarks.losses import GaussianTarget, HeatmapL2Loss
from monai_landmarks.metrics import PointErrorMetric, SuccessDetectionRateMetric
from monai_landmarks.networks.nets import SCN
from monai_landmarks.transforms import (
    EnsureWorldAffined,
    HeatmapToLandmarksd,
    LandmarksToIndexd,
    LoadLandmarksd,
    RandLandmarkWarpd,
)

print_config()
set_determinism(seed=0)

# %% [markdown]
# ## Data
#
# The phantom is written as PNG images and a datalist, the JSON file in which MONAI lists the images of a dataset. For your own data, `monai_landmarks.data.build_datalist` writes such a file.

# %%
folder = Path(tempfile.mkdtemp())
datalist = write_hand_phantom(folder, num_images=60, size=(64, 64), val_frac=0.2, test_frac=0.0)
training, validation = (load_landmark_datalist(datalist, section) for section in ("training", "validation"))
print(
    f"{len(training)} training images, {len(validation)} validation images; the keys of an item are {sorted(training[0])}"
)

# %% [markdown]
# ## Transforms
#
# `LoadLandmarksd` loads the points in world coordinates (millimeters). MONAI's transforms that update `image.affine` do not need to change them. `RandLandmarkWarpd` moves image
# and points together. `LandmarksToIndexd` comes last and converts millimeters to pixels of the transformed image.

# %%
load = [
    LoadImaged("image", reader="PILReader", ensure_channel_first=True),
    EnsureWorldAffined("image", spacing_key="spacing"),
    LoadLandmarksd("label", "image"),
    ScaleIntensityd("image"),
]
augment = [
    RandLandmarkWarpd(
        "image", "label", translate_range=4, rotate_range=0.2, scale_range=0.1, elastic_range=4, unit="voxel", prob=1.0
    ),
    RandAdjustContrastd("image", prob=0.5, gamma=(0.7, 1.5)),
]
to_index = [LandmarksToIndexd("label", "image")]

train_loader = DataLoader(
    CacheDataset(training, Compose(load + augment + to_index), progress=False), batch_size=4, shuffle=True
)
val_loader = DataLoader(CacheDataset(validation, Compose(load + to_index), progress=False), batch_size=4)
batch = next(iter(train_loader))
print("image", tuple(batch["image"].shape), "label", tuple(batch["label"].shape))

figure, axes = plt.subplots(1, 4, figsize=(14, 4))
for axis, image, points in zip(axes, batch["image"], batch["label"]):
    axis.imshow(image[0].T, cmap="gray")
    axis.plot(*points[0].T, "o", color="tab:orange", markersize=3)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Network and loss
#
# `SCN(spatial_dims=2, in_channels=1, num_landmarks=37)` is the published network, which needs a long training on a GPU. The options below make a small network that learns in a minute:
# a small U-Net as local appearance, normalization layers, and a spatial configuration that initially allows all positions.
#
# The loss takes points. It computes the target heatmaps when it needs them and does not store them.

# %%
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
num_landmarks = batch["label"].shape[-2]
net = SCN(
    spatial_dims=2,
    in_channels=1,
    num_landmarks=num_landmarks,
    features=32,
    local_appearance="unet",
    unet_features=(16, 16, 32, 64, 64, 16),
    norm="instance",
    dropout=0.0,
    spatial_factor=8,
    spatial_kernel=7,
    head_init_std=0.01,
    spatial_bias=1.0,
).to(device)
loss_function = HeatmapL2Loss(GaussianTarget(sigma=2.0, amplitude=10.0))
print(f"{sum(p.numel() for p in net.parameters()):,} parameters")

# %% [markdown]
# ## Training

# %%
max_epochs = 10
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=max_epochs * len(train_loader))
losses = []
for _epoch in range(max_epochs):
    net.train()
    total = 0.0
    for batch in train_loader:
        loss = loss_function(net(batch["image"].to(device)), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
    losses.append(total / len(train_loader))
    print(f"epoch {len(losses):2d} of {max_epochs}: loss {losses[-1]:.4f}")

plt.semilogy(range(1, max_epochs + 1), losses, marker="o")
plt.xlabel("epoch")
plt.ylabel("training loss")
plt.show()

# %% [markdown]
# ## Errors
#
# The heatmaps are decoded to points, and the points are converted to world coordinates, so errors are in millimeters. The mean radial error (MRE) is the mean distance between prediction and annotation.
# The success detection rate (SDR) is the percentage of landmarks within a given distance.

# %%
decode = HeatmapToLandmarksd("pred")
error = PointErrorMetric()
success = SuccessDetectionRateMetric(thresholds=(2.0, 4.0, 10.0))
net.eval()
found = []
with torch.no_grad():
    for batch in val_loader:
        batch["pred"] = net(batch["image"].to(device)).cpu()
        for item in decollate_batch(batch):
            item = decode(item)
            found.append(item)
            error(item["pred_points"][None], item["label"][None])
            success(item["pred_points"][None], item["label"][None])

mre = error.aggregate().item()
print(f"MRE {mre:.2f} mm on {len(found)} images, a pixel is {validation[0]['spacing'][0]:.2f} mm")
print("SDR within 2, 4 and 10 mm:", [f"{100 * rate:.1f} %" for rate in success.aggregate().tolist()])
assert mre < 2 * validation[0]["spacing"][0]  # two pixels, even after this short training

# %%
to_pixels = LandmarksToIndexd("pred_points", "image")
figure, axes = plt.subplots(1, 4, figsize=(16, 4.5))
for axis, item in zip(axes, found):
    axis.imshow(item["image"][0].T, cmap="gray")
    axis.plot(*item["label"][0].T, "o", color="tab:orange", markersize=4, label="true")
    axis.plot(*to_pixels(item)["pred_points"][0].T, "x", color="tab:cyan", markersize=4, label="found")
    axis.axis("off")
axes[0].legend(loc="lower left")
plt.show()

# %% [markdown]
# ## The two parts of the network
#
# `forward_maps` also returns the factors of the heatmap. The landmark shown is the tip of the little finger: local appearance cannot tell the fingers apart, spatial configuration provides a rough position, and the product is unambiguous.

# %%
with torch.no_grad():
    heatmaps, local, configuration = net.forward_maps(found[0]["image"][None].to(device))
figure, axes = plt.subplots(1, 4, figsize=(16, 4.5))
titles = ("image", "local appearance", "spatial configuration", "heatmap")
for axis, title, shown in zip(
    axes, titles, (found[0]["image"], local[0, -1:], configuration[0, -1:], heatmaps[0, -1:])
):
    axis.imshow(shown[0].cpu().T, cmap="gray" if title == "image" else "viridis")
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %% [markdown]
# The first command of the README trains the same network as a bundle at full size, with checkpoints, tables and predictions for 3D Slicer.
