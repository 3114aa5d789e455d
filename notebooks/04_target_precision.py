# %% [markdown]
# # Learned target precision
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
# How wide should the target heatmap of a landmark be? A narrow target requires a precision that the annotation may not have. A wide target discards detail that the image shows. Sigma is usually
# chosen by hand, one value for all landmarks. Zhou et al. (IEEE JBHI 2021) let a reinforcement learning agent search it for each landmark during training, with an early stop per landmark.
#
# This idea comes from the paper. Only its abstract was available, so the details are specific to this package: what the agent observes, its actions, its reward, and when it stops.

# %% [markdown]
# ## Setup environment

# %%
# !python -c "import monai_landmarks" || pip install -q -e ".."

# %% [markdown]
# ## Setup imports

# %%
import logging
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Image, display
from monai.config import print_config
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.transforms import Compose, Lambdad, LoadImaged, NormalizeIntensityd
from monai.utils import set_determinism

from monai_landmarks.data import load_landmark_datalist
from monai_landmarks.data.datasets.phantom import HAND_LANDMARKS, write_hand_phantom
from monai_landmarks.handlers import TargetPrecision
from monai_landmarks.losses import AdaptivePrecisionLoss
from monai_landmarks.metrics import points_error_batch
from monai_landmarks.networks.nets import LocalizationUNet
from monai_landmarks.precision import (
    DoubleDQNAgent,
    FixedSigma,
    PrecisionSearch,
    PrecisionTrajectory,
    RandomAgent,
    ReplayedSigma,
)
from monai_landmarks.transforms import EnsureWorldAffined, HeatmapToLandmarksd, LandmarksToIndexd, LoadLandmarksd

print_config()
set_determinism(seed=0)
logging.disable(logging.INFO)

# %% [markdown]
# ## Annotations with known uncertainty
#
# The images are phantom hands of 40 x 40 pixels with eight landmarks. Their annotations have random errors with a standard deviation from 0 pixels for the first to 3 pixels for the last landmark. The correct order of the sigmas is therefore known.
# The annotations for testing are exact. The circles have a radius of two standard deviations.

# %%
folder = Path(tempfile.mkdtemp())
chosen = list(range(0, 37, 5))
names = [HAND_LANDMARKS[n] for n in chosen]
size, spacing = 40, 5.9  # pixels, and mm per pixel
jitter = torch.linspace(0, 3, len(chosen))
per_landmark = [0.0] * len(HAND_LANDMARKS)
for n, deviation in zip(chosen, jitter.tolist()):
    per_landmark[n] = deviation * spacing
datalist = write_hand_phantom(
    folder, 50, size=(size, size), spacing=spacing, label_jitter=per_landmark, val_frac=0.24, test_frac=0.2
)

read = Compose(
    [
        LoadImaged("image", reader="PILReader", ensure_channel_first=True),
        EnsureWorldAffined("image", spacing_key="spacing"),
        LoadLandmarksd("label", "image"),
        NormalizeIntensityd("image"),
        LandmarksToIndexd("label", "image"),
        Lambdad("label", lambda points: points[:, chosen]),
    ]
)
data = {
    name: [read(item) for item in load_landmark_datalist(datalist, name)]
    for name in ("training", "validation", "testing")
}

item = data["training"][0]
plt.imshow(item["image"][0].T, cmap="gray")
for name, point, deviation in zip(names, item["label"][0], jitter):
    plt.plot(*point, ".", label=f"{name}, {deviation:.1f}")
    plt.gca().add_patch(plt.Circle(tuple(point), 2 * deviation, fill=False, color="w", linewidth=0.5))
plt.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), title="jitter in pixels")
plt.axis("off")
plt.show()

# %% [markdown]
# ## A loss and a handler
#
# `AdaptivePrecisionLoss` has one sigma per landmark. Here it compares the softmax of a heatmap with a Gaussian of mass 1, so that the width of the target does not change the size of the loss.
# `TargetPrecision` is an Ignite handler. After each validation it passes the errors to a controller, which chooses the sigmas for the next epoch. Trainer and evaluator are MONAI's.

# %%
epochs = 20


def augment(batch, device, non_blocking, **kwargs):
    """Shift image and points by up to 3 whole pixels."""
    shift = torch.randint(-3, 4, (2,)).tolist()
    return batch["image"].as_tensor().roll(shift, (2, 3)), batch["label"].as_tensor() + torch.tensor(shift)


def train(controller, name):
    """Train with a controller and return the test error in pixels."""
    torch.manual_seed(0)
    network = LocalizationUNet(2, 1, len(names), features=(8, 8, 16, 16, 16, 8))
    loss = AdaptivePrecisionLoss(len(names), spatial_dims=2, sigma=4.0)
    loader = DataLoader(Dataset(data["training"]), batch_size=4, shuffle=True)
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * len(loader), pct_start=0.2)
    cpu = torch.device("cpu")
    evaluator = SupervisedEvaluator(
        device=cpu,
        val_data_loader=DataLoader(Dataset(data["validation"]), batch_size=12),
        network=network,
        postprocessing=HeatmapToLandmarksd("pred", space="index", softmax=True),
    )
    handlers = [
        ValidationHandler(1, evaluator),
        TargetPrecision(loss, controller, evaluator, names, folder / f"{name}.json", space="index"),
        LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
    ]
    trainer = SupervisedTrainer(
        device=cpu,
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=loss,
        prepare_batch=augment,
        train_handlers=handlers,
    )
    trainer.run()
    network.eval()
    decode = HeatmapToLandmarksd("pred", refer_keys=None, space="index", softmax=True)
    with torch.no_grad():
        points = [decode({"pred": network(i["image"][None])[0]})["pred_points"].as_tensor() for i in data["testing"]]
    errors = [points_error_batch(p, i["label"].as_tensor()) for p, i in zip(points, data["testing"])]
    return float(torch.cat(errors).mean())


# %% [markdown]
# ## The search
#
# After a warm-up, the agent acts at each validation. For each landmark it observes eighteen numbers, such as the current sigma, the change of the error and the width of the predicted heatmap. It then decreases, keeps or increases sigma, or stops the search.
# The reward is the change of the landmark's cost. The cost combines the error and the likelihood of the validation annotations under a Gaussian of half that sigma. This likelihood is known for every sigma, so the agent also
# learns from actions that it did not take. A landmark whose search has ended (circles) keeps its sigma.

# %%
error = {"search": train(PrecisionSearch(len(names), 2, agent=DoubleDQNAgent(seed=0)), "search")}
display(Image(folder / "search.png", width=760))

record = PrecisionTrajectory.read(folder / "search.json")
last = record.decisions[-1]
for name, deviation, sigma, reason in zip(names, jitter, last["sigma"], last["stopped"]):
    print(f"{name:28s} jitter {deviation:.1f}   sigma {sigma:5.2f}   {reason}")

# %% [markdown]
# ## Comparison
#
# The same training with one sigma for all landmarks, and with an agent that acts at random. The random agent has the same early stop, which returns to the sigma with the lowest cost, so it also finds useful values.
#
# One seed on a small phantom is informative about the sigmas, not about the errors. After 28 images and 140 iterations, most of the remaining error is the error of the network, and a fixed sigma may be better.
# [`benchmarks/study_precision.py`](../benchmarks/README.md#study-target-precision) uses more images and three seeds; there, the search has smaller errors than any fixed sigma. The table is in the README of
# [`ceph_xray_landmarks_adaptive`](../bundles/ceph_xray_landmarks_adaptive/docs/README.md#performance).

# %%
error["fixed"] = train(FixedSigma(2.0), "fixed")
error["random"] = train(PrecisionSearch(len(names), 2, agent=RandomAgent(seed=0)), "random")


def rank_correlation(values):
    ranks = [torch.as_tensor(v).argsort().argsort().double() for v in (values, jitter)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


for name, value in error.items():
    sigma = PrecisionTrajectory.read(folder / f"{name}.json").decisions[-1]["sigma"]
    order = "-" if len(set(sigma)) == 1 else f"{rank_correlation(sigma):.2f}"
    print(f"{name:8s} test error {value:.2f} pixels, rank correlation of sigma with jitter {order}")
assert rank_correlation(last["sigma"]) > 0

# %% [markdown]
# ## Replaying a search
#
# The recorded trajectory can be replayed: it sets the same sigmas at the same progress of the training, without an agent and without validation images. This is useful for a final training on all images.

# %%
replayed = ReplayedSigma(folder / "search.json")
print([round(s, 2) for s in replayed.trajectory.sigma_at(0.0)])
print([round(s, 2) for s in replayed.trajectory.sigma_at(0.5)])
print([round(s, 2) for s in replayed.trajectory.sigma_at(1.0)])
