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
# From images and the point lists that 3D Slicer saves, to a trained network, to point lists that 3D Slicer opens. No code is written: `monai-landmarks check` looks at the data,
# `monai-landmarks init` writes a MONAI bundle for it, and the bundle trains. The data is a phantom here, saved as yours might be.

# %% [markdown]
# ## Setup environment

# %%
# !python -c "import monai_landmarks" || pip install -q -e ".."

# %% [markdown]
# ## Setup imports

from __future__ import annotations

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
from monai_landmarks.data import LandmarkSet, read_landmark_table, write_hand_phantom, write_landmarks

print_config()


def monai_landmarks(arguments):
    """What `monai-landmarks ARGUMENTS` does in a shell, without waiting for another Python to start."""
    program(shlex.split(arguments), standalone_mode=False)


# %% [markdown]
# ## Data
#
# A folder of radiographs, and a folder with a file of 3D Slicer for each, of the same name.

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
# PNG files do not say how large a pixel is, so it is given, in millimeters. The command reads everything, lists faults with their file and row, and draws the points on the images:
# a point of the wrong name has the wrong color.

# %%
monai_landmarks(f"check {images} {points} --spacing {spacing} --val-frac 0.25 --sheet 6 --out {folder / 'checked'}")
display(Image(str(folder / "checked" / "contact_sheet.png")))

# %% [markdown]
# ## A bundle for this data
#
# Each setting is chosen by a rule of thumb, and comes with its reason. Any of them can be given: here the network is a quarter as wide as it would be, and the training
# much shorter, so that this lesson ends soon.

# %%
bundle = folder / "hand_landmarks"
monai_landmarks(
    f"init {folder / 'checked' / 'datalist.json'} --out {bundle} --set width=8 --set max_epochs=8 --set val_interval=8"
)

# %% [markdown]
# ## Training
#
# The bundle is an ordinary one. In a shell: `python -m monai.bundle run training --bundle_root B --config_file B/configs/train.json`.

# %%
logging.disable(logging.INFO)
run(
    run_id="training", init_id="initialize", bundle_root=str(bundle), config_file=str(bundle / "configs" / "train.json")
)
display(Image(str(bundle / "eval" / "training_curve.png")))

# %% [markdown]
# ## Predictions, and how far off they are
#
# After some seconds of training the mean error is a pixel or two, and outliers are left. Points of each image are written as a file for 3D Slicer, in the same space as those that you have drawn.
# `evaluate` prints tables; `report` writes one HTML file with curves and pictures, to be opened in a browser.

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
    for where, marker, label in ((points, "o", "true"), (folder / "found", "x", "found")):
        positions = [
            p["position"] for p in json.loads((where / f"{name}.mrk.json").read_text())["markups"][0]["controlPoints"]
        ]
        x, y, _ = np.array(positions).T / spacing
        axis.plot(x, y, marker, markersize=4, label=label)
    axis.axis("off")
axes[0].legend(loc="lower left")
plt.show()

with open(bundle / "eval" / "training_curve.csv") as file:
    losses = [float(row["loss"]) for row in csv.DictReader(file)]
assert losses[-1] < losses[0]

# %% [markdown]
# The reasons for all settings are in the bundle's `docs/README.md`, with the commands for evaluation, several devices and tracking. `configs/train.json` is yours to change.
