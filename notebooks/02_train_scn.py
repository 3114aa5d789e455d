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
# A small SpatialConfiguration-Net (SCN) learns to find 37 landmarks in hand radiographs that it has not seen. The images are phantoms at 96 x 96 pixels,
# so that it takes less than a minute on a CPU; the bundle `hand_xray_landmarks_scn` does the same at full size.
#
# SCN has two parts. *Local appearance* looks at the image and says, for each landmark, where it might be: every finger tip looks like every other. *Spatial configuration*
# sees only these maps, coarsely, and says where each landmark can be given all the others. The heatmap is the product of the two.

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
# The phantom is written as ordinary files: PNG images and a datalist, MONAI's JSON that names them. With your own data, `monai_landmarks.data.build_datalist` writes such a file.

# %%
folder = Path(tempfile.mkdtemp())
datalist = write_hand_phantom(folder, num_images=60, size=(96, 96), validation_fraction=0.2, testing_fraction=0.0)
training, validation = (load_landmark_datalist(datalist, section) for section in ("training", "validation"))
print(f"{len(training)} images to learn from, {len(validation)} to test on; an item has {sorted(training[0])}")

# %% [markdown]
# ## Transforms
#
# `LoadLandmarksd` puts the points into the world, in millimeters, where every MONAI transform that keeps `image.affine` right leaves them alone. `RandLandmarkWarpd` moves image
# and points together. `LandmarksToIndexd` comes last and turns millimeters into pixels of the image as it is then.

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
# `SCN(spatial_dims=2, in_channels=1, num_landmarks=37)` is the published network. It is made for long trainings on a GPU; the options below make one that learns in a minute:
# a small U-Net as local appearance, normalization, and a spatial configuration that starts as "anywhere".
#
# The loss takes points: the target heatmaps are made from them where they are needed, and never stored.

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
# ## How far off?
#
# Heatmaps become points, and points go back to the world, so that errors are in millimeters: the mean radial error (MRE), and the success detection rate (SDR), the share of landmarks
# that are closer than some radius.

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
assert mre < 2 * validation[0]["spacing"][0]  # two pixels, were it trained ever so little

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
# ## What the two parts see
#
# `forward_maps` gives the factors as well. The landmark is the tip of the little finger: local appearance is not sure which finger it is, spatial configuration knows about where, and the product has it.

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
# The same as a bundle, at full size, with checkpoints, tables and predictions for 3D Slicer: the README's first command.
