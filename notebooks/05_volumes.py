# %% [markdown]
# # Volumes
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
# In 3-D, every heatmap is a volume, and a hundred landmarks need a hundred volumes. This lesson shows how to avoid storing them: a loss that does not store its targets,
# training on patches with and without landmarks, and sliding windows that return points. The last part is specific to spines, where a vertebra looks like its neighbor.

# %% [markdown]
# ## Setup environment

# %%
# !python -c "import monai_landmarks" || pip install -q -e ".."

# %% [markdown]
# ## Setup imports

# %%
import numpy as np
import torch
from monai.config import print_config
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.utils import set_determinism

from monai_landmarks.data.datasets.phantom import spine_phantom
from monai_landmarks.heatmaps import decode_heatmaps, gaussian_heatmaps
from monai_landmarks.inferers import FlipEnsembleInferer, LandmarkInferer, SlidingWindowLandmarkInferer
from monai_landmarks.losses import GaussianTarget, HeatmapL2Loss
from monai_landmarks.transforms import (
    HeatmapToChainLandmarksd,
    HeatmapToLandmarksd,
    LandmarksToIndex,
    RandCropByLandmarksd,
)
from monai_landmarks.visualize import draw_landmarks, draw_views, landmark_view

set_determinism(seed=0)
print_config()

# %% [markdown]
# ## A volume in three planes
#
# The phantom is a synthetic CT of a lumbar spine. Its landmarks are in world coordinates (RAS mm). The affine of the image converts them to voxels and back.
# The figure shows the three planes through one landmark, here the center of L3. Other points fade with their distance from the plane.

# %%
volume, affine, landmarks = spine_phantom(4, size=(64, 64, 96), spacing=(2.0, 2.0, 2.0))
image = MetaTensor(torch.from_numpy(volume)[None].float(), affine=torch.from_numpy(affine))
names = [name for name in landmarks.names if name.endswith("body_center")]
world = torch.from_numpy(landmarks.points[[landmarks.names.index(name) for name in names]])
points = torch.tensor(LandmarksToIndex()(MetaTensor(world[None], affine=torch.eye(4)), image)[0].tolist())
for name, place, index in zip(names, world.numpy(), points.numpy()):
    print(f"{name}: {place.round(1)} mm, voxel {index.round(1)}")
draw_landmarks(image, points, names=[name[:2] for name in names], center=2)

# %% [markdown]
# ## Targets that are never stored
#
# A loss compares the heatmaps with Gaussians at the points. Target maps need as much memory as the heatmaps. If the loss takes points instead, it computes a few rows of the targets at a time, in the forward and
# in the backward pass. Value and gradient are the same, but no target volume is stored.

# %%
predicted = torch.rand(1, len(points), *volume.shape, requires_grad=True)
target = GaussianTarget(sigma=3.0)
loss = HeatmapL2Loss(target)
maps = target(points[None], volume.shape)
from_maps = loss(predicted, maps)
from_points = loss(predicted, points[None])
gradients = [torch.autograd.grad(value, predicted)[0] for value in (from_maps, from_points)]
print(f"loss from maps {from_maps.item():.8f}, from points {from_points.item():.8f}")
print(f"largest difference of the gradients {(gradients[0] - gradients[1]).abs().max().item():.1e}")
for count in (len(points), 20, 100):
    print(f"{count:4d} landmarks at 128^3: {count * 128**3 * 4 / 2**20:6.0f} MiB of targets that are not stored")
assert torch.allclose(*gradients, atol=1e-9)

# %% [markdown]
# ## Patches
#
# Training on patches needs patches with landmarks, and some without, from which the network learns the background. The points do not change: they are in world coordinates, and each patch has its own affine.

# %%
crop = RandCropByLandmarksd("image", "label", spatial_size=(40, 40, 40), num_samples=6, pos=2, neg=1)
crop.set_random_state(seed=1)
for patch in crop({"image": image, "label": MetaTensor(world[None], affine=torch.eye(4))}):
    inside = LandmarksToIndex()(patch["label"], patch["image"])[0]
    held = [name[:2] for name, point in zip(names, inside) if ((point >= 0) & (point < 40)).all()]
    print(f"patch of {tuple(patch['image'].shape[1:])} holds {', '.join(held) or 'none'}")

# %% [markdown]
# ## Sliding windows that return points
#
# This example uses a function instead of a trained network. It draws the heatmaps of the true points. As with real networks, overlapping windows do not agree exactly.
# Its input contains the coordinates of every voxel, so the function can determine the position of a window.
#
# MONAI's `SlidingWindowInferer` combines the windows into one volume per landmark. `SlidingWindowLandmarkInferer` first finds the best position of each landmark and computes the combined values only around it. The points are the same.


# %%
def stand_in(windows, doubt=0.0):
    """Return heatmaps of the points in each window; with doubt > 1, the heatmap of L4 is highest at L5."""
    found = []
    for window in windows:
        corner = window[:, 0, 0, 0]
        maps = gaussian_heatmaps(points - corner, window.shape[1:], sigma=3.0)
        maps[3] = maps[3] + doubt * maps[4]
        found.append(maps * (1 + 0.1 * torch.sin(corner.sum())))
    return torch.stack(found)


places = torch.from_numpy(np.indices(volume.shape)).float()[None]
options = {"roi_size": (40, 40, 40), "overlap": 0.5, "mode": "gaussian"}
stitched = SlidingWindowInferer(**options)(places, stand_in)
expected = decode_heatmaps(stitched, spatial_dims=3)
found = SlidingWindowLandmarkInferer(**options)(places, stand_in)
print(f"largest difference of the points: {(found['points'] - expected.points).abs().max().item():.4f} voxels")
kept = sum(values.numel() for values in found.values()) * 4
print(f"stitched: {stitched.numel() * 4 / 2**20:.0f} MiB; kept here: {kept} bytes, and boxes of 28^3 on the way")
print(f"a CT of 512 x 512 x 400 with 100 landmarks, stitched: {512 * 512 * 400 * 100 * 4 / 1e9:.0f} GB")
assert torch.allclose(found["points"], expected.points, atol=0.05)

# %% [markdown]
# `FlipEnsembleInferer` averages over the image and its mirror image. It can wrap either inferer and also returns points. It exchanges left and right landmarks; the vertebrae have no partners.


# %%
def two_sided(images):
    """Predict each landmark one voxel too far to the right of the given image."""
    shifted = points + torch.tensor([1.0, 0.0, 0.0])
    mirrored = points * torch.tensor([-1.0, 1, 1]) + torch.tensor([volume.shape[0] - 1.0 + 1, 0, 0])
    return gaussian_heatmaps(mirrored if images[0, 0, 0, 0, 0] else shifted, images.shape[2:], sigma=3.0)[None]


for inferer in (LandmarkInferer(), FlipEnsembleInferer(spatial_axis=0, inferer=LandmarkInferer())):
    away = (inferer(places[:, :1], two_sided)["points"][0] - points).norm(dim=-1)
    print(f"{type(inferer).__name__}: {away.mean().item():.2f} voxels from the true point")

# %% [markdown]
# ## A vertebra looks like its neighbor
#
# The most common error in spines is a shift by one vertebra: the heatmap of L4 has a peak at L4 and a higher one at L5. `num_peaks` returns several candidates per landmark, still without a stitched volume.
# `HeatmapToChainLandmarksd` selects candidates that are plausible as a sequence of vertebrae.

# %%
inferer = SlidingWindowLandmarkInferer(**options, num_peaks=3)
candidates = inferer(places, lambda windows: stand_in(windows, doubt=1.3))
item = {"pred": {name: values[0] for name, values in candidates.items()}, "image": image}
highest = HeatmapToLandmarksd("pred")(item)
chain = HeatmapToChainLandmarksd("pred", [names], names, direction=(0, 0, -1))(item)
views = []
for title, result in (("the highest peak of each", highest), ("the best chain", chain)):
    there = result["pred_points"]
    error = (there[0].as_tensor() - world).norm(dim=-1)
    print(f"{title}: errors in mm {error.round(decimals=1).tolist()}")
    index = LandmarksToIndex()(there, image)[0]
    views.append(landmark_view(image, index, points, title=title, center=3))
assert error.max() < 1
draw_views(views, columns=1)

# %% [markdown]
# These bundles use all of this: `lumbar_mri_landmarks_scn`, `mouse_ct_landmarks_scn` and, for VerSe, `vertebrae_ct_landmarks_scn`. `benchmarks/benchmark_volumes.py` measures memory and time.
