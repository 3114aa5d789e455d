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

"""Every bundle prepares its training images on the device, from a cache in main memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms.traits import RandomizableTrait
from small_bundles import BUNDLES, copy_bundle, training_size, workflow

from monai_landmarks.transforms import UncachedToDeviced


def training_items(root: Path, **options: Any) -> list[dict[str, Any]]:
    """All items of the training data set, as the first epoch sees them."""
    flow = workflow(root, "train", **training_size(root), **options)
    flow.initialize()
    dataset = flow.parser.get_parsed_content("train#dataset")
    assert all(item["image"].device.type == "cpu" for item in dataset._cache)
    first = next(t for t in dataset.transform.transforms if isinstance(t, RandomizableTrait))
    assert isinstance(first, UncachedToDeviced)
    dataset.transform.set_random_state(0)
    patches = (item if isinstance(item, list) else [item] for item in dataset)
    return [patch for several in patches for patch in several]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_random_transforms_follow_the_way_to_the_device(bundle: str, tmp_path: Path) -> None:
    """The items of a cache in main memory; ``training_items`` looks at the cache and at the first random transform."""
    assert training_items(copy_bundle(bundle, tmp_path), device=torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_gpu_makes_the_same_of_the_images(bundle: str, tmp_path: Path) -> None:
    root, device = copy_bundle(bundle, tmp_path), torch.device("cuda")
    expected = training_items(root, device=torch.device("cpu"))
    found = training_items(root, device=device)
    assert len(found) == len(expected) > 0
    for item, reference in zip(found, expected):
        assert item["image"].device.type == device.type
        torch.testing.assert_close(item["image"].cpu(), reference["image"], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(item["label"].cpu(), reference["label"], equal_nan=True)


def test_training_on_the_device(tmp_path: Path, device: torch.device) -> None:
    """From the cache to the gradient."""
    root = copy_bundle("hand_xray_landmarks_scn", tmp_path)
    options = {"device": device, "train#handlers": [], **training_size(root, epochs=1)}
    flow = workflow(root, "train", **options)
    flow.initialize()
    trainer = flow.parser.get_parsed_content("train#trainer")
    trainer.run()
    assert trainer.state.iteration == 3 and trainer.data_loader.num_workers == 0
    for output in trainer.state.output:
        assert output["image"].device.type == device.type and torch.isfinite(torch.as_tensor(output["loss"]))
