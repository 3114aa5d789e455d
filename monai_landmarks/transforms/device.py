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

"""Random transforms on the GPU, for images that are cached in main memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import ToDeviced
from monai.transforms.traits import RandomizableTrait
from torch.utils.data import get_worker_info

__all__ = ["UncachedToDeviced", "UncachedToDeviceD", "UncachedToDeviceDict"]


class UncachedToDeviced(ToDeviced, RandomizableTrait):
    """MONAI's ``ToDeviced``, which caching datasets treat as a random transform.

    Put it between the deterministic and the random transforms. The cache then stays in main memory, and all transforms
    after it run on the device. (MONAI's own ``ToDeviced`` is cached itself, so that the cached images fill the memory
    of the device.) Points may stay on the CPU: they are few, and the transforms that move them compute in float64 on
    the CPU.

    A forked process cannot use CUDA. In a worker process of a ``DataLoader`` the images therefore stay where they are,
    and the random transforms run on the CPU.

    Args:
        keys: images.
        device: for example ``"cuda:0"``.
        allow_missing_keys: do not raise if a key is missing.
        kwargs: further arguments of ``torch.Tensor.to``, for example ``non_blocking``.

    Example:
        >>> import torch
        >>> UncachedToDeviced("image", "cpu")({"image": torch.zeros(1, 4, 4), "label": torch.zeros(1, 2, 2)})["image"].device
        device(type='cpu')
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Move the images to the device, outside worker processes.

        Args:
            data: an item.

        Returns:
            The item with its images on the device.
        """
        return dict(data) if get_worker_info() is not None else super().__call__(data)


UncachedToDeviceD = UncachedToDeviceDict = UncachedToDeviced
