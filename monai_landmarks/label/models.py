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


"""Which bundles the MONAI Label app offers as models, and where it keeps them."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import monai_landmarks
from monai_landmarks.data import bundle_landmark_names

__all__ = ["WEIGHTS", "bundle_names", "find_models", "bundle_spatial_dims"]

logger = logging.getLogger(__name__)

WEIGHTS = Path("models") / "model.pt"
_INFERENCE = Path("configs") / "inference.json"
_METADATA = Path("configs") / "metadata.json"
_MADE_BY_RUNS = ("eval", "data", "__pycache__", "mlruns*")


def find_models(wanted: str | None, folder: str | os.PathLike) -> dict[str, Path]:
    """The bundles that the app offers, each as a copy of its own that it may train.

    Neither an installed package nor a bundle that someone has trained is written to: a bundle is copied once, without its
    data, and the copy is what learns from corrections. To begin again, delete the copy.

    Args:
        wanted: bundles, separated by commas: paths of bundles or of folders of bundles, or names of shipped ones. They need
            no weights: a training may make the first. If not given, every shipped bundle that has weights, and those that
            are in ``folder`` already.
        folder: where the copies are.

    Returns:
        the folder of the copy of each bundle, by the bundle's name.

    Raises:
        ValueError: if there is no such bundle, or two have the same name.
    """
    folder = Path(folder)
    if wanted:
        sources = [source for part in wanted.split(",") if part.strip() for source in _sources(part.strip(), folder)]
    else:
        shipped = [path for path in _shipped() if (path / WEIGHTS).is_file()]
        here = _bundles_in(folder) if folder.is_dir() else []
        sources = here + [path for path in shipped if path.name not in {own.name for own in here}]
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two bundles are called {twice[0]!r}; a model needs a name of its own, rename the folder of one."
        )
    return {source.name: _own_copy(source.resolve(), folder / source.name) for source in sources}


def bundle_names(bundle: str | os.PathLike) -> list[str]:
    """Names of the landmarks that a bundle finds, in its order."""
    return bundle_landmark_names(Path(bundle) / _METADATA)


def bundle_spatial_dims(bundle: str | os.PathLike) -> int:
    """Number of axes of the images that a bundle takes."""
    metadata = json.loads((Path(bundle) / _METADATA).read_text(encoding="utf-8"))
    return len(next(iter(metadata["network_data_format"]["inputs"].values()))["spatial_shape"])


def _shipped() -> list[Path]:
    root = Path(monai_landmarks.bundle_path("hand_xray_landmarks_scn")).parent
    return _bundles_in(root)


def _bundles_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if (path / _INFERENCE).is_file())


def _sources(part: str, folder: Path) -> list[Path]:
    path = Path(part).expanduser()
    if (path / _INFERENCE).is_file():
        return [path.resolve()]
    if path.is_dir() and (found := _bundles_in(path)):
        return found
    known = {source.name: source for source in (*_shipped(), *(_bundles_in(folder) if folder.is_dir() else ()))}
    if part not in known:
        raise ValueError(
            f"there is no bundle {part!r}: expected the folder of a bundle (with {_INFERENCE.as_posix()}), a folder of "
            f"bundles, or one of {', '.join(sorted(known))}."
        )
    return [known[part]]


def _own_copy(source: Path, copy: Path) -> Path:
    if copy.resolve() == source:
        return copy
    if copy.exists():
        ours, theirs = copy / WEIGHTS, source / WEIGHTS
        if theirs.is_file() and ours.is_file() and theirs.stat().st_mtime > ours.stat().st_mtime:
            logger.warning(
                f"{source} was trained after its copy {copy}, which is used; delete the copy to take it anew."
            )
        return copy
    temporary = copy.with_name(f".{copy.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(*_MADE_BY_RUNS))
    temporary.rename(copy)
    return copy
