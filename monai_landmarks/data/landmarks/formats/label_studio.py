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


"""Keypoints of Label Studio (``.json``, one file of many images, exported as "JSON" or "JSON-MIN").

Positions are percentages of the width and height of the image, from its top left corner. They are converted to pixel
index with the size that the file states; half a pixel is subtracted, so that whole numbers are pixel centers. See
https://labelstud.io/guide/export.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from monai_landmarks.data.files.json_values import is_number, load_json, read_position, short
from monai_landmarks.data.files.safe_files import read_text
from monai_landmarks.data.images.image_files import image_suffix
from monai_landmarks.data.landmarks.landmark_set import LandmarkSet

from .common import sets_of_images

__all__ = ["is_label_studio", "read_label_studio"]

_UPLOAD = re.compile(r"[0-9a-f]{8}-")  # put before the name of an uploaded file
_PIXEL_CENTER = 0.5


def is_label_studio(content: Any) -> bool:
    """Return whether JSON is a list of tasks of Label Studio."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(task, dict) for task in content)
        and (
            all(
                isinstance(task.get("annotations", task.get("completions")), list) and "data" in task
                for task in content
            )
            or all({"annotation_id", "annotator"} & set(task) and "id" in task for task in content)
        )
    )


def read_label_studio(path: Path) -> dict[str, LandmarkSet]:
    """Read the keypoints of all images. Other shapes and skipped tasks are ignored.

    Returns:
        the landmark set of each image by the name of its file, without what Label Studio puts before it on upload.

    Raises:
        ValueError: if the file is malformed; or an image has annotations of several people, two keypoints with the same
            label, or was turned.
    """
    content = load_json(read_text(path))
    if not is_label_studio(content):
        raise ValueError("no list of tasks; expected an export of Label Studio.")
    points: dict[str, dict[str, list[float]]] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    for i, task in enumerate(content):
        where = f"task {short(task.get('id', i))}"
        results, data = _results(task, where)
        if results is None:
            continue
        image = _image(data, where)
        if image in points:
            raise ValueError(f"{where}: image {image!r} occurs twice; expected one task per image.")
        points[image], drawn_on = _keypoints(results, f"{where} ({image})")
        if len(drawn_on) > 1:
            raise ValueError(
                f"{where} ({image}): the keypoints state images of the sizes {sorted(drawn_on)}; expected one."
            )
        sizes[image] = next(iter(drawn_on), None)
    if points and not any(points.values()):
        raise ValueError("holds annotations of Label Studio, but no keypoints.")
    return {name: replace(found, image_size=sizes[name]) for name, found in sets_of_images(points, 2).items()}


def _results(task: dict[str, Any], where: str) -> tuple[list[Any] | None, dict[str, Any]]:
    """Return the shapes of a task, None if it was not annotated, and its data."""
    if "data" not in task:  # JSON-MIN: data and shapes side by side
        lists = [value for value in task.values() if isinstance(value, list)]
        return [{"value": shape, **shape} for shapes in lists for shape in shapes if isinstance(shape, dict)], task
    found = task.get("annotations", task.get("completions"))
    done = [one for one in found if isinstance(one, dict) and not one.get("was_cancelled")]
    if len(done) > 1:
        raise ValueError(f"{where}: {len(done)} annotations; expected one. Export the annotations of one person.")
    results = done[0].get("result") if done else None
    if done and not isinstance(results, list) or not isinstance(task["data"], dict):
        raise ValueError(f"{where}: no list 'result' or no 'data'; expected those of an export of Label Studio.")
    return results, task["data"]


def _image(data: dict[str, Any], where: str) -> str:
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    chosen = [texts["image"]] if "image" in texts else [text for text in texts.values() if image_suffix(text)]
    if len(chosen) != 1:
        raise ValueError(
            f"{where}: {len(chosen)} texts of its data are image files; expected one, for example 'image'."
        )
    location = unquote(chosen[0]).replace("\\", "/")
    name = PurePosixPath(location.rpartition("?d=")[2]).name  # ?d= precedes the path of a local file
    return _UPLOAD.sub("", name, count=1) if "/upload/" in location and _UPLOAD.match(name) else name


def _keypoints(results: list[Any], where: str) -> tuple[dict[str, list[float]], set[tuple[int, int]]]:
    """Return the points in pixels by their label, and the sizes of the image that they state."""
    points: dict[str, list[float]] = {}
    sizes: set[tuple[int, int]] = set()
    shapes = [shape for shape in results if isinstance(shape, dict) and isinstance(shape.get("value"), dict)]
    # with separate controls, the label of a shape is a result of its own with the same id
    labels = {shape.get("id"): shape["value"]["labels"] for shape in shapes if "labels" in shape["value"]}
    for shape in shapes:
        value = shape["value"]
        if "keypointlabels" not in value and shape.get("type") != "keypoint":
            continue
        names = value.get("keypointlabels") or value.get("labels") or labels.get(shape.get("id"))
        if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str) or not names[0].strip():
            raise ValueError(f"{where}: a keypoint has the labels {short(names)}; expected one label.")
        sides: list[Any] = [shape.get("original_width"), shape.get("original_height")]
        size = [float(side) for side in sides if is_number(side)]
        if len(size) != 2 or min(size) <= 0:
            raise ValueError(f"{where}: {names[0]!r} has no original_width and original_height; expected pixels.")
        if shape.get("image_rotation"):
            raise ValueError(f"{where}: the image was turned in Label Studio; turn it back and export again.")
        if names[0] in points:
            raise ValueError(f"{where}: two keypoints have the label {names[0]!r}; expected distinct labels.")
        x, y = read_position([value.get("x"), value.get("y")], 2, f"{where}: {names[0]!r}")
        sizes.add((int(size[0]), int(size[1])))
        points[names[0]] = [part / 100 * side - _PIXEL_CENTER for part, side in zip((x, y), size)]
    return points, sizes
