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


"""Prediction of landmarks with a bundle."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from monai.bundle import ConfigWorkflow

from monai_landmarks.data import UnreadableImage, image_folder_items
from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.data.files.tensor_files import load_tensors, non_finite_weights
from monai_landmarks.data.images.image_files import has_spacing
from monai_landmarks.data.images.image_notes import image_notes, join_notes
from monai_landmarks.data.images.pictures import is_picture
from monai_landmarks.uncertainty import sigma_path

from .prediction_formats import PREDICTION_FORMATS, PredictionFormat

__all__ = ["WrittenPredictions", "predict_landmarks"]

# entries of the configuration that this module sets or reads, or that MONAI requires
_NEEDED = ("dataset_dir", "output_dir", "checkpoint", "device", "dataloader", "saver", "handlers", "run")
# first words of the errors that MONAI raises from an error in a configuration
_WRAPPERS = ("Failed to evaluate", "Failed to instantiate")


@dataclass(frozen=True)
class WrittenPredictions:
    """The result of :func:`predict_landmarks`.

    Args:
        written: files that were written.
        unreadable: images that were left out, because they cannot be read or contain NaN or infinite voxels, with the
            reasons.
        notes: remarks, one sentence each.
    """

    written: tuple[Path, ...]
    unreadable: tuple[UnreadableImage, ...]
    notes: tuple[str, ...] = ()


def predict_landmarks(
    bundle: str | os.PathLike,
    images: str | os.PathLike,
    output_dir: str | os.PathLike,
    formats: Sequence[PredictionFormat] = ("mrk.json",),
    *,
    configs: Sequence[str | os.PathLike] = (),
    checkpoint: str | os.PathLike | None = None,
    device: str | None = None,
    spacing: float | Sequence[float] | None = None,
    batch_size: int | None = None,
    regions: str | os.PathLike | None = None,
    covariance: Literal["heatmap", "sigma"] = "heatmap",
) -> WrittenPredictions:
    """Find landmarks with a bundle and write them to files.

    This runs ``configs/inference.json`` of the bundle, as ``python -m monai.bundle run`` does, with other images,
    output folder and formats. Points are in the coordinates of the image files, with a score and a covariance, see
    :class:`monai_landmarks.handlers.PredictionSaver`. Images that cannot be read, or that contain voxels that are NaN or
    infinite, are left out.

    .. warning::
        The configuration of a MONAI bundle can run any Python code. Use only bundles from sources that you trust. Files
        of weights cannot run code, because they are loaded with ``weights_only``.

    Args:
        bundle: folder of the bundle, with ``configs/inference.json`` and ``configs/metadata.json``.
        images: folder of images, which is searched with its subfolders, an image file, or the folder of a DICOM series,
            see :func:`monai_landmarks.data.image_folder_items`.
        output_dir: folder for ``predictions.csv``, one file per image in each format, and the figures of the bundle.
            Images of the same name in different folders get files of different names.
        formats: formats of the files: ``"mrk.json"``, ``"fcsv"``, ``"npz"``. ``"csv"`` is the table, which is always
            written.
        configs: configuration files that are read after ``inference.json``, for example that of the trained variant.
        checkpoint: file of the weights. Default: the file that the configuration names.
        device: device, for example ``"cpu"`` or ``"cuda:1"``. Default: that of the configuration.
        spacing: pixel size in mm of pictures and other files that state none, one number or one per axis. Default: that
            of the configuration, or 1 mm.
        batch_size: number of images in a batch. Default: that of the configuration.
        regions: file of :class:`monai_landmarks.uncertainty.ConformalRegions`, to add a region to each landmark.
        covariance: source of the covariances: ``"heatmap"``, or ``"sigma"`` for the sigma of each landmark that the
            training learned, which is the same in all images. If no file of sigma is beside the weights, the
            covariances come from the heatmaps, and a note says so.

    Returns:
        The files written, and the images left out.

    Raises:
        ValueError: if the folder is not a bundle, its configuration lacks a required entry, the weights are absent,
            contain NaN or do not belong to the network, the device cannot be used, or no image can be read.
    """
    unknown = [name for name in formats if name not in PREDICTION_FORMATS]
    if unknown or not formats:
        raise ValueError(f"formats are {list(formats)}; expected one or more of {', '.join(PREDICTION_FORMATS)}.")
    out, images = Path(output_dir), Path(images)
    if images.is_dir() and images.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"the output folder {out} is in the image folder {images}; give another folder.")
    given = {"checkpoint": checkpoint and os.fspath(checkpoint), "spacing": spacing, "batch_size": batch_size}
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if device is not None:
        overrides["device"] = _ensure_device(device)
    flow = _workflow(Path(bundle), configs, formats, regions, dataset_dir=str(images), output_dir=str(out), **overrides)
    weights = Path(flow.parser.get_parsed_content("checkpoint"))
    _require_weights(weights)
    notes = _use_sigma(flow, weights) if covariance == "sigma" else ()
    before = _snapshot(out)
    try:
        flow.run()
        flow.finalize()
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, RuntimeError) and "loading state_dict" in str(cause):
            reason = " ".join(str(cause).split()[:60])
            raise ValueError(f"{weights}: the weights do not belong to the network of {bundle}: {reason}") from error
        raise cause from error
    written = sorted(path for path, state in _snapshot(out).items() if before.get(path) != state)
    loader = flow.parser.get_parsed_content("dataloader")
    unreadable = tuple(getattr(loader, "unreadable", ()))
    left_out = {image for image, _ in unreadable}
    read = [item["image"] for item in image_folder_items(images) if item["image"] not in left_out]
    known = flow.parser.get("spacing") is not None
    return WrittenPredictions(tuple(written), unreadable, (*notes, *_geometry_notes(read, known)))


def _geometry_notes(images: Sequence[str], spacing_known: bool) -> list[str]:
    """Return what to know about the pixel size and the place of images when reading their points."""
    notes = [(Path(image).name, note) for image in images for note in image_notes(image)]
    unknown = [Path(image).name for image in images if not is_picture(image) and not has_spacing(image)]
    lines = join_notes(notes)
    if unknown and not spacing_known:
        lines.append(
            f"pixel size not known: {len(unknown)} DICOM images, for example {unknown[0]}, state none, and 1 mm was taken;"
            " give the spacing."
        )
    return lines


def _workflow(
    bundle: Path,
    configs: Sequence[str | os.PathLike],
    formats: Sequence[str],
    regions: str | os.PathLike | None,
    **overrides: Any,
) -> ConfigWorkflow:
    """Return the initialized inference workflow of a bundle."""
    config = bundle / "configs" / "inference.json"
    for path in (config, config.with_name("metadata.json")):
        if not path.is_file():
            raise ValueError(f"{bundle}: not a bundle for prediction, because it has no configs/{path.name}.")
        _require_json(path)
    with naming_file(config):
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)  # MONAI warns that logging_file is False
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
            raise ValueError(f"lacks {', '.join(lacking)}; see the shipped bundles of monai_landmarks.")
    flow.parser.update(overrides)
    flow.parser["saver#formats"] = [name for name in formats if name != "csv"]
    flow.parser["saver#table"] = "predictions.csv"
    if regions is not None:
        flow.parser["saver#regions"] = os.fspath(regions)
    flow.initialize()
    return flow


def _use_sigma(flow: ConfigWorkflow, weights: Path) -> tuple[str, ...]:
    """Use the learned sigma as covariance. Return a note if that is not possible."""
    path = sigma_path(weights)
    decodes = _is(flow.parser.get("decoder"), "HeatmapToLandmarksd")
    if not path.is_file() or not decodes:
        reason = (
            f"there is no {path}" if decodes else "the bundle's configuration has no HeatmapToLandmarksd as 'decoder'"
        )
        return (f"the uncertainty is that of the heatmaps, because {reason}.",)
    flow.parser.update({"decoder#covariance": "sigma", "decoder#sigma": os.fspath(path)})
    flow.parser.parse(reset=True)
    return ()


def _is(component: Any, name: str) -> bool:
    """Return whether a part of a configuration defines an object of the class with this name."""
    return isinstance(component, dict) and str(component.get("_target_")).rpartition(".")[2] == name


def _ensure_device(name: str) -> torch.device:
    """Return a device that can be used, or raise a ``ValueError``."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); expected for example cpu or cuda:0.") from error


def _require_weights(path: Path) -> None:
    """Raise a ``ValueError`` if a file does not exist, or has other contents than finite weights."""
    weights = load_tensors(path, advice="Train the bundle, copy the file again, or give another file.")
    reason = non_finite_weights(weights) if isinstance(weights, Mapping) else None
    if reason is not None:
        raise ValueError(f"{path}: these weights are useless, because {reason}. Give another file.")


def _require_json(path: Path) -> None:
    """Raise a ``ValueError`` that names the file if it is damaged; MONAI does not name it."""
    with naming_file(path):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"the file is damaged ({error}). Copy it again from the source of the bundle.") from error


def _snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return the files of a folder, each with its modification time and inode, which change when it is written."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}


def _cause(error: BaseException) -> BaseException:
    """Return the cause of an error, without the errors that MONAI wraps around it."""
    while str(error).startswith(_WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error
