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


"""Instance normalization and the activation that follows it, in one layer that is fast on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from .plain_graph import needs_plain_graph

__all__ = ["InstanceNormActivation"]

# elements per part: between normalization and activation, a part stays in the cache of a core
_PART = 2**18


class InstanceNormActivation(nn.modules.instancenorm._InstanceNorm):
    """
    Instance normalization, followed by a leaky ReLU.

    On a CPU, torch computes instance normalization as a batch normalization without vector instructions, and the
    activation in another pass through main memory. This layer takes a few feature maps at a time through both. If there
    is no learned scale, it keeps only its output for the backward pass, from which the normalized values follow. The
    results are those of the two layers, up to rounding. There are no second derivatives.

    On other devices, in half precision, in TorchScript and when the network is traced, exported or compiled, it calls
    the functions of the two layers. As with torch's layer, the output is contiguous in any case.

    Parameters and state dictionary are those of ``torch.nn.InstanceNorm2d``. Use :meth:`convert`.

    Args:
        num_features: number of channels.
        negative_slope: slope of the leaky ReLU: 0 for a ReLU, 1 for no activation.
        **kwargs: other arguments of ``torch.nn.InstanceNorm2d``. There are no running statistics.

    Shape:
        (B, C, *spatial) to (B, C, *spatial), any number of spatial axes.

    Example:
        >>> net = InstanceNormActivation.convert(nn.Sequential(nn.InstanceNorm2d(3), nn.ReLU()))
        >>> net
        Sequential(
          (0): InstanceNormActivation(3, eps=1e-05, affine=False, negative_slope=0.0)
          (1): Identity()
        )
    """

    def __init__(self, num_features: int, negative_slope: float = 1.0, **kwargs: Any) -> None:
        super().__init__(num_features, **kwargs)
        self.negative_slope = float(negative_slope)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Accept any number of axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # TorchScript leaves this block out; scripted code is not measured
        if not torch.jit.is_scripting():  # pragma: no branch
            if (
                x.dtype in (torch.float32, torch.float64)
                and x.shape[2:].numel() > 1  # for a single voxel, torch's function raises its error
                and not needs_plain_graph(x)
            ):
                return _NormActivation.apply(x.contiguous(), self.weight, self.bias, self.eps, self.negative_slope)
        x = F.instance_norm(x, None, None, self.weight, self.bias, True, 0.1, self.eps)
        if self.negative_slope == 0:
            return F.relu_(x)
        # x is new: nothing else refers to it
        return x if self.negative_slope == 1 else F.leaky_relu_(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}, negative_slope={self.negative_slope}"

    @classmethod
    def convert(cls, module: nn.Module) -> nn.Module:
        """
        Replace instance normalization in a network, in place, and the ReLU or leaky ReLU that follows it.

        Only an activation that follows in the same ``torch.nn.Sequential`` is taken over. Names of parameters do not
        change. Layers with running statistics stay.

        Args:
            module: the network.

        Returns:
            The network.
        """
        children = list(module.named_children())
        for number, (name, child) in enumerate(children):
            if not isinstance(child, nn.modules.instancenorm._InstanceNorm) or child.track_running_stats:
                cls.convert(child)
                continue
            layer = cls(child.num_features)
            layer.__dict__.update(child.__dict__)  # the same parameter objects
            setattr(module, name, layer)
            # dropout may be in between: a leaky ReLU before it gives the same as after it
            following = [item for item in children[number + 1 :] if not isinstance(item[1], nn.Dropout)]
            slope = _slope(following[0][1]) if following and isinstance(module, nn.Sequential) else None
            if slope is not None:
                layer.negative_slope = slope
                setattr(module, following[0][0], nn.Identity())
        return module


def _slope(activation: nn.Module) -> float | None:
    if isinstance(activation, nn.ReLU):
        return 0.0
    if isinstance(activation, nn.LeakyReLU) and activation.negative_slope >= 0:
        return float(activation.negative_slope)
    return None


def _parts(x: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and channels of parts that are contiguous in memory."""
    images, channels = x.shape[:2]
    size = max(1, x.shape[2:].numel())
    image_step, channel_step = max(1, _PART // (channels * size)), max(1, _PART // size)
    for image in range(0, images, image_step):
        for channel in range(0, channels, channel_step):
            yield slice(image, image + image_step), slice(channel, channel + channel_step)


class _NormActivation(torch.autograd.Function):
    """See :class:`InstanceNormActivation`."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float, slope: float
    ) -> torch.Tensor:
        output = torch.empty_like(x)
        mean, scale = x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2])
        for part in _parts(x):
            here = x[part]
            affine = [None if value is None else value[part[1]] for value in (weight, bias)]
            # a group per channel; group normalization uses vector instructions
            images, channels = here.shape[:2]
            normed, mean[part], scale[part] = torch.ops.aten.native_group_norm(
                here, *affine, images, channels, here.shape[2:].numel(), channels, eps
            )
            torch.ops.aten.leaky_relu.out(normed, slope, out=output[part])
        # The normalized values follow from the output. Without activation, the output may be changed in place, as by
        # the sum and the activation of a residual block.
        ctx.invertible = weight is None and 0 < slope < 1
        ctx.save_for_backward(None if slope == 1 else output, None if ctx.invertible else x, weight, mean, scale)
        ctx.slope = slope
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        gradient = gradients[0]
        output, x, weight, mean, scale = ctx.saved_tensors
        result = torch.empty_like(x if output is None else output)
        of_affine = [None if weight is None else torch.zeros_like(weight) for _ in range(2)]
        for part in _parts(result):
            images, channels = result[part].shape[:2]
            sizes = images, channels, result.shape[2:].numel(), channels
            of_normed = gradient[part].contiguous()
            if output is not None:
                of_normed = torch.ops.aten.leaky_relu_backward(of_normed, output[part], ctx.slope, True)
            if ctx.invertible:
                normed = F.leaky_relu(output[part], 1 / ctx.slope)
                zero, one = torch.zeros_like(mean[part]), torch.ones_like(mean[part])
                found, _, _ = torch.ops.aten.native_group_norm_backward(
                    of_normed, normed, zero, one, None, *sizes, [True, False, False]
                )
                torch.mul(found, scale[part].view(images, channels, *[1] * (result.ndim - 2)), out=result[part])
                continue
            found, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
                of_normed,
                x[part],
                mean[part].contiguous(),
                scale[part].contiguous(),
                None if weight is None else weight[part[1]],
                *sizes,
                [True, weight is not None, weight is not None],
            )
            result[part] = found
            for total, addend in zip(of_affine, (of_weight, of_bias)):
                if total is not None:
                    total[part[1]] += addend
        return result, *of_affine, None, None
