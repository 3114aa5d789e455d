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

"""What a prediction of many images has done so far, so that it can be stopped, continued and divided.

Each part of a prediction appends one line per image to its own file. A line is written after the files of its image. The
tables and the report are made from these lines, one after the other, so that the memory does not grow with the images.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, overload

import numpy as np

from monai_landmarks.data import LandmarkSet, UnreadableImage
from monai_landmarks.data.images.image_headers import voxel_files
from monai_landmarks.handlers import SavedPrediction
from monai_landmarks.uncertainty import Doubt, LandmarkProbabilities

try:
    import fcntl
except ImportError:  # Windows: two processes must not write the same part there
    fcntl = None  # type: ignore[assignment]

__all__ = ["EarlierImages", "ImageFile", "PredictionRecords", "RecordedPredictions", "file_stamp"]

_SUFFIX = ".jsonl"
_ARRAYS = ("points", "scores", "covariances", "regions")


class ImageFile(NamedTuple):
    """An image of a prediction.

    Args:
        key: path relative to the folder of the images, by which records name it.
        path: path of the image.
        name: name of its landmark files, without suffix.
        stamp: see :func:`file_stamp`.
    """

    key: str
    path: str
    name: str
    stamp: str


class EarlierImages(NamedTuple):
    """Images that were predicted into the same folder before, and are not predicted now.

    Args:
        kept: images whose records count.
        lost: paths of images that exist, but whose records do not count, or whose names the images of now have.
        gone: paths of images that do not exist anymore.
    """

    kept: list[ImageFile]
    lost: list[str]
    gone: list[str]


class _Place(NamedTuple):
    """The line of an image, with the little that must be known without reading it again."""

    file: Path
    offset: int
    stamp: str
    failed: str
    doubt: str
    turn: str


def file_stamp(path: str | os.PathLike) -> str:
    """Return size and time of change of an image file, with its file of voxels, or of all files of a DICOM series.

    The stamp is empty if the image does not exist.
    """
    try:
        if not os.path.isdir(path):
            states = [os.stat(file) for file in (path, *(voxel_files(path) or []))]
            return "+".join(f"{state.st_size}-{state.st_mtime_ns}" for state in states)
        with os.scandir(path) as entries:
            states = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
        return f"{len(states)}-{zlib.crc32(repr(states).encode()):08x}"
    except OSError:
        return ""


class PredictionRecords:
    """The records of a prediction: one file of lines per part, in one folder.

    Records that were made with other settings, or of an image that has changed since, do not count.

    Args:
        folder: folder of the files.
        settings: what determines the predictions: short texts, by what they describe.
        names: names of the landmarks.
        part: number of the part that this process writes, from 1, and number of parts.

    Attributes:
        path: file of this part.
        changed: what was different when this part was written before. Its records do not count.
        ignored: files of other parts that were made with other settings.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        settings: Mapping[str, str],
        names: Sequence[str],
        part: tuple[int, int] = (1, 1),
    ) -> None:
        self.folder = Path(folder)
        self.settings = dict(settings)
        self.names = tuple(names)
        self.changed: list[str] = []
        self.ignored: list[Path] = []
        self.path = self.folder / f"part_{part[0]}_of_{part[1]}{_SUFFIX}"
        self._file: BinaryIO | None = None
        self._places: dict[str, _Place] = {}
        self._images: dict[str, tuple[ImageFile, bool]] = {}
        self._again = False
        self.read()

    def read(self) -> None:
        """Read the records of all parts."""
        self._places, self._images, self.changed, self.ignored = {}, {}, [], []
        for path in sorted(self.folder.glob(f"*{_SUFFIX}"), key=lambda path: path == self.path):  # its own are newest
            with open(path, "rb") as file:
                header = _entry(file.readline())
                known = header.get("settings", {})
                counts = known == self.settings
                if not counts:
                    if path != self.path:
                        self.ignored.append(path)
                    elif known:
                        keys = [*self.settings, *known]
                        self.changed = [key for key in dict.fromkeys(keys) if known.get(key) != self.settings.get(key)]
                offset = file.tell()
                for line in file:
                    entry = _entry(line)
                    if "path" in entry:
                        image = ImageFile(entry["image"], entry["path"], entry["name"], entry["stamp"])
                        self._images[image.path] = image, counts
                    if counts and entry:
                        texts = (str(entry.get(key, "")) for key in ("stamp", "failed", "doubt", "turn"))
                        place = _Place(path, offset, *texts)
                        before = self._places.get(entry["image"])
                        done = before is not None and before.stamp == place.stamp and not before.failed
                        if not (place.failed and done):
                            self._places[entry["image"]] = place
                    offset += len(line)

    def begin_again(self) -> None:
        """Forget the records of this part."""
        self._again = True

    def state(self, image: ImageFile) -> _Place | None:
        """Return the record of an image; None if there is none that counts."""
        place = self._places.get(image.key)
        return place if place is not None and place.stamp == image.stamp else None

    def earlier(self, images: Sequence[ImageFile]) -> EarlierImages:
        """Return the other images that were predicted before, with any settings.

        Args:
            images: images to predict now. They may have been predicted at another place.
        """
        paths, keys = {os.path.realpath(image.path) for image in images}, {image.key for image in images}
        names = {image.name.casefold() for image in images}
        result = EarlierImages([], [], [])
        for image, counts in self._images.values():
            if os.path.realpath(image.path) in paths:
                continue
            if not os.path.exists(image.path):
                if image.key not in keys:  # otherwise it has moved
                    result.gone.append(image.path)
            elif counts and image.key not in keys and image.name.casefold() not in names and self._is_same(image):
                result.kept.append(image)
            else:
                result.lost.append(image.path)
        return result

    def was_predicted(self, image: ImageFile) -> bool:
        """Return whether an image was predicted before, with any settings and any content."""
        return os.path.abspath(image.path) in self._images

    def stale_names(self, images: Sequence[ImageFile]) -> list[str]:
        """Return the names that files of these images had before and that no image has now.

        A name changes when another image of the same name is added in another folder.
        """
        paths = {os.path.realpath(image.path) for image in images}
        before = [(image.name, os.path.realpath(image.path) in paths) for image, _ in self._images.values()]
        used = {image.name.casefold() for image in images} | {name.casefold() for name, own in before if not own}
        return [name for name, own in before if own and name.casefold() not in used]

    def _is_same(self, image: ImageFile) -> bool:
        return self.is_done(image) and file_stamp(image.path) == image.stamp

    def is_done(self, image: ImageFile) -> bool:
        """Return whether an image has a prediction."""
        place = self.state(image)
        return place is not None and not place.failed

    def results(self, images: Sequence[ImageFile]) -> tuple[RecordedPredictions, tuple[UnreadableImage, ...]]:
        """Return the predictions of those images that are done, by path, and those that failed with the reasons."""
        states = [(image, self.state(image)) for image in images]
        done = [image for image, state in states if state is not None and not state.failed]
        failed = (UnreadableImage(image.path, state.failed) for image, state in states if state and state.failed)
        return RecordedPredictions(self, sorted(done, key=lambda image: image.path)), tuple(failed)

    def add(self, image: ImageFile, prediction: SavedPrediction, turn: str = "", rows: Sequence[Any] = ()) -> None:
        """Record the prediction of an image, after its files were written.

        Args:
            image: the image.
            prediction: its prediction.
            turn: how the film has to be turned so that the doubt is gone.
            rows: its clinical measurements, see :meth:`ImageMeasurements.rows`.
        """
        landmarks, doubt, probable = prediction.landmarks, prediction.doubt, prediction.probabilities
        arrays = {key: None if (values := getattr(landmarks, key)) is None else values.tolist() for key in _ARRAYS}
        entry: dict[str, Any] = {"doubt": str(doubt or ""), "turn": turn, **arrays, "coverage": landmarks.coverage}
        entry["affine"] = None if prediction.affine is None else np.asarray(prediction.affine).tolist()
        entry["plane"] = float(prediction.plane)
        entry["doubts"] = None if doubt is None else [doubt.reasons, list(doubt.landmarks.items())]
        entry["probabilities"] = None if probable is None else [np.asarray(probable.values).tolist(), probable.radius]
        entry["measurements"] = rows
        place = {"image": image.key, "stamp": image.stamp, "path": os.path.abspath(image.path), "name": image.name}
        self._write({**place, **entry})

    def add_failure(self, image: ImageFile, reason: str) -> None:
        """Record that an image cannot be predicted. It is tried again when the prediction is continued."""
        self._write({"image": image.key, "stamp": image.stamp, "failed": reason})

    def close(self) -> None:
        """End the writing, so that another process can write this part."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, entry: Mapping[str, Any]) -> None:
        try:
            file = self._file or self._open()
            file.write(_line(entry))
            file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _open(self) -> BinaryIO:
        """Open the file of this part to append to it, without the line that a killed process left unfinished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = file = open(self.path, "a+b")
        _lock(file, self.path)
        file.seek(0)
        if self._again or _entry(file.readline()).get("settings") != self.settings:
            file.truncate(0)
            file.write(_line({"settings": self.settings}))
        else:
            file.seek(0)
            file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
        return file


@dataclass
class RecordedPredictions(Sequence[SavedPrediction]):
    """The predictions of images, each read from its record when it is used.

    Args:
        records: the records.
        images: images that are done.
    """

    records: PredictionRecords
    images: Sequence[ImageFile]

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> SavedPrediction: ...

    @overload
    def __getitem__(self, index: slice) -> RecordedPredictions: ...

    def __getitem__(self, index: int | slice) -> SavedPrediction | RecordedPredictions:
        if isinstance(index, slice):
            return RecordedPredictions(self.records, self.images[index])
        image, names = self.images[index], self.records.names
        entry = self._read(image)
        arrays: dict[str, Any] = {
            key: None if entry[key] is None else np.array(entry[key], dtype=np.float64) for key in _ARRAYS
        }
        landmarks = LandmarkSet(names, image=image.path, coverage=entry["coverage"], **arrays)
        affine, doubts, probable = entry["affine"], entry["doubts"], entry["probabilities"]
        return SavedPrediction(
            image.path,
            image.name,
            landmarks,
            None if affine is None else np.array(affine),
            entry["plane"],
            None if doubts is None else Doubt(tuple(doubts[0]), dict(doubts[1])),
            None if probable is None else LandmarkProbabilities(np.array(probable[0], dtype=np.float64), probable[1]),
        )

    def doubts(self) -> Iterator[tuple[str, str, str]]:
        """Return path, reasons and resolving turn of each image whose prediction is in doubt."""
        for image in self.images:
            place = self.records.state(image)
            if place is not None and place.doubt:
                yield image.path, place.doubt, place.turn

    def measurements(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Return path and clinical measurements of each image."""
        return ((image.path, self.rows(index)) for index, image in enumerate(self.images))

    def rows(self, index: int) -> list[dict[str, Any]]:
        """Return the clinical measurements of an image."""
        return list(self._read(self.images[index])["measurements"])

    def _read(self, image: ImageFile) -> dict[str, Any]:
        place = self.records.state(image)
        assert place is not None
        with open(place.file, "rb") as file:
            file.seek(place.offset)
            return _entry(file.readline())


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":"), default=float).encode() + b"\n"


def _entry(line: bytes) -> dict[str, Any]:
    """Return the contents of a line; empty if it is unfinished or damaged."""
    if not line.endswith(b"\n"):
        return {}
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _lock(file: BinaryIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(
            f"{path}: another process is predicting these images into this folder; wait for its end, or divide the images"
            " with parts."
        ) from None
