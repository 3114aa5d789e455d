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

"""The random part of a chain gives the same on every device, from a cache that stays in main memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from blobs import blob_image, inner_points
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    ToDeviced,
)

from monai_landmarks.transforms import (
    HeatmapToLandmarksd,
    LandmarksToHeatmapd,
    LandmarksToIndexd,
    LoadLandmarksd,
    RandCropByLandmarksd,
    RandLandmarkFlipd,
    RandLandmarkWarpd,
    UncachedToDeviced,
)

SHAPES = {2: (48, 40), 3: (32, 28, 24)}
AFFINE = torch.tensor([[-2.0, 0.1, 0, 5], [0.1, 1.5, 0, -7], [0, 0, 1.2, 3], [0, 0, 0, 1]], dtype=torch.float64)


def items(dims: int, count: int = 3) -> list[dict[str, Any]]:
    result = []
    for seed in range(count):
        points = inner_points(SHAPES[dims], 4, seed)
        image = MetaTensor(blob_image(points, SHAPES[dims]).float(), affine=AFFINE)
        world = torch.from_numpy(points) @ AFFINE[:dims, :dims].T + AFFINE[:dims, 3]
        result.append({"image": image, "label": world.tolist()})
    return result


def dataset(dims: int, device: torch.device | str, crop: bool) -> CacheDataset:
    """With the random transforms of the bundles, and some that users add to them."""
    size = [n - 6 for n in SHAPES[dims]]
    chain = [
        LoadLandmarksd("label"),
        UncachedToDeviced("image", device),
        RandLandmarkFlipd("image", "label", spatial_axis=0, pairs=[(0, 1)], prob=0.5),
        RandLandmarkWarpd(
            "image", "label", rotate_range=0.2, translate_range=2, scale_range=0.1, elastic_range=2, unit="mm", prob=1.0
        ),
        *([RandCropByLandmarksd("image", "label", size, num_samples=2)] if crop else []),
        RandAdjustContrastd("image", prob=1.0, gamma=(0.8, 1.2)),
        RandScaleIntensityd("image", factors=0.2, prob=1.0),
        RandShiftIntensityd("image", offsets=0.1, prob=1.0),
        RandGaussianSmoothd("image", prob=1.0),
        LandmarksToIndexd("label"),
        LandmarksToHeatmapd("label", sigma=1.5),
    ]
    return CacheDataset(items(dims), Compose(chain).set_random_state(0), progress=False)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_device_gives_the_same(dims: int, crop: bool, device: torch.device) -> None:
    batches = []
    for where in (device, "cpu"):
        cached = dataset(dims, where, crop)
        assert all(item["image"].device.type == "cpu" for item in cached._cache)
        torch.manual_seed(0)  # from which a loader seeds the transforms
        batches.append(list(DataLoader(cached, batch_size=3)))
    for batch, reference in zip(*batches):
        for key in ("image", "label_heatmap"):
            assert batch[key].device.type == device.type
            torch.testing.assert_close(batch[key].cpu(), reference[key], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(batch["label"].cpu(), reference["label"])
        # MONAI keeps affines in main memory, from where they are read without waiting for the device
        assert batch["image"].affine.device.type == "cpu"
        decode = HeatmapToLandmarksd("pred", space="index")
        for number in range(len(batch["image"])):
            points = decode({key: batch[of][number] for key, of in (("pred", "label_heatmap"), ("image", "image"))})
            found, truth = (
                values.as_tensor().double().cpu() for values in (points["pred_points"], reference["label"][number])
            )
            inside = ((truth > 1) & (truth < torch.tensor(batch["image"].shape[2:]) - 2)).all(-1)
            torch.testing.assert_close(found[inside], truth[inside], atol=0.05, rtol=0)


def test_the_cache_stops_before_the_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where images go is asked each time they are taken out of the cache, and never while it is filled."""
    moves = []
    move = ToDeviced.__call__

    def count(self: ToDeviced, data: Any) -> Any:
        moves.append(data)
        return move(self, data)

    monkeypatch.setattr(ToDeviced, "__call__", count)
    cached = dataset(2, "cpu", crop=False)
    assert not moves
    for number in range(1, 3):
        cached[0]
        assert len(moves) == number


def test_worker_processes_stay_on_the_cpu() -> None:
    """A forked process cannot use a GPU; ``meta`` stands for one here."""
    dataset = Dataset([{"image": torch.ones(1, 4, 4)}], UncachedToDeviced("image", "meta"))
    assert dataset[0]["image"].device.type == "meta"
    for batch in DataLoader(dataset, num_workers=1):
        assert batch["image"].device.type == "cpu"
