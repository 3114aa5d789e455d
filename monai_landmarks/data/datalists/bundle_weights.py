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

"""Weights of a bundle: those of an own training, or else those that are shipped with the bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["CLOSE_LOOK_PRETRAINED", "PRETRAINED", "TRAINED", "find_weights", "has_both_networks"]

TRAINED = "model.pt"  # what a training writes, as MONAI's bundles have it
PRETRAINED = "pretrained.pt"  # what is shipped, which no training overwrites
CLOSE_LOOK_PRETRAINED = "pretrained_close_look.pt"  # what is shipped for close_look.json: both networks


def find_weights(ckpt_dir: str | os.PathLike, pretrained: str = PRETRAINED) -> str:
    """Return the path of the weights in a folder.

    Args:
        ckpt_dir: folder of the weights, ``models`` of a bundle.
        pretrained: name of the shipped weights. ``pretrained_close_look.pt`` are those of ``close_look.json``.

    Returns:
        Path of ``model.pt``, which a training writes. If there is none, path of the shipped weights, which some bundles
        have. If there is none either, the path where ``model.pt`` is expected.
    """
    folder = Path(ckpt_dir)
    shipped = not (folder / TRAINED).is_file() and (folder / pretrained).is_file()
    return os.fspath(folder / (pretrained if shipped else TRAINED))


def has_both_networks(weights: str | os.PathLike) -> bool:
    """Return whether a file has the weights of both networks of a close look. False if there is no file.

    Raises:
        ValueError: if the file is damaged.
    """
    from monai_landmarks.data.files.tensor_files import load_tensors  # imports torch

    state = load_tensors(weights) if Path(weights).is_file() else None
    return isinstance(state, Mapping) and {str(name).partition(".")[0] for name in state} == {"coarse", "fine"}
