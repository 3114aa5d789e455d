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
"""Caches hold image and points from before the random part, and never heatmaps; batches hold points as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import blob_image, centroids, inner_points
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, PersistentDataset, decollate_batch
from monai.transforms import Compose, Flipd

from monai_landmarks.transforms import (
    LandmarksToHeatmapd,
    LandmarksToIndexd,
    LoadLandmarksd,
    RandLandmarkFlipd,
    RandLandmarkWarpd,
)

SHAPE = (48, 40)


def items(count: int = 3) -> list[dict[str, Any]]:
    result = []
    for seed in range(count):
        points = inner_points(SHAPE, 4, seed)
        result.append({"image": MetaTensor(blob_image(points, SHAPE)), "label": points.tolist()})
    return result


def chain(random: bool) -> Compose:
    augment = [
        RandLandmarkWarpd("image", "label", rotate_range=0.2, translate_range=3, elastic_range=2, prob=1.0),
        RandLandmarkFlipd("image", "label", pairs=[(0, 1)], prob=0.5),
    ]
    return Compose(
        [
            LoadLandmarksd("label"),
            Flipd("image", 1),
            *(augment if random else []),
            LandmarksToIndexd("label"),
            LandmarksToHeatmapd("label", sigma=1.5),
        ]
    ).set_random_state(0)


def make(kind: str, transform: Compose, folder: Path) -> Dataset:
    if kind == "cache":
        return CacheDataset(items(), transform, progress=False)
    if kind == "persistent":
        return PersistentDataset(items(), transform, cache_dir=folder, track_meta=True, weights_only=False)
    return Dataset(items(), transform)


def cached(dataset: Dataset, folder: Path) -> list[dict[str, Any]]:
    if isinstance(dataset, CacheDataset):
        return list(dataset._cache)
    return [torch.load(path, weights_only=False) for path in sorted(folder.glob("*.pt"))]


@pytest.mark.parametrize("random", [True, False])
@pytest.mark.parametrize("kind", ["plain", "cache", "persistent"])
def test_points_stay_on_their_blobs(kind: str, random: bool, tmp_path: Path) -> None:
    dataset = make(kind, chain(random), tmp_path)
    seen = []
    for _ in range(3):  # epochs; the second reads from the cache
        for item in dataset:
            rows = sorted(map(tuple, item["label"][0].tolist()))
            np.testing.assert_allclose(rows, sorted(map(tuple, centroids(item["image"]))), atol=0.05)
            np.testing.assert_allclose(centroids(item["label_heatmap"]), item["label"][0], atol=0.01)
            assert not torch.isnan(item["label"]).any()
            seen.append(item["label"])
    assert torch.equal(seen[0], seen[3]) != random  # augmentation goes on after caching
    if kind != "plain":
        content = cached(dataset, tmp_path)
        assert len(content) == 3
        for item in content:
            assert {"image", "label"} <= set(item) and "label_heatmap" not in item


def test_batches_with_missing_points() -> None:
    data = items()
    data[1]["label"][2] = None
    for batch in DataLoader(Dataset(data, chain(True)), batch_size=3):
        assert batch["label"].shape == (3, 1, 4, 2) and batch["label_heatmap"].shape == (3, 4, *SHAPE)
        missing = torch.isnan(batch["label"]).any(-1)[:, 0]
        assert missing.sum() == 1 and missing[1, 2]
        assert batch["label_heatmap"][1, 2].abs().max() == 0
        single = decollate_batch(batch)[1]["label"]
        assert single.shape == (1, 4, 2)
        torch.testing.assert_close(single.affine, batch["image"][1].affine)


def test_determinism_of_a_chain() -> None:
    first = [item["label"] for item in Dataset(items(), chain(True).set_random_state(5))]
    second = [item["label"] for item in Dataset(items(), chain(True).set_random_state(5))]
    assert all(torch.equal(a, b) for a, b in zip(first, second))
