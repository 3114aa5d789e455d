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


"""MONAI Label datastore that checks submitted labels and is safe when two processes write to it."""

from __future__ import annotations

import filecmp
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from monai.utils import optional_import

from monai_landmarks.data.files.safe_files import atomic_write
from monai_landmarks.data.images.image_files import IMAGE_SUFFIXES, image_suffix

from .request_values import require_name
from .submitted_label import label_suffix, read_label, require_few_points

HTTPException, _ = optional_import("fastapi", name="HTTPException", as_type="base")
DataModel, _ = optional_import("monailabel.datastore.local", name="DataModel")
LocalDatastore, _ = optional_import("monailabel.datastore.local", name="LocalDatastore", as_type="base")

__all__ = ["IMAGE_PATTERNS", "LandmarkDatastore"]

logger = logging.getLogger(__name__)

# MONAI Label compares file names case-sensitively; by default it ignores BMP, MHA and DICOM
IMAGE_PATTERNS = tuple(f"*{suffix}" for lower in IMAGE_SUFFIXES for suffix in (lower, lower.upper()))


class LandmarkDatastore(LocalDatastore):
    """A folder with images and their labels in ``labels/final`` (submitted) and ``labels/original`` (proposed).

    The server and each of its background tasks have a datastore object for the same folder. MONAI Label's own datastore
    writes its state from memory, so a task that ends would overwrite the changes that the server has written since the
    task started. This datastore takes a lock and reads the file before it writes. It writes the file completely or not
    at all.

    An image is never replaced by another one. A submitted label that another one replaces is kept in
    ``labels/replaced``.

    Ids and tags are names. Files outside the folder are never read, written or removed, also if a link in the folder
    leads to them.

    Args:
        folder: folder of the images.
        models: returns the names of the landmarks of each model.
        auto_reload: whether to watch the folder for changes, see MONAI Label.
        read_only: whether changes are forbidden, see MONAI Label.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        models: Callable[[], Mapping[str, Sequence[str]]],
        auto_reload: bool = False,
        read_only: bool = False,
    ) -> None:
        self.models = models
        self._changes = FileLock(
            Path(folder) / ".lock_changes"
        )  # not MONAI Label's own lock, which its methods take themselves
        self._left_out: set[str] = set()
        super().__init__(os.fspath(folder), extensions=IMAGE_PATTERNS, auto_reload=auto_reload, read_only=read_only)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store a label if it is a valid label of the image.

        Raises:
            HTTPException: 404 if the image does not exist, 400 if the label is not valid, 403 if it would be written to
                another folder, 413 if it has too many points.
        """
        self._require_names(image_id, label_tag)
        self.reload()
        image = self.get_image_uri(image_id)
        if not image:
            raise HTTPException(404, f"there is no image {image_id!r} in {self._datastore_path}.")
        label = Path(self._datastore.label_path(label_tag)) / f"{image_id}{self._to_id(Path(label_filename).name)[1]}"
        self._require_inside(label)
        try:
            require_few_points(label_filename)
        except ValueError as error:
            raise HTTPException(413, f"the label of {image_id!r} was not saved: {error}") from error
        try:
            model, landmarks = read_label(label_filename, image, self.models())
        except (ValueError, OSError) as error:
            reason = str(error).removeprefix(f"{label_filename}: ")
            raise HTTPException(400, f"the label of {image_id!r} was not saved: {reason}") from error
        info = dict(label_info or {})
        info["model"] = info.get("model", model)
        info["landmarks"] = [name for name, missing in zip(landmarks.names, landmarks.missing) if not missing]
        info["missing"] = [name for name in self.models()[model] if name not in info["landmarks"]]
        with self._changing():
            self.refresh()  # the label to replace may have been put there by hand
            before = self.get_label_uri(image_id, label_tag)
            if label_tag == "final" and before and not filecmp.cmp(before, label_filename, shallow=False):
                info["replaced"] = self._keep(image_id, Path(before))
            label_id = super().save_label(image_id, label_filename, label_tag, info)
            if before and before != self.get_label_uri(image_id, label_tag):
                Path(before).unlink(missing_ok=True)  # a label in another format
        return str(label_id)

    def reload(self) -> None:
        """Read the changes that another process has written."""
        self._init_from_datastore_file()

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Store information about an image, see MONAI Label."""
        with self._changing():
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Store information about a label, see MONAI Label."""
        with self._changing():
            super().update_label_info(label_id, label_tag, info)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an image, see MONAI Label. An image that is sent again stays as it is, with its labels.

        Raises:
            HTTPException: 400 if the id is not a name or the file does not have the suffix of an image, 403 if it would
                be written to another folder, 409 if another image has this id.
        """
        if not image_suffix(image_filename):
            raise HTTPException(400, f"{image_id!r} is not an image; use a file of type {', '.join(IMAGE_SUFFIXES)}.")
        stem, suffix = self._to_id(os.path.basename(image_filename))
        image_id = image_id or stem
        self._require_names(image_id)
        self._require_inside(Path(self._datastore.image_path()) / f"{image_id}{suffix}")
        with self._changing():
            self.refresh()
            known = self.get_image_uri(image_id)
            if not known:
                return str(super().add_image(image_id, image_filename, image_info))
            if not filecmp.cmp(known, image_filename, shallow=False):
                raise HTTPException(
                    409,
                    f"there is another image {image_id!r}, the file {Path(known).name}, and its labels would not fit."
                    " Send the image with another name, or remove that one first.",
                )
            self.update_image_info(image_id, image_info or {})
            return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label and update the state at once, not only when MONAI Label notices that the file is gone.

        Raises:
            HTTPException: 404 if there is no such label.
        """
        if not self.get_label_uri(label_id, label_tag):
            raise HTTPException(404, f"there is no label {label_id!r} with the tag {label_tag!r}.")
        super().remove_label(label_id, label_tag)
        self.refresh()

    def get_image_uri(self, image_id: str) -> str:
        """Return the path of an image, or an empty text if there is none in the folder."""
        return self._only_inside(super().get_image_uri(image_id))

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the path of a label, or an empty text if there is none in the folder."""
        return self._only_inside(super().get_label_uri(label_id, label_tag))

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Return the images with a submitted label, see MONAI Label."""
        return [item for item in super().datalist(full_path) if all(map(self._only_inside, item.values()))]

    def _only_inside(self, path: str) -> str:
        return path if path and Path(path).resolve().is_relative_to(Path(self._datastore_path).resolve()) else ""

    def _require_inside(self, path: Path) -> None:
        if not self._only_inside(os.fspath(path)):
            raise HTTPException(403, f"{path.name!r} leads out of the folder {self._datastore_path}, through a link.")

    def _require_names(self, image_id: str, tag: str | None = None) -> None:
        try:
            require_name(image_id, "image")
            if tag is not None:
                require_name(getattr(tag, "value", tag), "tag")
        except ValueError as error:
            raise HTTPException(400, str(error)) from error

    def _keep(self, image_id: str, label: Path) -> dict[str, Any]:
        """Copy a label that another one replaces, and return who submitted it, when, and the name of the copy."""
        folder, suffix = Path(self._datastore.label_path("replaced"), "final"), label.name.removeprefix(image_id)
        copy = next(path for i in itertools.count(1) if not (path := folder / f"{image_id}.{i}{suffix}").exists())
        self._require_inside(copy)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(copy) as temporary:
            shutil.copyfile(label, temporary)
        known = self.get_label_info(image_id, "final")
        name = copy.relative_to(self._datastore_path).as_posix()
        return {"client_id": known.get("client_id"), "ts": known.get("ts"), "copy": name}

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._changes:
            self.reload()
            yield

    def _reconcile_datastore(self) -> None:
        with self._changing():
            super()._reconcile_datastore()

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        """Return the files that are images, one for each id, without hidden files and links to other folders."""
        found: dict[str, str] = {}
        of_id = {image_id: f"{image_id}{known.image.ext}" for image_id, known in self._datastore.objects.items()}
        for name, file in sorted(super()._list_files(path, patterns).items()):
            image_id = self._to_id(file)[0]
            try:
                require_name(image_id, "image")
                reason = "" if self._only_inside(os.path.join(path, file)) else "it is a link to another folder"
            except ValueError as error:
                reason = str(error)
            if not reason and of_id.setdefault(image_id, file) != file:
                reason = f"{of_id[image_id]} differs only in its suffix; rename one of the two"
            if not reason:
                found[name] = file
            elif file not in self._left_out:
                self._left_out.add(file)
                logger.warning(f"{os.path.join(path, file)} is left out: {reason}")
        return found

    def _remove_non_existing(self) -> int:
        removed = int(super()._remove_non_existing())
        outside = [image for image in self._datastore.objects if not self.get_image_uri(image)]
        for image in outside:
            del self._datastore.objects[image]
        return removed + len(outside)

    def image_id(self, filename: str) -> str:
        """Return the id of an image with this file name: the name without the suffix of images."""
        return self._to_id(filename)[0]

    def _to_id(self, file: str) -> tuple[str, str]:
        # MONAI Label removes the suffix wherever it occurs in the name, not only at its end
        suffix = next((end for end in (p[1:] for p in IMAGE_PATTERNS) if file.endswith(end)), None)
        suffix = file[-len(label_suffix(file)) :] if suffix is None else suffix
        return file[: -len(suffix)], suffix

    def _add_non_existing_labels(self, tag: str) -> int:
        """Add labels that were put into the folder by hand."""
        found = 0
        for file in sorted(Path(self._datastore.label_path(tag)).glob("*.mrk.json")):
            image_id, suffix = self._to_id(file.name)
            known = self._datastore.objects.get(image_id)
            if known is not None and tag not in known.labels:
                known.labels[tag] = DataModel(ext=suffix, info={"ts": int(file.stat().st_mtime), "name": file.name})
                found += 1
        return found

    def _update_datastore_file(self, lock: bool = True) -> None:
        self._ignore_event_config = True
        content = self._datastore.model_dump(exclude={"base_path"})
        with atomic_write(self._datastore_config_path) as temporary:
            temporary.write_text(json.dumps(content, indent=2, default=str), encoding="utf-8")
        self._config_ts = os.stat(self._datastore_config_path).st_mtime
