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

"""Where the random part of a chain of transforms runs: on the GPU, for images that are cached in main memory."""

from __future__ import annotations

from monai.transforms import ToDeviced
from monai.transforms.traits import RandomizableTrait

__all__ = ["UncachedToDeviced", "UncachedToDeviceD", "UncachedToDeviceDict"]


class UncachedToDeviced(ToDeviced, RandomizableTrait):
    """
    MONAI's ``ToDeviced``, before which caching datasets stop as before a random transform.

    Between the transforms that are the same in every epoch and the random ones, it leaves the cache in main memory, and
    everything after it runs on the device: warps, intensities, and the targets, which the losses make from points. (MONAI's
    own would be cached itself, and the images with it in the device's memory.) Points may stay where they are: they are few,
    and what moves them computes in float64 on the CPU.

    A process that was forked cannot use CUDA: take no workers, ``DataLoader(num_workers=0)``.

    Args:
        keys: images.
        device: such as ``"cuda:0"``.
        allow_missing_keys: do not raise when a key is missing.
        kwargs: of ``torch.Tensor.to``, such as ``non_blocking``.

    Example:
        >>> import torch
        >>> UncachedToDeviced("image", "cpu")({"image": torch.zeros(1, 4, 4), "label": torch.zeros(1, 2, 2)})["image"].device
        device(type='cpu')
    """


UncachedToDeviceD = UncachedToDeviceDict = UncachedToDeviced
