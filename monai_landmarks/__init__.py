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

"""Anatomical landmark localization for MONAI: from images and points to a trained bundle that detects landmarks."""

from __future__ import annotations

from pathlib import Path

__all__ = ["__version__", "bundle_path"]

__version__ = "0.2.0"


def bundle_path(name: str) -> Path:
    """Return the folder of a bundle of this package.

    Copy the folder before training: the files of an installed package must not change.

    Args:
        name: name of the bundle, for example ``"hand_xray_landmarks_scn"``.

    Returns:
        The folder of the bundle, with ``configs/``, ``docs/`` and ``LICENSE``.

    Raises:
        ValueError: if there is no bundle with this name. The message lists the available names.
    """
    from importlib.resources import files  # not above: it is imported before the program handles Ctrl-C

    root = Path(str(files("monai_landmarks.bundles")))
    names = sorted(folder.parent.name for folder in root.glob("*/configs"))
    if name not in names:
        raise ValueError(f"monai_landmarks {__version__} has no bundle {name!r}. Choose one of {', '.join(names)}.")
    return root / name
