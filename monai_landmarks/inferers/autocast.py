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


"""Networks in half precision, on the CPU too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch.overrides import TorchFunctionMode

__all__ = ["AutocastInferer"]


class AutocastInferer(Inferer):
    """Run the network under autocast on the device of the image, and return its heatmaps in float32.

    MONAI's engines have ``amp`` for this, on CUDA only and with a gradient scaler. bfloat16 needs no scaler, since it
    has the range of float32. Where autocast is already on, as in an engine with ``amp``, nothing is changed. Autocast
    saves time on processors with bfloat16 arithmetic (AVX-512 BF16, AMX) and on recent GPUs.

    Args:
        inferer: runs the network. None: MONAI's ``SimpleInferer``.
        dtype: type of the arithmetic, for example ``torch.bfloat16`` or ``"bfloat16"``.
        enabled: False: run ``inferer`` without autocast.

    Raises:
        ValueError: for a dtype that is not a floating-point type of torch.

    Example:
        >>> AutocastInferer()(torch.zeros(1, 1, 8, 8), torch.nn.Conv2d(1, 2, 1)).dtype
        torch.float32
    """

    def __init__(
        self, inferer: Inferer | None = None, dtype: torch.dtype | str = torch.bfloat16, enabled: bool = True
    ) -> None:
        super().__init__()
        found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise ValueError(f"dtype must be a floating-point type of torch, such as 'bfloat16', got {dtype!r}.")
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.dtype = found
        self.enabled = enabled

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run the network.

        Args:
            inputs: (B, C, *spatial).
            network: returns heatmaps (B, N, *spatial).
            args: further arguments of the network.
            kwargs: further arguments of the network.

        Returns:
            Heatmaps (B, N, *spatial). Those in half precision become float32 and contiguous. The points of an inferer
            that ends in points are returned as they are.
        """
        if not self.enabled or torch.is_autocast_enabled(inputs.device.type):
            return self.inferer(inputs, network, *args, **kwargs)
        with torch.autocast(inputs.device.type, dtype=self.dtype), _WideKernelsInFloat32():
            heatmaps = self.inferer(inputs, network, *args, **kwargs)
        # points of an inferer that ends in points are in full precision already
        if not isinstance(heatmaps, torch.Tensor) or heatmaps.dtype not in (torch.bfloat16, torch.float16):
            return heatmaps
        # contiguous in the same copy: losses read whole heatmaps, which a channels_last network interleaves
        return heatmaps.to(torch.float32, memory_format=torch.contiguous_format)


class _WideKernelsInFloat32(TorchFunctionMode):
    """Compute 3-D convolutions whose kernel is wider than their input in full precision.

    On processors with AVX-512 BF16, torch 2.13 computes the gradient of such weights from neighboring memory: it is
    wrong without a warning, or NaN. Only the deepest feature maps of a U-Net are so small, so that full precision costs
    little.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.nn.functional.conv3d or args[0].device.type != "cpu":
            return func(*args, **(kwargs or {}))
        image, weight, *others = args
        if all(size >= width for size, width in zip(image.shape[2:], weight.shape[2:])):
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            return func(image.float(), weight, *others, **(kwargs or {}))
