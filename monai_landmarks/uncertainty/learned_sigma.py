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
"""The sigma that a training has learned, in a file beside the weights."""

from __future__ import annotations

import os
from pathlib import Path

import torch

__all__ = ["find_learned_sigma", "load_sigma"]

_KEY = "sigma"


def load_sigma(path: str | os.PathLike) -> torch.Tensor:
    """Read the sigma that a ``CheckpointSaver`` saved from :class:`monai_landmarks.losses.TargetSigma`.

    The file is read without running any code from it.

    Args:
        path: path of the file, see :func:`monai_landmarks.uncertainty.sigma_path`.

    Returns:
        Sigma, (N, 1) or (N, D), in voxels of the network's grid.

    Raises:
        ValueError: if there is no such file, if it contains something else, or if sigma was not learned.
    """
    if not Path(path).is_file():
        raise ValueError(
            f"{os.fspath(path)}: there is no such file. Training with a loss that learns its sigma writes it beside the "
            "weights."
        )
    sigma, learned = _read_sigma(path)
    if not learned:
        raise ValueError(f"{os.fspath(path)}: this training has not learned the sigma of each landmark.")
    return sigma


def find_learned_sigma(path: str | os.PathLike) -> torch.Tensor | None:
    """Read the sigma of each landmark as :func:`load_sigma`, if a training has learned it.

    Returns:
        Sigma, (N, 1) or (N, D). None if there is no such file, if sigma is the same for all landmarks, or if each has one
        that was chosen before the training.

    Raises:
        ValueError: if the file contains something else.
    """
    if not Path(path).is_file():
        return None
    sigma, learned = _read_sigma(path)
    return sigma if learned else None


def _read_sigma(path: str | os.PathLike) -> tuple[torch.Tensor, bool]:
    """Read sigma, (N, 1) or (N, D), or a scalar if all landmarks have the same, and whether each has learned its own."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        sigma = content[_KEY]
        learned = sigma.ndim == 2 and bool(content.get("learned", True))  # older files do not state it
        good = sigma.ndim in (0, 2) and bool((sigma > 0).all())
    except Exception as error:  # the unpickler, the archive and its content raise different errors
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{os.fspath(path)}: contains no learned sigma ({reason}).") from error
    if not good:
        raise ValueError(f"{os.fspath(path)}: expected a positive sigma for each landmark, (N, 1) or (N, D).")
    return sigma.float(), learned
