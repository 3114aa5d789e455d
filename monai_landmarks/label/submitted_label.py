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


"""Reading and validation of labels that annotators submit, so that a training never reads an invalid label."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from monai_landmarks.data import LandmarkSet, landmark_suffix, read_landmarks
from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import read_text
from monai_landmarks.data.images.image_files import read_header

from .pictures import viewer_affine

__all__ = ["MAX_POINTS", "label_suffix", "matching_model", "read_label", "require_few_points", "require_inside"]

MAX_POINTS = 10_000
_COMMAS = 16  # 3D Slicer writes 20 for each point, but then the size of the request is the limit
HINT = "Correct the names in 3D Slicer (Markups, Control Points) and submit again."


def label_suffix(path: str | os.PathLike) -> str:
    """Return the suffix of the landmark format of a file, for example ``.mrk.json``.

    Raises:
        ValueError: if the file name does not have the suffix of a landmark format.
    """
    name = Path(path).name
    suffix = landmark_suffix(name)
    if suffix is None:
        raise ValueError(
            f"a label of type {''.join(Path(name).suffixes) or name!r} holds no landmarks; submit a point list, for "
            "example a .mrk.json file of 3D Slicer."
        )
    return suffix


def matching_model(landmarks: LandmarkSet, models: Mapping[str, Sequence[str]]) -> str:
    """Return the first model whose landmarks include all landmarks of a label.

    Args:
        landmarks: landmarks of the label. They may be incomplete and in any order.
        models: names of the landmarks of each model.

    Raises:
        ValueError: if no model has all of the names. The message lists the unknown names and similar names of the model
            that fits best.
    """
    if not models:
        raise ValueError(
            "the server has no model, so the names of the landmarks cannot be checked. Start it with a bundle: --conf models."
        )
    foreign = {model: [name for name in landmarks.names if name not in known] for model, known in models.items()}
    best = min(foreign, key=lambda model: len(foreign[model]))
    if not foreign[best]:
        return best
    texts = []
    for name in foreign[best][:5]:
        like = difflib.get_close_matches(name, list(models[best]), n=1)
        texts.append(f"{name!r}, perhaps {like[0]!r}" if like else f"{name!r}")
    more = len(foreign[best]) - len(texts)
    raise ValueError(
        f"{best} has no landmark {'; '.join(texts)}{f'; and {more} more' if more else ''}. It has "
        f"{', '.join(list(models[best])[:8])}{', ...' if len(models[best]) > 8 else ''}. {HINT}"
    )


def read_label(
    path: str | os.PathLike, image: str | os.PathLike | None, models: Mapping[str, Sequence[str]]
) -> tuple[str, LandmarkSet]:
    """Read a label and require that it belongs to an image and to a model.

    A point list in which no point is placed states that no landmark is visible, and is a valid label. A file without a
    point list is not.

    Args:
        path: file of the label.
        image: image file, to compare its position with the points. None to skip this comparison.
        models: names of the landmarks of each model.

    Returns:
        The name of the model, and the landmarks as they are in the file.

    Raises:
        ValueError: if the file cannot be read, if no model has all of its names, or if all points are outside the
            image.
    """
    suffix = label_suffix(path)
    landmarks = read_landmarks(path, image=image)
    if suffix == ".mrk.json" and not load_json(read_text(Path(path)))["markups"]:
        raise ValueError("the file contains no point list.")
    model = matching_model(landmarks, models)
    if image is not None and os.path.isfile(image) and not landmarks.missing.all():
        shape, affine = read_header(image)
        seen = viewer_affine(image)
        require_inside(landmarks.with_spatial_dims(3).to_index(affine if seen is None else seen), shape, image)
    return model, landmarks


def require_few_points(path: str | os.PathLike) -> None:
    """Require that a label has at most :data:`MAX_POINTS` points, before the points are read.

    Raises:
        ValueError: if the file has more lines, more positions of ``.mrk.json``, or more commas than other formats need
            for so many points.
    """
    content = Path(path).read_bytes()
    is_json = Path(path).suffix.lower() == ".json"
    count = content.count(b'"position"') if is_json else content.count(b"\n") + content.count(b"\r")
    count = max(count, content.count(b",") // _COMMAS)
    if count > MAX_POINTS + 100:  # lines of a header
        raise ValueError(f"it has about {count} points; the server accepts {MAX_POINTS}.")


def require_inside(landmarks: LandmarkSet, shape: Sequence[int], image: str | os.PathLike) -> None:
    """Require that a point of a label is in its image.

    Args:
        landmarks: index points, 2-D or 3-D. At least one is not missing.
        shape: spatial shape of the image. A 2-D image is a single slice.
        image: image file, for the message.

    Raises:
        ValueError: if all points are outside.
    """
    placed = ~landmarks.missing
    points = landmarks.points[placed]
    size = np.array([*shape, 1][: landmarks.spatial_dims])
    inside = ((points >= -0.5) & (points <= size - 0.5)).all(axis=1)
    if not inside.any():
        name = next(name for name, there in zip(landmarks.names, placed) if there)
        raise ValueError(
            f"no landmark lies in the image {Path(image).name}: {name!r} is at index "
            f"{points[0].round(1).tolist()}, but the image has the shape {shape}. The label may belong to another image, or "
            "state the wrong coordinate system."
        )
