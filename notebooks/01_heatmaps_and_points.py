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
# A landmark is a named point, such as the tip of the thumb. Most networks for landmark localization do not predict coordinates. They predict one image per landmark that is bright at the position of the landmark: a *heatmap*.
# This lesson converts points to heatmaps and heatmaps back to points, and measures what is lost on the way.

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
# The phantom is a synthetic radiograph of a hand with bones, soft tissue and noise. The position of every landmark is known to a fraction of a pixel.
#
# Points are in *index* coordinates: `points[n, 0]` is the position along the first spatial axis of the image, `points[n, 1]` along the second. Whole numbers are pixel centers.
# MONAI reads radiographs with x as the first axis, so the image is transposed for plotting.

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
# `LandmarksToHeatmap` is called like MONAI's `GenerateHeatmap`. It draws a Gaussian of width sigma around every point: points `(N, D)` become heatmaps `(N, *spatial)`.

# %%
heatmaps = LandmarksToHeatmap(sigma=3.0)(points, spatial_shape=image.shape)
print(f"points {points.shape} -> heatmaps {heatmaps.shape}")

figure, axes = plt.subplots(1, 3, figsize=(13, 4.5))
show(axes[0], heatmaps[0], title=landmarks.names[0])
show(axes[1], heatmaps[-1], title=landmarks.names[-1])
show(axes[2], heatmaps.max(axis=0), title="all landmarks")
plt.show()

# %% [markdown]
# ## Heatmaps to points
#
# The brightest pixel has whole-number coordinates, so taking it as the landmark causes an error of up to half a pixel along each axis. The default decoder fits a Gaussian around the brightest pixel instead.
# The same error occurs when heatmaps are drawn: a Gaussian at the nearest *pixel* has lost the exact position, and no decoder can recover it.


# %%
def error(found):
    return np.linalg.norm(np.asarray(found) - points, axis=1)


rounded = np.asarray(GenerateHeatmap(sigma=3.0)(points.astype(np.float32), spatial_shape=image.shape))
rows = {
    "exact heatmap, brightest pixel": HeatmapToLandmarks(method="argmax")(heatmaps).points,
    "exact heatmap, Gaussian fit (default)": HeatmapToLandmarks()(heatmaps).points,
    "MONAI's GenerateHeatmap, Gaussian fit": HeatmapToLandmarks()(rounded).points,
}
for name, found in rows.items():
    print(f"{name:40s} mean error {error(found).mean():.4f} px, largest {error(found).max():.4f} px")

assert error(rows["exact heatmap, Gaussian fit (default)"]).max() < 0.01

# %% [markdown]
# ## Noise, score and covariance
#
# Heatmaps predicted by a network are noisy. The fit uses a neighborhood of pixels, so the noise of single pixels averages out.
# The decoder also returns a *score*, the height of the peak, and a *covariance*, its width. A wide heatmap means that the network is uncertain.

# %%
generator = np.random.default_rng(0)
for noise in (0.01, 0.05, 0.1):
    noisy = heatmaps + generator.normal(0, noise, heatmaps.shape).astype(np.float32)
    found, scores, covariances = HeatmapToLandmarks()(noisy)
    sigma = np.sqrt(np.trace(covariances, axis1=1, axis2=2) / 2)
    print(
        f"noise {noise:4.0%}: mean error {error(found).mean():.3f} px, score {scores.mean():.2f}, sigma {np.median(sigma):.2f} px"
    )

# %% [markdown]
# ## A missing landmark
#
# A landmark without an annotation is a row of NaN. Its heatmap is zero everywhere, and decoding returns NaN.

# %%
some = points.copy()
some[3] = np.nan
heatmaps_of_some = LandmarksToHeatmap(sigma=3.0)(some, spatial_shape=image.shape)
print(
    "brightest value of its heatmap:",
    heatmaps_of_some[3].max(),
    "- decoded:",
    HeatmapToLandmarks()(heatmaps_of_some).points[3],
)

# %% [markdown]
# ## Points and image move together
#
# Augmentation shows the network many variants of each image. `RandLandmarkWarp` rotates, scales, shifts and deforms an image in one resampling and moves the points with it.

# %%
warp = RandLandmarkWarp(
    translate_range=10, rotate_range=0.3, scale_range=0.1, elastic_range=12, elastic_grid=6, unit="voxel", prob=1.0
)
warp.set_random_state(1)
figure, axes = plt.subplots(1, 4, figsize=(16, 4.5))
show(axes[0], image, points, title="original")
for axis in axes[1:]:
    warped, moved = warp(torch.as_tensor(image)[None], torch.as_tensor(points))
    show(axis, warped[0].numpy(), moved.numpy(), title="warped")
plt.show()

# %% [markdown]
# Next: [02_train_scn](02_train_scn.py) trains a network that finds these points in new images.
