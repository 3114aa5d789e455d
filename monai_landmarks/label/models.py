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


"""Bundles that the MONAI Label app offers as models, and the copies that it trains."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from monai.bundle import ConfigParser

import monai_landmarks
from monai_landmarks.data import atomic_write, bundle_landmark_names, find_weights
from monai_landmarks.data.datalists.bundle_metadata import read_bundle_json, require_readable
from monai_landmarks.data.datalists.bundle_weights import CLOSE_LOOK_PRETRAINED, PRETRAINED, has_both_networks
from monai_landmarks.data.files.safe_files import atomic_folder
from monai_landmarks.data.files.tensor_files import atomic_save, load_tensors

__all__ = ["WEIGHTS", "bundle_names", "bundle_spatial_dims", "config_files", "find_models"]

logger = logging.getLogger(__name__)

WEIGHTS = Path("models") / "model.pt"
_INFERENCE = Path("configs") / "inference.json"
_METADATA = Path("configs") / "metadata.json"
_CLOSE_LOOK = Path("configs") / "close_look.json"
_MERGED = "_with_close_look.json"  # end of the names of the files that replace inference.json and train.json
_COARSE = Path("models") / "coarse" / "model.pt"  # which a training of the fine network reads
_MADE_BY_RUNS = ("eval", "data", "__pycache__", "mlruns*")


def find_models(wanted: str | None, folder: str | os.PathLike) -> dict[str, Path]:
    """Copy the selected bundles to the folder of the app, and return the copies.

    The app trains the copies. So an installed package, or a bundle that somebody has trained, is never changed. A
    bundle is copied once, without its data. To start again from the original, delete the copy.

    Args:
        wanted: bundles, separated by commas: paths of bundles, paths of folders with bundles, or names of bundles of
            this package. They do not need weights, because a training can create them. If None or empty: all bundles of
            this package that have weights, and all bundles that are already in ``folder``.
        folder: folder of the copies.

    Returns:
        The folder of the copy of each bundle, by the name of the bundle.

    Raises:
        ValueError: if a bundle does not exist, if a configuration is damaged, if two bundles have the same name, or if
            the copy is that of a bundle with other landmarks.
    """
    folder = Path(folder)
    if wanted:
        sources = [source for part in wanted.split(",") if part.strip() for source in _sources(part.strip(), folder)]
    else:
        shipped = [path for path in _shipped() if _weights(path / WEIGHTS.parent).is_file()]
        here = _bundles_in(folder) if folder.is_dir() else []
        sources = here + [path for path in shipped if path.name not in {own.name for own in here}]
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two bundles have the name {twice[0]!r}, but each model needs its own name. Rename the folder of one of them."
        )
    copies = {source.name: _own_copy(source.resolve(), folder / source.name) for source in sources}
    for copy in copies.values():
        for path in sorted((copy / _INFERENCE).parent.glob("*.json")):
            read_bundle_json(path)
    return copies


def bundle_names(bundle: str | os.PathLike) -> list[str]:
    """Return the names of the landmarks of a bundle, in the order of its outputs."""
    return bundle_landmark_names(Path(bundle) / _METADATA)


def bundle_spatial_dims(bundle: str | os.PathLike) -> int:
    """Return the number of spatial dimensions of the images of a bundle."""
    metadata = read_bundle_json(Path(bundle) / _METADATA)
    return len(next(iter(metadata["network_data_format"]["inputs"].values()))["spatial_shape"])


def _shipped() -> list[Path]:
    root = Path(monai_landmarks.bundle_path("hand_xray_landmarks_scn")).parent
    return _bundles_in(root)


def _bundles_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*") if (path / _INFERENCE).is_file())


def _sources(part: str, folder: Path) -> list[Path]:
    path = Path(part).expanduser()
    if (path / _INFERENCE).is_file():
        return [path.resolve()]
    if path.is_dir() and (found := _bundles_in(path)):
        return found
    known = {source.name: source for source in (*_shipped(), *(_bundles_in(folder) if folder.is_dir() else ()))}
    if part not in known:
        raise ValueError(
            f"there is no bundle {part!r}: give the folder of a bundle (with {_INFERENCE.as_posix()}), a folder with "
            f"bundles, or one of {', '.join(sorted(known))}."
        )
    return [known[part]]


def config_files(bundle: str | os.PathLike, name: str) -> list[str]:
    """Return the names of the configuration files that a task of MONAI Label may read, the best one first.

    Args:
        bundle: folder of the bundle.
        name: ``"inference"`` or ``"train"``.
    """
    merged = Path(bundle) / "configs" / f"{name}{_MERGED}"
    both = merged.is_file() and has_both_networks(Path(bundle) / WEIGHTS)
    return [*([merged.name] if both else []), f"{name}.json", f"{name}.yaml"]


def _weights(models: Path) -> Path:
    """Return the weights with which a bundle is offered: own ones, those for one network, or those of a close look."""
    plain = Path(find_weights(models))
    return plain if plain.is_file() else models / CLOSE_LOOK_PRETRAINED


def _use_shipped_weights(models: Path) -> None:
    """Let the copy of a bundle that was not trained start from its shipped weights, which it then fine-tunes."""
    found = _weights(models)
    if not found.is_file() or found.name == WEIGHTS.name:
        return
    for file in models.glob(f"{found.stem}*"):
        if found.name != PRETRAINED or not file.name.startswith(Path(CLOSE_LOOK_PRETRAINED).stem):
            shutil.copy(file, file.with_name(file.name.replace(found.stem, WEIGHTS.stem, 1)))


def _use_close_look(bundle: Path) -> None:
    """Let the copy of a bundle look closely if its weights are those of both networks.

    MONAI Label reads one file of configuration, so those of the close look are merged into files of their own. A training
    with them is that of the fine network; the coarse one keeps its weights.
    """
    try:
        both = (bundle / _CLOSE_LOOK).is_file() and has_both_networks(bundle / WEIGHTS)
    except ValueError as error:  # only a task that uses the weights fails
        logger.warning(str(error))
        return
    if not both:
        return
    for name, changes in (("inference", {}), ("train", {"run": "@fine_training"})):
        files = [bundle / "configs" / f"{name}.json", bundle / _CLOSE_LOOK]
        if all(path.is_file() for path in files):
            require_readable(files)
            parser = ConfigParser()
            parser.read_config([os.fspath(path) for path in files])
            content = {key: value for key, value in parser.get().items() if key != parser.meta_key}
            with atomic_write(bundle / "configs" / f"{name}{_MERGED}") as file:
                file.write_text(json.dumps({**content, **changes}, indent=4), encoding="utf-8")
    if not (bundle / _COARSE).is_file():
        parts = ((key.partition("."), value) for key, value in load_tensors(bundle / WEIGHTS).items())
        (bundle / _COARSE).parent.mkdir(exist_ok=True)
        atomic_save({name: value for (network, _, name), value in parts if network == "coarse"}, bundle / _COARSE)


def _own_copy(source: Path, copy: Path) -> Path:
    if copy.resolve() == source:
        return copy
    if copy.exists():
        if bundle_names(copy) != bundle_names(source):
            raise ValueError(
                f"{source} has other landmarks than {copy}, the copy of a bundle with the same name. Rename the folder"
                " of the bundle, or delete the copy."
            )
        ours, theirs = copy / WEIGHTS, source / WEIGHTS
        if theirs.is_file() and not (ours.is_file() and ours.stat().st_mtime >= theirs.stat().st_mtime):
            logger.warning(
                f"{source} was trained after it was copied to {copy}. The copy is used; delete it to copy the bundle again."
            )
        return copy
    with atomic_folder(copy) as temporary:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(*_MADE_BY_RUNS), dirs_exist_ok=True)
        _use_shipped_weights(temporary / WEIGHTS.parent)
        _use_close_look(temporary)
    return copy
