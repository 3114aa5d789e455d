# %% [markdown]
# # Your own data
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
# This lesson starts with images and point lists saved by 3D Slicer, trains a network, and ends with point lists that 3D Slicer opens. No code is needed: `monai-landmarks check` checks the data,
# `monai-landmarks init` creates a MONAI bundle for them, and MONAI trains the bundle. The data are phantoms, saved in the way that your own data might be.

# %% [markdown]
# ## Setup environment

# %%
# !python -c "import monai_landmarks" || pip install -q -e ".."

# %% [markdown]
# ## Setup imports

# %%
import csv
import json
import logging
import shlex
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display
from monai.bundle import run
from monai.config import print_config

from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, read_landmark_table, read_landmarks, write_hand_phantom, write_landmarks

print_config()


def monai_landmarks(arguments):
    """Run `monai-landmarks ARGUMENTS` in this process, which is faster than a new shell command."""
    program(shlex.split(arguments), standalone_mode=False)


# %% [markdown]
# ## Data
#
# The data are a folder of radiographs and a folder with one 3D Slicer file per image, with the same name. PNG files do not state the pixel size. Here, it was set in 3D Slicer's *Volumes* module
# before the points were drawn, so the points are in mm of the true size.

# %%
folder = Path(tempfile.mkdtemp())
spacing = 2.5
write_hand_phantom(folder, num_images=20, size=(96, 96), spacing=spacing, val_frac=0.15)
images, points = folder / "images", folder / "points"
for name, landmarks in read_landmark_table(folder / "landmarks.csv").items():
    lps = np.column_stack([landmarks.points * spacing, np.zeros(len(landmarks))])
    write_landmarks(points / f"{Path(name).stem}.mrk.json", LandmarkSet(landmarks.names, lps, "LPS"))

first = sorted(points.iterdir())[0]
markup = json.loads(first.read_text())["markups"][0]
print(first.name, markup["coordinateSystem"], json.dumps(markup["controlPoints"][0], indent=1), sep="\n")

# %% [markdown]
# ## Check
#
# The pixel size is given in millimeters. The command reads all files, lists faults with file and row, and draws the points on the images. Its note is for points that were drawn without the true pixel size.
# The color depends on the name, so a point with a wrong name has the wrong color.

# %%
monai_landmarks(f"check {images} {points} --spacing {spacing} --val-frac 0.25 --sheet 6 --out {folder / 'checked'}")
display(Image(str(folder / "checked" / "contact_sheet.png")))

# %% [markdown]
# ## A bundle for these data
#
# A rule of thumb chooses each setting and prints its reason. Any setting can be overridden: here the network is a quarter as wide as proposed, and the training
# is much shorter, so that the lesson is fast.

# %%
bundle = folder / "hand_landmarks"
monai_landmarks(
    f"init {folder / 'checked' / 'datalist.json'} --out {bundle} --set width=8 --set max_epochs=8 --set val_interval=8"
)

# %% [markdown]
# ## Training
#
# The bundle is an ordinary MONAI bundle. The command in a shell is `python -m monai.bundle run training --bundle_root B --config_file B/configs/train.json`.

# %%
logging.disable(logging.INFO)
run(
    run_id="training", init_id="initialize", bundle_root=str(bundle), config_file=str(bundle / "configs" / "train.json")
)
display(Image(str(bundle / "eval" / "training_curve.png")))

# %% [markdown]
# ## Predictions and their errors
#
# After a few seconds of training, the mean error is about two pixels, and some outliers remain. The points of each image are written as a 3D Slicer file. Such files state their coordinate system:
# the annotations are in LPS, and the predictions in RAS.
# `evaluate` prints tables. `report` writes one HTML file with curves and pictures for the browser.

# %%
monai_landmarks(f"predict {bundle} {images} --out {folder / 'found'}")
predicted = f"{folder / 'found'} {folder / 'checked' / 'datalist.json'} --section validation"
monai_landmarks(f"evaluate {predicted}")
monai_landmarks(f"report {predicted} --cases 1 --out {folder / 'report.html'}")

# %%
validation = json.loads((folder / "checked" / "datalist.json").read_text())["validation"]
figure, axes = plt.subplots(1, 3, figsize=(14, 5))
for axis, item in zip(axes, validation):
    name = Path(item["image"]).stem
    axis.imshow(plt.imread(images / f"{name}.png"), cmap="gray")
    true, found = (read_landmarks(where / f"{name}.mrk.json").to("LPS") for where in (points, folder / "found"))
    for landmarks, marker, label in ((true, "o", "true"), (found, "x", "found")):
        x, y, _ = landmarks.points.T / spacing
        axis.plot(x, y, marker, markersize=4, label=label)
    assert np.linalg.norm(found.points - true.points, axis=1).mean() < 20  # mm
    axis.axis("off")
axes[0].legend(loc="lower left")
plt.show()

with open(bundle / "eval" / "training_curve.csv") as file:
    losses = [float(row["loss"]) for row in csv.DictReader(file)]
assert losses[-1] < losses[0]

# %% [markdown]
# The bundle's `docs/README.md` lists the reasons for all settings and the commands for evaluation, several devices and tracking. You can edit `configs/train.json`.
