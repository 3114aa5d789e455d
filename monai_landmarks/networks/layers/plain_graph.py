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


"""Where layers with a backward pass of their own must call torch's functions instead."""

from __future__ import annotations

import torch

__all__ = ["needs_plain_graph"]


def needs_plain_graph(x: torch.Tensor) -> bool:
    """Return True on other devices than a CPU, and while a network is traced, exported or compiled.

    Args:
        x: the input of the layer.
    """
    return x.device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling()
