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


"""The ``meta`` device of torch in place of a GPU: what a GPU would be asked to do is counted, and nothing is computed."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["DeviceCounter"]

# they make or view memory, and compute nothing
_NO_KERNEL = {
    "alias",
    "detach",
    "empty",
    "empty_like",
    "empty_strided",
    "lift_fresh",
    "new_empty",
    "new_empty_strided",
    "view",
    "_reshape_alias",
    "_unsafe_view",
}
# a CPU tensor as an index is copied to the device
_INDEXING = {"index", "index_put_", "_index_put_impl_"}


class DeviceCounter(TorchDispatchMode):
    """Count kernels, waits and mixtures of devices, by the line that causes them.

    A transfer to the CPU, the value of a tensor and ``nonzero`` wait for all kernels before them. Their results are
    ones here, because the device computes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Start from zero."""
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.mixtures: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if tensor.device.type == "meta"]
        here = [tensor for tensor in tensors if tensor.device.type == "cpu" and tensor.ndim > 0]
        target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
        if name == "copy_" and args[0].device != args[1].device:
            if args[0].device.type == "cpu":
                self.waits[_caller(name)] += 1
                return args[0].fill_(1)
            return args[0]
        if there and (answer := _answer(name, args, kwargs, target)) is not None:
            self.waits[_caller(name)] += 1
            return answer
        if there and name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1]):
            self.waits[_caller(name)] += 1
        if there and here and name not in _INDEXING:
            self.mixtures[_caller(name)] += 1
        if (there or target == "meta") and not func.is_view and name not in _NO_KERNEL:
            self.kernels[name] += 1
        return func(*args, **kwargs)


def _answer(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], target: str | None) -> Any:
    """Return what the CPU gets from the device, or None if it does not ask for anything."""
    if name == "_local_scalar_dense":
        return True if args[0].dtype == torch.bool else 1.0 if args[0].dtype.is_floating_point else 1
    if name == "nonzero":
        return torch.zeros((1, args[0].ndim), dtype=torch.long, device="meta")
    if name == "equal":
        return True
    if name == "_to_copy" and target == "cpu":
        return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
    return None


def _caller(operation: str) -> str:
    """The line of the package that calls an operation, or else the last one outside torch."""
    frame, other = sys._getframe(2), None
    while frame is not None and "/monai_landmarks/" not in frame.f_code.co_filename:
        if other is None and "/torch/" not in frame.f_code.co_filename:
            other = frame
        frame = frame.f_back  # type: ignore[assignment]
    frame = frame or other  # type: ignore[assignment]
    return f"{operation} in {frame.f_code.co_filename}:{frame.f_lineno}"
