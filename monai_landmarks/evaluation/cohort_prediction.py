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

"""Prediction of many images, each recorded when it is done; an image that fails does not end it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from monai.networks.utils import eval_mode

from monai_landmarks.data import ReadableDataLoader, UnreadableImagesError
from monai_landmarks.data.files.kept_files import remove_file
from monai_landmarks.data.files.worker_count import usual_workers
from monai_landmarks.data.images.image_files import has_spacing, read_header
from monai_landmarks.data.images.readable_loader import error_reason
from monai_landmarks.handlers import PredictionSaver, SavedPrediction
from monai_landmarks.schema import LandmarkSchema

from .film_turning import resolving_turn
from .image_measurements import measure_images
from .prediction_formats import PREDICTION_FORMATS
from .prediction_records import ImageFile, PredictionRecords, RecordedPredictions

__all__ = ["CohortPrediction", "loading_workers", "own_device", "own_part", "unwrapped"]

# first words of the errors that MONAI raises from an error in a configuration
_WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")
_MOST_FAILURES = 8  # at so many images one after the other, the fault is not that of the images
_MOST_WORKERS = 4
_SHARED_MEMORY = 1 << 30  # bytes; through it, workers pass images to the main process
_SHAPE = "_meta_::network_data_format::inputs::image::spatial_shape"
_PARTS = ("preprocessing", "network", "inferer", "decoder", "examiner", "device")


class CohortPrediction:
    """Predicts images with a bundle. Each is recorded after its files are written.

    Args:
        flow: the initialized inference workflow of the bundle.
        records: the records.
        schema: landmark schema whose measurements are made. None: no measurements.
        coverage: probability of the intervals of measurements.
        spacing_known: whether a pixel size was given for files that state none.
    """

    def __init__(
        self,
        flow: ConfigWorkflow,
        records: PredictionRecords,
        schema: LandmarkSchema | None,
        coverage: float,
        spacing_known: bool = True,
    ) -> None:
        self._flow = flow
        self._records = records
        self._schema = schema
        self._coverage = coverage
        self._spacing_known = spacing_known
        self._waiting: dict[str, tuple[dict[str, Any], ImageFile]] = {}
        self._alone: set[str] = set()
        self._in_a_row = 0  # failures of the network since the last prediction
        self._names: dict[str, str] = {}
        self._workers = 0

    @property
    def _saver(self) -> PredictionSaver:
        saver: PredictionSaver = self._flow.parser.get_parsed_content("saver")
        return saver

    @property
    def _loader(self) -> ReadableDataLoader:
        loader: ReadableDataLoader = self._flow.parser.get_parsed_content("dataloader")
        return loader

    def predict(self, todo: Sequence[tuple[dict[str, Any], ImageFile]], workers: int | None = None) -> None:
        """Predict images. Those that cannot be read, and those at which the network fails, are recorded as failed.

        Args:
            todo: item and file of each image.
            workers: number of processes that load images. Default: that of the configuration, or :func:`loading_workers`.

        Raises:
            Exception: the error of the network, if it fails before the first image, or at several one after the other.
        """
        self._waiting = {file.path: (item, file) for item, file in todo}
        self._alone, self._in_a_row = set(), 0
        self._names = {file.path: file.name for _, file in todo}
        usual = self._loader.num_workers or loading_workers(len(todo))
        self._workers = usual if workers is None else workers
        while self._waiting:
            self._prepare()
            try:
                with unwrapped():
                    self._flow.run()
            except UnreadableImagesError:
                pass
            except OSError:  # for example a full disk, which no image has caused
                raise
            except Exception as error:
                self._record_unreadable()
                self._set_apart(error)
                self._flow.parser.parse(reset=True)  # an engine that has failed cannot run again
                continue
            self._record_unreadable()
            break

    def write_lost(self, files: Sequence[ImageFile]) -> None:
        """Write landmark files that were removed, have another name now, or are of another format, from the records.

        Args:
            files: images that are done.
        """
        lost = [file for file in files if not all(path.exists() for path in self._saver.files(file.name))]
        for prediction in RecordedPredictions(self._records, lost):
            self._write(prediction)

    def remove_stale(self, files: Sequence[ImageFile]) -> None:
        """Remove the landmark files of images that have another name now.

        Args:
            files: all images of the prediction.
        """
        for name in self._records.stale_names(files):
            self._remove_files(name)

    def _remove_files(self, name: str, written: Sequence[Path] = ()) -> None:
        """Remove the landmark files of a name in all formats, but not those that were written now."""
        for suffix in PREDICTION_FORMATS:
            if suffix == "csv":  # one table of all images
                continue
            if (path := self._saver.output_dir / f"{name}.{suffix}") not in written:
                remove_file(path)

    def _fail(self, file: ImageFile, reason: str) -> None:
        """Record that an image cannot be predicted, and remove the files of an earlier prediction of it."""
        if self._records.was_predicted(file):
            self._remove_files(file.name)
        self._records.add_failure(file, reason)

    def _prepare(self) -> None:
        """Give the images that wait to the workflow."""
        saver, loader = self._saver, self._loader
        saver.sink, saver.file_names = self._record, self._names
        loader.dataset.data = [item for item, _ in self._waiting.values()]  # type: ignore[attr-defined]
        loader.num_workers, loader.alone = self._workers, self._alone

    def _set_apart(self, error: Exception) -> None:
        """Take out the image at which the network failed; if it was one of a batch, put each in a batch of its own."""
        batch = [image for image in self._loader.current if image in self._waiting]
        if not batch:
            raise error
        if len(batch) > 1:
            self._alone = set(batch)
            first = {image: self._waiting[image] for image in batch}
            self._waiting = first | self._waiting
            return
        _, file = self._waiting.pop(batch[0])
        self._fail(file, self._reason(file.path, error_reason(error)))
        if self._records.state(file) is None:  # it has not failed before this call
            self._in_a_row += 1
        if self._in_a_row >= _MOST_FAILURES:
            raise error

    def _record_unreadable(self) -> None:
        for image, reason in self._loader.unreadable:
            if image in self._waiting:
                self._fail(self._waiting.pop(image)[1], self._reason(image, reason))

    def _reason(self, image: str, reason: str) -> str:
        """Return why an image failed; in words, where transforms or network cannot say that it has another dimension."""
        expected = self._flow.parser.get(_SHAPE)
        try:
            shape, _ = read_header(image)
        except ValueError:
            return reason
        dims = 2 if all(size == 1 for size in shape[2:]) else 3
        if not isinstance(expected, list) or len(expected) == dims:
            return reason
        kinds = {2: "2-D images", 3: "volumes"}
        return (
            f"the image is {dims}-D with the shape {shape}, but this bundle is for {kinds[len(expected)]}; leave it out, or"
            f" take a bundle for {kinds[dims]}."
        )

    def _record(self, prediction: SavedPrediction) -> None:
        item, file = self._waiting[prediction.image]
        rows = self._write(prediction, written=True)
        if self._records.was_predicted(file):  # with other weights or options, or another content of the image
            self._remove_files(file.name, self._saver.files(file.name))
        self._records.add(file, prediction, self._turn(item) if prediction.doubt else "", rows)
        del self._waiting[prediction.image]
        self._in_a_row = 0

    def _write(self, prediction: SavedPrediction, written: bool = False) -> list[dict[str, Any]]:
        """Write the files of an image, unless they are written, with its measurements, and return the measurements."""
        if not written:
            self._saver.write(prediction)
        if self._schema is None:
            return []
        measured = measure_images(self._schema, {prediction.image: prediction.landmarks}, self._coverage)
        if not self._spacing_known and not has_spacing(prediction.image):
            measured = measured.with_assumed_size()
        for path in self._saver.files(prediction.name):
            if path.name.endswith(".mrk.json"):
                measured.add_to_markups(path, 0, prediction.plane, str(prediction.doubt or ""))
        return measured.rows(0)

    def _turn(self, item: Mapping[str, Any]) -> str:
        """Return how the film of a doubtful prediction has to be turned."""
        parser = self._flow.parser
        if any(part not in parser for part in _PARTS):
            return ""
        preprocessing, network, inferer, decoder, examiner, device = map(parser.get_parsed_content, _PARTS)

        def doubt_about(item: dict[Any, Any]) -> Any:
            with eval_mode(network):
                image = MetaTensor(torch.as_tensor(item["image"])[None], affine=item["image"].affine)
                found = inferer(image.to(device), network)
            one = (
                {key: value[0].cpu() for key, value in found.items()} if isinstance(found, Mapping) else found[0].cpu()
            )
            return examiner(decoder({**item, "pred": one}))["pred_doubt"]

        return resolving_turn(item, preprocessing, doubt_about)


def loading_workers(images: int) -> int:
    """Return the number of processes that load images while the network runs.

    Args:
        images: number of images to load.
    """
    if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free < _SHARED_MEMORY:
        return 0  # as in a container with default options
    return min(usual_workers(images), _MOST_WORKERS)


def own_part(part: tuple[int, int] | None) -> tuple[int, int]:
    """Return the part of the images that this process predicts. The processes of torchrun divide a part further.

    Args:
        part: number of the part, from 1, and number of parts. None: all images.
    """
    number, parts = part or (1, 1)
    if not 1 <= number <= parts:
        raise ValueError(f"part is {number}/{parts}; expected for example 1/{max(parts, 1)}.")
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return number, parts
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return (number - 1) * count + rank + 1, parts * count


def own_device() -> str | None:
    """Return the GPU of this process of torchrun, if the machine has several; None: that of the configuration."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or torch.cuda.device_count() < 2:
        return None
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the cause of an error of a configuration, without the errors that MONAI wraps around it."""
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while str(cause).startswith(_WRAPPERS) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause from cause.__cause__  # not "from error", which it is a cause of
