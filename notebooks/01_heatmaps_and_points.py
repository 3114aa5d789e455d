# %% [markdown]
# # Heatmaps and points
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
# A landmark is a point with a name: the tip of the thumb, the styloid process of the ulna. A network that finds landmarks usually does
# not predict coordinates. It predicts one image per landmark, bright where the landmark is: a *heatmap*. This lesson goes there and back:
# from points to heatmaps, from heatmaps to points, and it looks at what is lost on the way.

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
from monai.transforms import GenerateHeatmap

from monai_landmarks.data.datasets.phantom import hand_phantom
from monai_landmarks.transforms import HeatmapToLandmarks, LandmarksToHeatmap, RandLandmarkWarp

print_config()

# %% [markdown]
# ## An image and its points
#
# The phantom is a hand that never lived: bones, soft tissue and noise are drawn, and the place of every landmark is known exactly, to a fraction of a pixel.
#
# Points are in *index* coordinates: `points[n, 0]` runs along the first spatial axis of the image, `points[n, 1]` along the second, and whole numbers are pixel centers.
# MONAI reads X-ray images with x as the first axis, so a plot that wants rows and columns needs the image transposed.

# %%
image, landmarks = hand_phantom(7, size=(256, 256))
points = landmarks.points.copy()
print(
    f"image {image.shape}, {len(landmarks)} landmarks, the last one, {landmarks.names[-1]!r}, at {points[-1].round(2)}"
)


def show(axes, image, points=None, title=""):
    axes.imshow(image.T, cmap="gray")
    if points is not None:
        axes.plot(points[:, 0], points[:, 1], "o", color="tab:orange", markersize=3)
    axes.set_title(title)
    axes.axis("off")


figure, axes = plt.subplots(1, 2, figsize=(9, 4.5))
show(axes[0], image, title="image")
show(axes[1], image, points, title=f"{len(landmarks)} landmarks")
plt.show()

# %% [markdown]
# ## Points to heatmaps
#
# `LandmarksToHeatmap` is called as MONAI's own `GenerateHeatmap` is. It puts a Gaussian of width sigma around every point: `(N, D)` points become `(N, *spatial)` heatmaps.

# %%
heatmaps = LandmarksToHeatmap(sigma=3.0)(points, spatial_shape=image.shape)
print(f"points {points.shape} -> heatmaps {heatmaps.shape}")

figure, axes = plt.subplots(1, 3, figsize=(13, 4.5))
show(axes[0], heatmaps[0], title=landmarks.names[0])
show(axes[1], heatmaps[-1], title=landmarks.names[-1])
show(axes[2], heatmaps.max(axis=0), title="all of them")
plt.show()

# %% [markdown]
# ## Heatmaps to points
#
# The brightest pixel is a whole number, so taking it as the landmark costs up to half a pixel in each direction. The default decoder fits a Gaussian around it instead.
# The same happens in the other direction: a Gaussian that is centered on the nearest *pixel* has forgotten where the point was, and no decoder brings that back.


# %%
def error(found):
    return np.linalg.norm(np.asarray(found) - points, axis=1)


rounded = np.asarray(GenerateHeatmap(sigma=3.0)(points.astype(np.float32), spatial_shape=image.shape))
rows = {
    "exact heatmap, brightest pixel": HeatmapToLandmarks(method="argmax")(heatmaps),
    "exact heatmap, Gaussian fit (default)": HeatmapToLandmarks()(heatmaps),
    "MONAI's GenerateHeatmap, Gaussian fit": HeatmapToLandmarks()(rounded),
}
for name, found in rows.items():
    print(f"{name:40s} mean error {error(found).mean():.4f} px, largest {error(found).max():.4f} px")

assert error(rows["exact heatmap, Gaussian fit (default)"]).max() < 0.01

# %% [markdown]
# ## Noise, score and covariance
#
# Heatmaps from a network are never clean. The fit looks at a whole neighborhood, so noise on single pixels averages out.
# The decoder also returns a *score*, the height of the peak, and a *covariance*, its width: a wide heatmap is a network that is unsure.

# %%
generator = np.random.default_rng(0)
for noise in (0.01, 0.05, 0.1):
    noisy = heatmaps + generator.normal(0, noise, heatmaps.shape).astype(np.float32)
    found, score, covariance = HeatmapToLandmarks(return_score=True, return_covariance=True)(noisy)
    sigma = np.sqrt(np.trace(covariance, axis1=1, axis2=2) / 2)
    print(
        f"noise {noise:4.0%}: mean error {error(found).mean():.3f} px, score {score.mean():.2f}, sigma {np.median(sigma):.2f} px"
    )

# %% [markdown]
# ## A missing landmark
#
# A landmark that nobody has marked is a row of NaN. Its heatmap is zero everywhere, and decoding gives NaN back.

# %%
some = points.copy()
some[3] = np.nan
heatmaps_of_some = LandmarksToHeatmap(sigma=3.0)(some, spatial_shape=image.shape)
print(
    "brightest value of its heatmap:",
    heatmaps_of_some[3].max(),
    "- decoded:",
    HeatmapToLandmarks()(heatmaps_of_some)[3],
)

# %% [markdown]
# ## Points and image move together
#
# Training wants every image in many variants. `RandLandmarkWarp` rotates, scales, shifts and bends an image in one resampling, and takes the points along.

# %%
warp = RandLandmarkWarp(
    translate_range=10, rotate_range=0.3, scale_range=0.1, elastic_range=12, elastic_grid=6, unit="voxel", prob=1.0
)
warp.set_random_state(1)
figure, axes = plt.subplots(1, 4, figsize=(16, 4.5))
show(axes[0], image, points, title="as it was")
for axis in axes[1:]:
    warped, moved = warp(torch.as_tensor(image)[None], torch.as_tensor(points))
    show(axis, warped[0].numpy(), moved.numpy(), title="warped")
plt.show()

# %% [markdown]
# Next: [02_train_scn](02_train_scn.py) trains a network that finds these points in images it has not seen.
