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


"""One switch for the arithmetic of a network, on CPUs and GPUs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SimpleInferer
from torch.overrides import TorchFunctionMode

__all__ = ["AutocastInferer", "Precision", "choose_dtype"]

Precision = Literal["auto", "float32", "bfloat16", "float16"]

logger = logging.getLogger(__name__)


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type in which a network computes its convolutions on a device.

    ``auto`` chooses:

    - on a CPU, bfloat16 if the processor has instructions for it (AVX-512 BF16 or AMX), else float32. Without these
      instructions bfloat16 is several times slower than float32;
    - on CUDA, bfloat16 if the card computes it (compute capability 8.0 and newer), else float16;
    - float32 on other devices.

    Args:
        precision: ``auto``, or the name of the type.
        device: where the network runs.

    Returns:
        ``torch.float32``, ``torch.bfloat16`` or ``torch.float16``.

    Raises:
        ValueError: for another name.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}.")
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    return torch.float32


class AutocastInferer(Inferer):
    """Run the network under autocast on the device of the image, and return its heatmaps in float32.

    MONAI's engines have ``amp`` for this, on CUDA only. bfloat16 needs no gradient scaler, because it has the range of
    float32. To train in float16, add :class:`~monai_landmarks.handlers.GradientScale` to the trainer. Where autocast is
    already on, as in an engine with ``amp``, nothing is changed.

    The network gets a plain tensor, not a ``MetaTensor``: each operation on a ``MetaTensor`` runs additional Python
    code, which takes as much time as starting a kernel on a GPU.

    Args:
        inferer: runs the network. None: MONAI's ``SimpleInferer``.
        precision: type of the arithmetic, see :func:`choose_dtype`.

    Raises:
        ValueError: for another ``precision``.

    Example:
        >>> AutocastInferer()(torch.zeros(1, 1, 8, 8), torch.nn.Conv2d(1, 2, 1)).dtype
        torch.float32
    """

    def __init__(self, inferer: Inferer | None = None, precision: Precision = "auto") -> None:
        super().__init__()
        choose_dtype(precision, torch.device("meta"))  # refuses other names
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.precision = precision
        self._dtypes: dict[torch.device, torch.dtype] = {}

    def dtype_on(self, device: torch.device) -> torch.dtype:
        """Return the type of the arithmetic on a device, and log it at the first call.

        Args:
            device: where the network runs.

        Returns:
            See :func:`choose_dtype`.
        """
        if device not in self._dtypes:
            self._dtypes[device] = choose_dtype(self.precision, device)
            logger.info(f"The network computes in {self._dtypes[device]} on {device} (precision: {self.precision}).")
        return self._dtypes[device]

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
        if isinstance(inputs, MetaTensor):
            inputs = inputs.as_tensor()
        device = inputs.device
        dtype = self.dtype_on(device)
        if dtype == torch.float32 or torch.is_autocast_enabled(device.type):
            return self.inferer(inputs, network, *args, **kwargs)
        with torch.autocast(device.type, dtype=dtype), _WideKernelsInFloat32():
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
