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

"""Files of weights and other tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .safe_files import atomic_write

__all__ = ["atomic_save", "load_tensors", "non_finite_weights"]


def atomic_save(content: Any, path: str | os.PathLike) -> None:
    """Write tensors with ``torch.save``, completely or not at all; see :func:`monai_landmarks.data.atomic_write`.

    Args:
        content: a state dictionary, or anything else that ``torch.save`` writes.
        path: the file.
    """
    # into a file of Python, because torch's own one does not say why it fails
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def load_tensors(path: str | os.PathLike, map_location: Any = "cpu", advice: str = "") -> Any:
    """Read a file of tensors and plain values with ``weights_only``, so that it cannot run code.

    Args:
        path: the file.
        map_location: device of the tensors, as in ``torch.load``.
        advice: what to do if the file cannot be read, one or more sentences for the message.

    Raises:
        ValueError: if the file does not exist, is damaged or contains something else.
    """
    if not Path(path).is_file():
        raise ValueError(f"{os.fspath(path)}: there is no such file. {advice}".rstrip())
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # the unpickler, the archive and the file raise different types
        reason = str(error).strip().partition("\n")[0]
        kind = "the file is damaged, for example cut off, or is not a file of weights only"
        raise ValueError(f"{os.fspath(path)}: {kind} ({reason}). {advice}".rstrip()) from error


def non_finite_weights(holder: Any) -> str | None:
    """Return a description of the first weights that are NaN or infinite, or None if there are none.

    Infinite values of buffers are not counted, because a mask may contain them.

    Args:
        holder: a network or another object with ``state_dict``, or a state dictionary.
    """
    parameters = {name for name, _ in holder.named_parameters()} if isinstance(holder, torch.nn.Module) else set()
    state = holder if isinstance(holder, Mapping) else holder.state_dict()
    for name, value in _tensors(state):
        bad = ~value.isfinite() if name in parameters else value.isnan()
        count = int(bad.sum())
        if count:
            return f"{count} of the {value.numel()} values of {name!r} are NaN or infinite"
    return None


def _tensors(state: Any, name: str = "") -> Any:
    if isinstance(state, torch.Tensor):
        if state.is_floating_point() or state.is_complex():
            yield name, state.detach()
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
