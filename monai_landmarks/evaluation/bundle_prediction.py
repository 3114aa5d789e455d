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

import hashlib
import json
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from monai.bundle import ConfigWorkflow

from monai_landmarks import __version__
from monai_landmarks.data import UnreadableImage, find_weights, image_stem
from monai_landmarks.data.datalists.bundle_metadata import require_readable
from monai_landmarks.data.datalists.bundle_weights import CLOSE_LOOK_PRETRAINED, TRAINED, has_both_networks
from monai_landmarks.data.files.csv_tables import remove_table, write_rows
from monai_landmarks.data.files.kept_files import KeptFiles, remove_file
from monai_landmarks.data.files.name_lists import some_names
from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.data.files.tensor_files import load_tensors, non_finite_weights
from monai_landmarks.data.images.image_files import has_spacing
from monai_landmarks.data.images.image_notes import image_notes, join_notes
from monai_landmarks.data.images.readable_loader import list_unreadable
from monai_landmarks.handlers import OverlaySaver, PredictionSaver
from monai_landmarks.handlers.prediction_saver import distinct_names
from monai_landmarks.schema import LandmarkSchema, load_landmark_schema
from monai_landmarks.uncertainty import (
    CovarianceCalibration,
    DoubtModel,
    calibration_path,
    doubt_path,
    find_learned_sigma,
    sigma_path,
)

from .bundle_facts import read_bundle_facts, resolve_bundle
from .cohort_prediction import CohortPrediction, own_device, own_part, unwrapped
from .image_measurements import matched_names, write_measurements
from .prediction_formats import PREDICTION_FORMATS, PredictionFormat
from .prediction_records import ImageFile, PredictionRecords, RecordedPredictions, file_stamp
from .prediction_report import doubtful_first, prediction_view, write_prediction_report

__all__ = ["DoubtfulPrediction", "WrittenPredictions", "predict_landmarks"]

# entries of the configuration that this module sets or reads, or that MONAI requires
_NEEDED = ("dataset_dir", "output_dir", "checkpoint", "device", "dataloader", "saver", "handlers", "run")
_OVERLAYS = "predict_overlays"  # entry for the bundle's OverlaySaver, which draws at the end
# entries that do not change the predictions, or are recorded as files
_NO_SETTINGS = (
    "bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "pretrained", "checkpoint", "device", "batch_size",
    "num_workers", "saver", "handlers", "dataset", "dataloader", "evaluator", "initialize", "inference", "run", _OVERLAYS,
)  # fmt: skip


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
        unreadable: images that were left out, because they cannot be read, contain NaN or infinite voxels, or are those
            at which the network failed, with the reasons.
        notes: remarks, one sentence each.
        doubts: images whose prediction is in doubt.
        unfinished: number of images that other parts have not predicted yet. While there are any, there are no tables
            and no report.
    """

    written: tuple[Path, ...]
    unreadable: tuple[UnreadableImage, ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[DoubtfulPrediction, ...] = ()
    unfinished: int = 0


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
    workers: int | None = None,
    part: tuple[int, int] | None = None,
    force: bool = False,
) -> WrittenPredictions:
    """Find landmarks with a bundle and write them to files.

    This runs ``configs/inference.json`` of the bundle, as ``python -m monai.bundle run`` does, with other images,
    output folder and formats. Points are in the coordinates of the image files, with a score and a covariance, see
    :class:`monai_landmarks.handlers.PredictionSaver`. Images that cannot be read, or that contain voxels that are NaN
    or infinite, are left out.

    Covariances are calibrated with the factors that lie beside the weights. Predictions are compared with the shapes
    and heatmaps of the training, which lie there too; what differs is in the columns ``doubt`` and ``landmark_doubt``
    of ``predictions_std.csv``, and doubtful images are drawn first. With a landmark schema, ``measurements.csv`` has
    the clinical measurements of each image with intervals and the doubt, and ``.mrk.json`` files have their lines and
    angles. ``report.html`` shows it all.

    The prediction of many images can be stopped, continued and divided: ``progress/`` in the output folder has a line
    for each image that is done. A new call predicts what is not done, or was done with other weights or options. An
    image at which the network fails is named, and the others are predicted. Several processes divide the images by
    ``part``, or are started by ``torchrun``. The call after which all images are done writes tables, overlays and
    report. All this takes no more memory for many images than for few.

    Tables and report have all images that were predicted into the folder with the same weights and options. Others need
    another folder. A file in it that this function did not write, or that was changed since, is not lost: before it is
    replaced, a copy is kept with ``.bak`` after its name, and a note names it.

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
        device: device, for example ``"cpu"`` or ``"cuda:1"``. Default: that of the configuration; the processes of
            torchrun share several GPUs.
        spacing: pixel size in mm of pictures and other files that state none, one number or one per axis. Default: that
            of the configuration. If there is none, 1 mm is taken, a note says for how many images, and the unit of
            their lengths in ``measurements.csv``, report and ``.mrk.json`` says so, too.
        batch_size: number of images in a batch. Default: that of the configuration.
        regions: file of :class:`monai_landmarks.uncertainty.ConformalRegions`, to add a region to each landmark.
        covariance: source of the covariances: ``"heatmap"``, or ``"sigma"`` for the sigma of each landmark that the
            training learned, which is the same in all images. If it learned none, the covariances come from the
            heatmaps, and a note says so.
        schema: landmark schema whose measurements are made. Default: that of the bundle, if it has one.
        coverage: probability of the intervals of measurements.
        drawings: number of images that ``report.html`` shows, doubtful ones first. It also limits the overlays of the
            bundle. 0: no report and no overlays.
        workers: number of processes that load images while the network runs. 0: none. Default: that of the
            configuration; if it is 0 and there are many images, one per core, up to 4.
        part: number of the part of the images to predict, from 1, and number of parts. Default: all images.
        force: whether images that are done are predicted again.

    Returns:
        The files written, the images left out and the doubts.

    Raises:
        ValueError: if the folder is not a bundle, its configuration lacks a required entry, the weights are absent,
            contain NaN or do not belong to the network, the device cannot be used, no image can be read, or the output
            folder has predictions of other images that have the same names or were made with other options.
    """
    unknown = [name for name in formats if name not in PREDICTION_FORMATS]
    if unknown or not formats:
        raise ValueError(f"formats are {list(formats)}; expected one or more of {', '.join(PREDICTION_FORMATS)}.")
    out, images, bundle = Path(output_dir), Path(images), resolve_bundle(bundle)
    if images.is_dir() and images.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"the output folder {out} is in the image folder {images}; give another folder.")
    given = {"checkpoint": checkpoint and os.fspath(checkpoint), "spacing": spacing, "batch_size": batch_size}
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    device = device or own_device()
    if device is not None:
        overrides["device"] = _ensure_device(device)
    found = () if configs else _configs_of_weights(bundle, checkpoint)
    part = own_part(part)
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
    with unwrapped():
        saver = flow.parser.get_parsed_content("saver")
        items = list(flow.parser.get_parsed_content("dataloader").dataset.data)
    if schema is None:
        name = read_bundle_facts(bundle).schema
        schema = load_landmark_schema(name) if name else None
        schema = schema if schema is not None and schema.measurements else None
    notes += matched_names(schema, saver.names)[1] if schema is not None else ()
    files = _image_files(items, images)
    pixel_size = flow.parser.get_parsed_content("spacing", default=None)  # may be an expression in a user's bundle
    settings = _settings(flow, weights, regions, schema, coverage)
    records = PredictionRecords(out / "progress", settings, saver.names, part)
    own = list(zip(items, files))[part[0] - 1 :: part[1]]
    earlier, of_call = _earlier_images(records, files, out, force)  # notes on this call, which a report does not have
    if force:
        records.begin_again()
    elif records.changed:
        of_call.append(
            f"{', '.join(records.changed)} changed since the last prediction into {out}, so all images are predicted again."
        )
    todo = [pair for pair in own if force or not records.is_done(pair[1])]
    todo.sort(key=lambda pair: records.state(pair[1]) is not None)  # images that have failed before come last
    if len(todo) < len(own):
        of_call.append(f"{len(own) - len(todo)} of {len(own)} images were done before.")
    kept = KeptFiles(out / f".{records.path.stem}.written")  # beside that of the bundle's own inference
    try:
        with kept:
            cohort = CohortPrediction(flow, records, schema, coverage, pixel_size is not None)
            cohort.write_lost([file for _, file in own if not force and records.is_done(file)])
            cohort.predict(todo, workers)
            cohort.remove_stale(files)
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        reason = " ".join(str(error).split()[:60])
        raise ValueError(f"{weights}: the weights do not belong to the network of {bundle}: {reason}") from error
    finally:
        records.close()
    flow.finalize()
    records.read()
    of_call += [f"{path} was made with other weights or options, and is not used." for path in records.ignored]
    predictions, unreadable = records.results([*files, *earlier])
    unfinished = len(files) + len(earlier) - len(predictions) - len(unreadable)
    if not predictions and not unfinished:
        raise ValueError(list_unreadable(f"none of the {len(files)} images can be read:", unreadable))
    doubts = tuple(DoubtfulPrediction(*doubt) for doubt in predictions.doubts())
    if unfinished:
        of_call.append(
            f"{unfinished} of {len(files)} images are not predicted yet, so there are no tables and no report; run the other"
            " parts, or the same command without a part."
        )
    else:
        notes += _geometry_notes([file.path for file in predictions.images], pixel_size)
        reasons = {doubt.image: str(doubt) for doubt in doubts}
        with kept:
            _write_tables(out, saver, predictions, reasons if schema is not None else None, unreadable)
            if drawings:
                if _OVERLAYS in flow.parser:
                    _draw_overlays(flow.parser.get_parsed_content(_OVERLAYS), predictions, reasons, drawings)
                source = f"Landmarks of the images in {images}, found with {bundle.resolve().name} and the weights"
                source = f"{source} {weights.name}{'; with those of earlier calls' if earlier else ''}"
                measured = predictions if schema is not None else None
                write_prediction_report(
                    out / "report.html", predictions, reasons, measured, notes, unreadable, source, drawings
                )
    of_call += kept.notes()
    changed = {Path(path) for path, state in _snapshot(out).items() if before.get(path) != state}
    written = sorted(changed.difference(kept.copies))
    return WrittenPredictions(tuple(written), unreadable, (*notes, *of_call), doubts, unfinished)


def _image_files(items: Sequence[Mapping[str, Any]], images: Path) -> list[ImageFile]:
    """Return the images with the names of their landmark files, which do not depend on what was predicted before."""
    paths = [str(item["image"]) for item in items]
    folder = os.path.abspath(images if images.is_dir() else images.parent)
    return [
        ImageFile(os.path.relpath(path, folder), path, name, file_stamp(path))
        for path, name in zip(paths, distinct_names(paths))
    ]


def _earlier_images(
    records: PredictionRecords, files: Sequence[ImageFile], out: Path, force: bool
) -> tuple[list[ImageFile], list[str]]:
    """Return the images of earlier calls that belong into the tables, and notes on them and on those that were removed.

    Raises:
        ValueError: if there are predictions of images that still exist, but that cannot stand in the tables beside those
            of this call.
    """
    kept, lost, gone = records.earlier(files)
    if force:  # their records are removed with those of the images that are predicted again
        lost += [image.path for image in kept]
    if lost:
        raise ValueError(
            f"{out}: this folder has the predictions of other images ({some_names(lost)}), which its tables would lose,"
            " because they have the names of these images or were made with other options; give another output folder, or"
            " put all images into one folder and predict that."
        )
    notes = []
    if kept:
        names = some_names([image.path for image in kept])
        notes.append(f"tables and report also have {len(kept)} images that were predicted before: {names}.")
    if gone:
        notes.append(
            f"{len(gone)} images that were predicted before do not exist anymore, and tables and report leave them out:"
            f" {some_names(gone)}. Their landmark files stay."
        )
    return kept, notes


def _settings(
    flow: ConfigWorkflow,
    weights: Path,
    regions: str | os.PathLike | None,
    schema: LandmarkSchema | None,
    coverage: float,
) -> dict[str, str]:
    """Return what determines the predictions, in short texts, by what they describe."""
    beside = [weights, calibration_path(weights), doubt_path(weights), sigma_path(weights)]
    content = flow.parser.get()
    result = {
        "version": __version__,
        "weights": " ".join(_digest(path.read_bytes()) if path.is_file() else "-" for path in beside),
        "names": _digest(repr(flow.parser.get_parsed_content("saver").names).encode()),
        "regions": "-" if regions is None else _digest(Path(regions).read_bytes()),
        "schema": "-" if schema is None else _digest(repr(schema).encode()),
        "coverage": str(coverage),
    }
    for key in sorted(set(content) - set(_NO_SETTINGS) - set(result)):
        result[key] = _digest(json.dumps(content[key], sort_keys=True, default=str).encode())
    return result


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _write_tables(
    out: Path,
    saver: PredictionSaver,
    predictions: RecordedPredictions,
    doubts: Mapping[str, str] | None,
    unreadable: Sequence[UnreadableImage],
) -> None:
    """Write the tables; ``doubts`` is None without a schema, that is, without measurements."""
    saver.write_tables(predictions)
    measurements = out / "measurements.csv"
    if doubts is not None:
        write_measurements(measurements, predictions.measurements(), doubts)
    else:
        remove_table(measurements, "coverage")  # of an earlier call with a schema
    failed = out / "failed.csv"
    if unreadable:
        write_rows(failed, [one._asdict() for one in unreadable])
    else:
        remove_file(failed)


def _draw_overlays(saver: OverlaySaver, predictions: RecordedPredictions, doubts: Mapping[str, str], most: int) -> None:
    """Draw what the bundle draws of an inference, but of all images, also of those that were predicted before."""
    views = []
    for index in doubtful_first([file.path for file in predictions.images], doubts)[: min(most, saver.num_images)]:
        prediction = predictions[index]
        title = image_stem(prediction.image) + (" (doubtful)" if prediction.image in doubts else "")
        with suppress(Exception):  # image readers raise exceptions of any type; the report names the image
            views.append((prediction.image, prediction_view(prediction, title, saver.covariance_key is not None)[0]))
    for old in saver.output_dir.glob("overlay_[0-9][0-9]_*.png"):
        remove_file(old)
    if views:
        saver.draw(views)


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
    factors, usual = calibration_path(weights), doubt_path(weights)
    if covariance == "heatmap" and "calibrator" in flow.parser:
        if not factors.is_file():
            notes.append(f"the uncertainty is not calibrated, because there is no {factors}; {advice}")
        elif "probability" in flow.parser and CovarianceCalibration.load(factors).probability is None:
            notes.append("there are no probabilities, because the training had too few validation images.")
    if "examiner" in flow.parser:
        if not usual.is_file():
            notes.append(f"predictions are not examined for doubts, because there is no {usual}; {advice}")
        else:
            model = DoubtModel.load(usual)
            parts = (("shapes", model.shape, "images"), ("heatmaps", model.heatmaps, "validation images"))
            notes += [
                f"doubts do not consider {what}, because the training had too few {images}."
                for what, known, images in parts
                if known is None
            ]
    return notes


def _geometry_notes(images: Sequence[str], spacing: float | Sequence[float] | None) -> list[str]:
    """Return what to know about the pixel size and the place of images when reading their points."""
    size = 1.0 if spacing is None else spacing
    notes = [(Path(image).name, note) for image in images for note in image_notes(image, spacing=size, written=True)]
    unknown = [] if spacing is not None else [Path(image).name for image in images if not has_spacing(image)]
    lines = join_notes(notes)
    if unknown:
        lines.append(
            f"pixel size not known: {len(unknown)} of {len(images)} images, for example {unknown[0]}, state none, and 1 mm was"
            " taken; all mm are wrong if it is another; give the spacing."
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
        if missing == ["spacing"] and "voxel_spacing" in flow.parser:
            raise ValueError("takes no spacing, because it is for volumes, whose files state their voxel size.")
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
    # the files of these handlers would have the images of this call only; measurements.csv has the Cobb angles, too
    if isinstance(handlers := flow.parser["handlers"], list):
        entries = [flow.parser.get(handler[1:]) if isinstance(handler, str) else handler for handler in handlers]
        flow.parser["handlers"] = [
            handler
            for handler, entry in zip(handlers, entries)
            if not _is(entry, "OverlaySaver") and not _is(entry, "CobbReport")
        ]
        for entry in entries:
            if _is(entry, "OverlaySaver"):
                flow.parser[_OVERLAYS] = entry
    if regions is not None:
        flow.parser["saver#regions"] = os.fspath(regions)
    flow.initialize()
    return flow


def _use_sigma(flow: ConfigWorkflow, weights: Path) -> tuple[str, ...]:
    """Use the learned sigma as covariance. Return a note if that is not possible."""
    path, reason = sigma_path(weights), ""
    if not _is(flow.parser.get("decoder"), "HeatmapToLandmarksd"):
        reason = "the bundle's configuration has no HeatmapToLandmarksd as 'decoder'"
    elif not path.is_file():
        reason = f"there is no {path}"
    elif find_learned_sigma(path) is None:
        reason = (
            f"the training has not learned the sigma of each landmark ({path} has those that were chosen before it)"
        )
    if reason:
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


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the files of a folder, each with its modification time and inode, which change when it is written."""
    found = {}
    for path in folder.rglob("[!.]*"):  # names with a dot are files that are being written
        with suppress(FileNotFoundError):  # another process of torchrun may replace it just now
            state = path.stat()
            if stat.S_ISREG(state.st_mode) and path.parent.name != "progress":
                found[str(path)] = (state.st_mtime_ns, state.st_ino)
    return found
