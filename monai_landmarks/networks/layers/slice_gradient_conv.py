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


"""A 3-D convolution whose backward pass is fast on processors without AVX-512."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
import torch.nn as nn
from torch.autograd.function import once_differentiable

from .plain_graph import needs_plain_graph

__all__ = ["SliceGradientConv3d"]

logger = logging.getLogger(__name__)

# voxels of a channel; below, the calls cost more than they save
_LEAST_VOXELS = 2**13


class SliceGradientConv3d(nn.Conv3d):
    """
    ``torch.nn.Conv3d`` that computes the gradient of its weights slice by slice, as a sum of 2-D convolutions.

    On processors with AVX2 but without AVX-512, oneDNN computes the gradients of 2-D weights faster than those of 3-D
    weights. Results are equal up to rounding. There are no second derivatives. The log states the choice for the
    processor at the first use.

    On other processors and devices, for strides, dilations, groups and padding modes other than the default, in other
    types than float32, in TorchScript and when the network is traced, exported or compiled, this is torch's layer.

    Parameters and state dictionary are those of ``torch.nn.Conv3d``. Use :meth:`convert`.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        # TorchScript leaves this block out; scripted code is not measured
        if not torch.jit.is_scripting():  # pragma: no branch
            if self.weight.requires_grad and torch.is_grad_enabled() and self._is_simple(input):
                return _SliceGradientConv.apply(input, self.weight, self.bias, list(self.padding))
        return self._conv_forward(input, self.weight, self.bias)

    def _is_simple(self, x: torch.Tensor) -> bool:
        return (
            not needs_plain_graph(x)
            and not torch.is_autocast_enabled("cpu")
            and x.dtype == self.weight.dtype == torch.float32
            and x.ndim == 5
            and x.shape[2:].numel() >= _LEAST_VOXELS
            and x.is_contiguous()
            and self.stride == self.dilation == (1, 1, 1)
            and self.groups == 1
            and self.padding_mode == "zeros"
            and isinstance(self.padding, tuple)
            and _is_faster_here()
        )

    @classmethod
    def convert(cls, module: nn.Module) -> nn.Module:
        """
        Replace the 3-D convolutions of a network, in place.

        Args:
            module: the network.

        Returns:
            The network.
        """
        for child in module.modules():
            if type(child) is nn.Conv3d:
                child.__class__ = cls
        return module


@cache
def _is_faster_here() -> bool:
    """Choose by the instructions of the processor, and log the choice once."""
    instructions = torch.backends.cpu.get_cpu_capability()
    is_faster = instructions == "AVX2"
    logger.info(
        "The processor has %s: weight gradients of 3-D convolutions are computed %s.",
        instructions,
        "slice by slice" if is_faster else "by torch",
    )
    return is_faster


class _SliceGradientConv(torch.autograd.Function):
    """See :class:`SliceGradientConv3d`."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: list[int]
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return torch.nn.functional.conv3d(x, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_x = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x, _, _ = _backward(gradient, x, weight, ctx.padding, [True, False, False])
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3, 4))
        # slices first
        x, gradient = x.transpose(1, 2).contiguous(), gradient.transpose(1, 2).contiguous()
        of_weight = torch.zeros_like(weight)
        for tap in range(weight.shape[2]):
            shift = tap - ctx.padding[0]
            first, last = max(0, -shift), min(gradient.shape[1], x.shape[1] - shift)
            if first < last:  # else the tap sees padding only
                slices = x[:, first + shift : last + shift].flatten(0, 1)
                _, of_weight[:, :, tap], _ = _backward(
                    gradient[:, first:last].flatten(0, 1),
                    slices,
                    weight[:, :, tap],
                    ctx.padding[1:],
                    [False, True, False],
                )
        return of_x, of_weight, of_bias, None


def _backward(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, padding: list[int], mask: list[bool]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ones = [1] * len(padding)
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, ones, padding, ones, False, [0] * len(padding), 1, mask
    )
