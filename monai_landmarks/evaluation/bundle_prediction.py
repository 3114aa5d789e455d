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


"""Landmarks in images, found by a bundle."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from monai_landmarks.data import UnreadableImage
from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.uncertainty import sigma_path

from .prediction_formats import PREDICTION_FORMATS

__all__ = ["Prediction", "predict_landmarks"]

# what is set or read here, or asked for by MONAI's own specification
_NEEDED = ("dataset_dir", "output_dir", "checkpoint", "device", "dataloader", "saver", "handlers", "run")
# how MONAI begins the message around an error in a config
_WRAPPERS = ("Failed to evaluate", "Failed to instantiate")


@dataclass(frozen=True)
class Prediction:
    """What :func:`predict_landmarks` did: the files it wrote, the images that could not be read, with the reason, and what else
    there is to say."""

    written: tuple[Path, ...]
    unreadable: tuple[UnreadableImage, ...]
    notes: tuple[str, ...] = ()


def predict_landmarks(
    bundle: str | os.PathLike,
    images: str | os.PathLike,
    out: str | os.PathLike,
    formats: Sequence[str] = ("mrk.json",),
    *,
    configs: Sequence[str | os.PathLike] = (),
    checkpoint: str | os.PathLike | None = None,
    device: str | None = None,
    spacing: float | Sequence[float] | None = None,
    batch_size: int | None = None,
    regions: str | os.PathLike | None = None,
    covariance: str = "heatmap",
) -> Prediction:
    """Find landmarks with a bundle, as its ``configs/inference.json`` says.

    It does what ``python -m monai.bundle run`` does with this configuration, in which it sets the images, the folder and the
    formats. Points are in the space of the image files, with a score and a covariance, see :class:`PredictionSaver
    <monai_landmarks.handlers.PredictionSaver>`. An image that cannot be read is left out, and the others are done.

    **A bundle is configuration that runs Python**, by design of MONAI: whoever wrote it can do with this computer what you
    can do. Weights alone cannot, because they are loaded with ``weights_only``.

    Args:
        bundle: its folder, with ``configs/inference.json`` and ``configs/metadata.json``.
        images: a folder with the folders in it, a file, or the folder of a DICOM series, see
            :func:`monai_landmarks.data.image_folder_items`.
        out: folder for ``predictions.csv``, a file an image in each of the formats, and what the bundle draws. Images of
            the same name in different folders get files of different names.
        formats: of the files, among ``mrk.json``, ``fcsv`` and ``npz``; ``csv`` is the table, which is always written.
        configs: more configuration files, read after ``inference.json``, such as the one with which the bundle was trained.
        checkpoint: the weights, if not those that the configuration names.
        device: such as ``cpu`` or ``cuda:1``, if not the configuration's.
        spacing: pixel size in mm of pictures, one number or one per axis; without it a pixel counts as 1 mm.
        batch_size: images at a time, if not the configuration's.
        regions: file of :class:`ConformalRegions <monai_landmarks.uncertainty.ConformalRegions>`, to state for each landmark
            where it is with which probability.
        covariance: ``"heatmap"``, or ``"sigma"``: the sigma that the bundle's training has learned for each landmark, the same
            in all images. Where none lies beside the weights it is the heatmap's, and a note says so.

    Returns:
        the files written and the images left out.

    Raises:
        ValueError: if the folder is no bundle or its configuration lacks what is needed, if there are no weights or other
            ones than the network's, if there is no such device, or if no image can be read.
    """
    unknown = [name for name in formats if name not in PREDICTION_FORMATS]
    if unknown or not formats:
        raise ValueError(f"formats are {list(formats)}; expected some of {', '.join(PREDICTION_FORMATS)}.")
    out, images = Path(out), Path(images)
    if images.is_dir() and images.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"the folder {out} for the predictions lies in {images}, whose pictures are to be predicted.")
    given = {"checkpoint": checkpoint and os.fspath(checkpoint), "spacing": spacing, "batch_size": batch_size}
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if device is not None:
        overrides["device"] = _device(device)
    flow = _workflow(Path(bundle), configs, formats, regions, dataset_dir=str(images), output_dir=str(out), **overrides)
    weights = Path(flow.parser.get_parsed_content("checkpoint"))
    _check_weights(weights)
    notes = _use_sigma(flow, weights) if covariance == "sigma" else ()
    before = _snapshot(out)
    try:
        flow.run()
        flow.finalize()
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, RuntimeError) and "loading state_dict" in str(cause):
            reason = " ".join(str(cause).split()[:60])
            raise ValueError(f"{weights}: these weights are not those of the network of {bundle}: {reason}") from error
        raise cause from error
    written = sorted(path for path, state in _snapshot(out).items() if before.get(path) != state)
    loader = flow.parser.get_parsed_content("dataloader")
    return Prediction(tuple(written), tuple(getattr(loader, "unreadable", ())), notes)


def _workflow(
    bundle: Path,
    configs: Sequence[str | os.PathLike],
    formats: Sequence[str],
    regions: str | os.PathLike | None,
    **overrides: Any,
) -> ConfigWorkflow:
    """The initialized inference of a bundle."""
    config = bundle / "configs" / "inference.json"
    for path in (config, config.with_name("metadata.json")):
        if not path.is_file():
            raise ValueError(f"{bundle}: no bundle that can predict, for it has no configs/{path.name}.")
    with naming_file(config):
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)  # or it warns that it leaves logging alone, as it is asked to
        try:
            files = [str(path) for path in (config, *configs)]
            flow = ConfigWorkflow(files, workflow_type="infer", logging_file=False, bundle_root=str(bundle))
        finally:
            logging.disable(disabled)
        missing = [key for key in (*_NEEDED, *overrides) if key not in flow.parser]
        lacking = [repr(key) for key in missing]
        if "saver" not in missing and not _is(flow.parser["saver"], "PredictionSaver"):
            lacking.append("a PredictionSaver as 'saver'")
        if "handlers" not in missing and "@saver" not in flow.parser["handlers"]:
            lacking.append("'@saver' among the handlers")
        if lacking:
            raise ValueError(f"lacks {', '.join(lacking)}; expected what the bundles of monai_landmarks have there.")
    flow.parser.update(overrides)
    flow.parser["saver#formats"] = [name for name in formats if name != "csv"]
    flow.parser["saver#table"] = "predictions.csv"
    if regions is not None:
        flow.parser["saver#regions"] = os.fspath(regions)
    flow.initialize()
    return flow


def _use_sigma(flow: ConfigWorkflow, weights: Path) -> tuple[str, ...]:
    """Let the covariance come from the learned sigma, or say why it does not."""
    path = sigma_path(weights)
    decodes = _is(flow.parser.get("decoder"), "HeatmapToLandmarksd")
    if not path.is_file() or not decodes:
        reason = (
            f"there is no {path}" if decodes else "the bundle's configuration has no HeatmapToLandmarksd as 'decoder'"
        )
        return (f"no learned sigma is used, for {reason}: the uncertainty is that of the heatmaps.",)
    flow.parser.update({"decoder#covariance": "sigma", "decoder#sigma": os.fspath(path)})
    flow.parser.parse(reset=True)
    return ()


def _is(component: Any, name: str) -> bool:
    """Whether a part of a configuration makes an object of the class of this name."""
    return isinstance(component, dict) and str(component.get("_target_")).rpartition(".")[2] == name


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); expected such as cpu or cuda:0.") from error


def _check_weights(path: Path) -> None:
    """Raise ValueError if a file is not there, or holds anything but weights."""
    if not path.is_file():
        raise ValueError(f"{path}: there are no weights; train the bundle, or name a file of weights.")
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the unpickler, of the archive, of the file
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path}: no file of weights alone, and nothing else is loaded ({reason})") from error


def _snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """The files of a folder, each with what changes when it is written anew."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}


def _cause(error: BaseException) -> BaseException:
    """What went wrong, without what MONAI says around it."""
    while str(error).startswith(_WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error
