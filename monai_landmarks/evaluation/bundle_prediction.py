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

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor

from monai_landmarks.data import UnreadableImage, UnreadableImagesError, find_weights, image_folder_items
from monai_landmarks.data.datalists.bundle_metadata import require_readable
from monai_landmarks.data.datalists.bundle_weights import CLOSE_LOOK_PRETRAINED, TRAINED, has_both_networks
from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.data.files.tensor_files import load_tensors, non_finite_weights
from monai_landmarks.data.images.image_files import has_spacing
from monai_landmarks.data.images.image_notes import image_notes, join_notes
from monai_landmarks.data.images.pictures import is_picture
from monai_landmarks.schema import LandmarkSchema, load_landmark_schema
from monai_landmarks.uncertainty import calibration_path, doubt_path, sigma_path

from .bundle_facts import read_bundle_facts, resolve_bundle
from .film_turning import resolving_turn
from .image_measurements import ImageMeasurements, measure_images
from .prediction_formats import PREDICTION_FORMATS, PredictionFormat
from .prediction_report import write_prediction_report

__all__ = ["DoubtfulPrediction", "WrittenPredictions", "predict_landmarks"]

# entries of the configuration that this module sets or reads, or that MONAI requires
_NEEDED = ("dataset_dir", "output_dir", "checkpoint", "device", "dataloader", "saver", "handlers", "run")
# first words of the errors that MONAI raises from an error in a configuration
_WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")


@dataclass(frozen=True)
class DoubtfulPrediction:
    """An image whose prediction is in doubt.

    Args:
        image: path of the image.
        reasons: reasons in words, without a period at the end.
        turn: how the film has to be turned or mirrored so that the doubt is gone, for example ``"turned by 180
            degrees"``. Empty if nothing helps.
    """

    image: str
    reasons: str
    turn: str = ""

    def __str__(self) -> str:
        return f"{self.reasons}; {self.turn}, the film is not in doubt" if self.turn else self.reasons


@dataclass(frozen=True)
class WrittenPredictions:
    """The result of :func:`predict_landmarks`.

    Args:
        written: files that were written.
        unreadable: images that were left out, because they cannot be read or contain NaN or infinite voxels, with the
            reasons.
        notes: remarks, one sentence each.
        doubts: images whose prediction is in doubt.
        measurements: clinical measurements of the images. None: the bundle has no landmark schema, and none was given.
    """

    written: tuple[Path, ...]
    unreadable: tuple[UnreadableImage, ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[DoubtfulPrediction, ...] = ()
    measurements: ImageMeasurements | None = None


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
    schema: LandmarkSchema | None = None,
    coverage: float = 0.9,
    drawings: int = 12,
) -> WrittenPredictions:
    """Find landmarks with a bundle and write them to files.

    This runs ``configs/inference.json`` of the bundle, as ``python -m monai.bundle run`` does, with other images,
    output folder and formats. Points are in the coordinates of the image files, with a score and a covariance, see
    :class:`monai_landmarks.handlers.PredictionSaver`. Images that cannot be read, or that contain voxels that are NaN
    or infinite, are left out.

    Covariances are calibrated with the factors that lie beside the weights. Predictions are compared with the shapes
    and heatmaps of the training, which lie there too; what differs is in the columns ``doubt`` and ``landmark_doubt``
    of ``predictions_std.csv``, and doubtful images are drawn first. With a landmark schema, ``measurements.csv`` has
    the clinical measurements of each image with intervals, and ``.mrk.json`` files have their lines and angles.
    ``report.html`` shows it all.

    .. warning::
        The configuration of a MONAI bundle can run any Python code. Use only bundles from sources that you trust. Files
        of weights cannot run code, because they are loaded with ``weights_only``.

    Args:
        bundle: folder of the bundle, with ``configs/inference.json`` and ``configs/metadata.json``, or the name of a
            bundle of this package.
        images: folder of images, which is searched with its subfolders, an image file, or the folder of a DICOM series,
            see :func:`monai_landmarks.data.image_folder_items`.
        output_dir: folder for ``predictions.csv``, one file per image in each format, and the figures of the bundle.
            Images of the same name in different folders get files of different names.
        formats: formats of the files: ``"mrk.json"``, ``"fcsv"``, ``"npz"``. ``"csv"`` is the table, which is always
            written.
        configs: configuration files that are read after ``inference.json``, for example that of the trained variant.
            Default: ``close_look.json`` if the weights are those of a close look.
        checkpoint: file of the weights. Default: the file that the configuration names.
        device: device, for example ``"cpu"`` or ``"cuda:1"``. Default: that of the configuration.
        spacing: pixel size in mm of pictures and other files that state none, one number or one per axis. Default: that
            of the configuration, or 1 mm.
        batch_size: number of images in a batch. Default: that of the configuration.
        regions: file of :class:`monai_landmarks.uncertainty.ConformalRegions`, to add a region to each landmark.
        covariance: source of the covariances: ``"heatmap"``, or ``"sigma"`` for the sigma of each landmark that the
            training learned, which is the same in all images. If no file of sigma is beside the weights, the
            covariances come from the heatmaps, and a note says so.
        schema: landmark schema whose measurements are made. Default: that of the bundle, if it has one.
        coverage: probability of the intervals of measurements.
        drawings: number of images that ``report.html`` shows, doubtful ones first. 0: no report.

    Returns:
        The files written, the images left out, the doubts and the measurements.

    Raises:
        ValueError: if the folder is not a bundle, its configuration lacks a required entry, the weights are absent,
            contain NaN or do not belong to the network, the device cannot be used, or no image can be read.
    """
    unknown = [name for name in formats if name not in PREDICTION_FORMATS]
    if unknown or not formats:
        raise ValueError(f"formats are {list(formats)}; expected one or more of {', '.join(PREDICTION_FORMATS)}.")
    out, images, bundle = Path(output_dir), Path(images), resolve_bundle(bundle)
    if images.is_dir() and images.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"the output folder {out} is in the image folder {images}; give another folder.")
    given = {"checkpoint": checkpoint and os.fspath(checkpoint), "spacing": spacing, "batch_size": batch_size}
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if device is not None:
        overrides["device"] = _ensure_device(device)
    found = () if configs else _configs_of_weights(bundle, checkpoint)
    flow = _workflow(
        bundle, configs or found, formats, regions, dataset_dir=str(images), output_dir=str(out), **overrides
    )
    weights = Path(flow.parser.get_parsed_content("checkpoint"))
    _require_weights(weights, bundle)
    notes = [f"the weights are those of a close look, so {path.name} is read, too." for path in found]
    notes += [*_weights_notes(bundle, weights), *_reliability_notes(flow, weights, covariance)]
    if covariance == "sigma":
        notes += _use_sigma(flow, weights)
    before = _snapshot(out)
    try:
        flow.run()
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, RuntimeError) and "loading state_dict" in str(cause):
            reason = " ".join(str(cause).split()[:60])
            raise ValueError(f"{weights}: the weights do not belong to the network of {bundle}: {reason}") from error
        if not isinstance(cause, UnreadableImagesError):  # the result lists these images
            raise cause from cause.__cause__  # not "from error", which it is a cause of
    flow.finalize()
    predictions = getattr(flow.parser.get_parsed_content("saver"), "predictions", ())
    measurements, more = _measure(bundle, predictions, schema, coverage)
    notes += more
    if measurements is not None:
        measurements.write(out / "measurements.csv")
        for index, prediction in enumerate(predictions):
            if "mrk.json" in formats:
                measurements.add_to_markups(out / f"{prediction.name}.mrk.json", index, prediction.plane)
    doubts = _doubts(flow, predictions)
    loader = flow.parser.get_parsed_content("dataloader")
    unreadable = tuple(getattr(loader, "unreadable", ()))
    left_out = {image for image, _ in unreadable}
    read = [item["image"] for item in image_folder_items(images) if item["image"] not in left_out]
    notes += _geometry_notes(read, flow.parser.get("spacing") is not None)
    if drawings:
        reasons = {doubt.image: str(doubt) for doubt in doubts}
        source = (
            f"Landmarks of the images in {images}, found with {bundle.resolve().name} and the weights {weights.name}"
        )
        write_prediction_report(
            out / "report.html", predictions, reasons, measurements, notes, unreadable, source, drawings
        )
    written = sorted(path for path, state in _snapshot(out).items() if before.get(path) != state)
    return WrittenPredictions(tuple(written), unreadable, tuple(notes), doubts, measurements)


def _configs_of_weights(bundle: Path, checkpoint: str | os.PathLike | None) -> tuple[Path, ...]:
    """Return ``close_look.json`` if the weights are those of both networks of a close look."""
    config, models = bundle / "configs" / "close_look.json", bundle / "models"
    if not config.is_file():
        return ()
    if checkpoint is None and not (models / TRAINED).is_file():
        return (config,) if (models / CLOSE_LOOK_PRETRAINED).is_file() else ()
    return (config,) if has_both_networks(find_weights(models) if checkpoint is None else checkpoint) else ()


def _weights_notes(bundle: Path, weights: Path) -> list[str]:
    """Return the terms of weights that are shipped with the bundle, unless they are those of the package."""
    facts = read_bundle_facts(bundle)
    shipped = facts.weights == "shipped" and weights.resolve().parent == (bundle / "models").resolve()
    if not shipped or facts.terms in ("", "Apache-2.0"):
        return []
    return [f"the weights of {facts.name} have their own terms: {facts.terms}; see models/README.md of the bundle."]


def _reliability_notes(flow: ConfigWorkflow, weights: Path, covariance: str) -> list[str]:
    """Return what is not known about the reliability of the predictions."""
    notes = []
    advice = "a training writes it; one on all images copies it with --reliability_from."
    if covariance == "heatmap" and "calibrator" in flow.parser and not calibration_path(weights).is_file():
        notes.append(f"the uncertainty is not calibrated, because there is no {calibration_path(weights)}; {advice}")
    if "examiner" in flow.parser and not doubt_path(weights).is_file():
        notes.append(f"predictions are not examined for doubts, because there is no {doubt_path(weights)}; {advice}")
    return notes


def _measure(
    bundle: Path, predictions: Sequence[Any], schema: LandmarkSchema | None, coverage: float
) -> tuple[ImageMeasurements | None, list[str]]:
    """Return the measurements of the predictions, and notes."""
    if schema is None:
        name = read_bundle_facts(bundle).schema
        schema = load_landmark_schema(name) if name else None
        if schema is None or not schema.measurements:
            return None, []
    if not predictions:
        return None, []
    result = measure_images(schema, {prediction.image: prediction.landmarks for prediction in predictions}, coverage)
    return result, list(result.notes)


def _doubts(flow: ConfigWorkflow, predictions: Sequence[Any]) -> tuple[DoubtfulPrediction, ...]:
    """Return the doubtful predictions, each with the turn that resolves the doubt."""
    doubtful = [prediction for prediction in predictions if prediction.doubt]
    parts = ("dataset", "preprocessing", "network", "inferer", "decoder", "examiner", "device")
    if not doubtful or any(part not in flow.parser for part in parts):
        return tuple(DoubtfulPrediction(prediction.image, str(prediction.doubt)) for prediction in doubtful)
    dataset, preprocessing, network, inferer, decoder, examiner, device = (
        flow.parser.get_parsed_content(part) for part in parts
    )
    items = {item["image"]: item for item in dataset.data}

    def doubt_about(item: dict[Any, Any]) -> Any:
        with torch.no_grad():
            image = MetaTensor(torch.as_tensor(item["image"])[None], affine=item["image"].affine)
            found = inferer(image.to(device), network)
        one = {key: value[0].cpu() for key, value in found.items()} if isinstance(found, Mapping) else found[0].cpu()
        return examiner(decoder({**item, "pred": one}))["pred_doubt"]

    return tuple(
        DoubtfulPrediction(
            prediction.image,
            str(prediction.doubt),
            resolving_turn(items[prediction.image], preprocessing, doubt_about) if prediction.image in items else "",
        )
        for prediction in doubtful
    )


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
    require_readable([config, config.with_name("metadata.json"), *configs])
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
    # what was learned about the peaks of heatmaps does not hold for sigma
    for key, value in {
        "examiner#covariance_key": None,
        "calibrator#enabled": False,
        "probability#enabled": False,
    }.items():
        if key.partition("#")[0] in flow.parser:
            flow.parser.update({key: value})
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


def _require_weights(path: Path, bundle: Path) -> None:
    """Raise a ``ValueError`` if a file does not exist, or has other contents than finite weights."""
    advice = "Train the bundle, copy the file again, or give another file."
    if not path.exists() and read_bundle_facts(bundle).elsewhere:
        advice = (
            "The weights of this bundle have their own terms. A clone of the repository contains them; this installation"
            " does not. Use a clone, train the bundle, or give another file."
        )
    weights = load_tensors(path, advice=advice)
    reason = non_finite_weights(weights) if isinstance(weights, Mapping) else None
    if reason is not None:
        raise ValueError(f"{path}: these weights are useless, because {reason}. Give another file.")


def _snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return the files of a folder, each with its modification time and inode, which change when it is written."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}


def _cause(error: BaseException) -> BaseException:
    """Return the cause of an error, without the errors that MONAI wraps around it."""
    while str(error).startswith(_WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error
