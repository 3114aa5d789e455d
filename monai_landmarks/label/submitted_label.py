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


"""Whether what an annotator submits is a label of this image: asked at the door, so that a training never meets what is not."""

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

from .pictures import viewer_spacing

__all__ = ["read_label", "matching_model", "label_suffix"]

HINT = "Correct the names in 3D Slicer (Markups, Control Points) and submit again."


def label_suffix(path: str | os.PathLike) -> str:
    """The suffix of a landmark format that a file name ends in, such as ``.mrk.json``.

    Raises:
        ValueError: if it is no landmark file.
    """
    name = Path(path).name
    suffix = landmark_suffix(name)
    if suffix is None:
        raise ValueError(
            f"a label of type {''.join(Path(name).suffixes) or name!r} holds no landmarks; expected a point list, such as "
            "3D Slicer's .mrk.json."
        )
    return suffix


def matching_model(landmarks: LandmarkSet, models: Mapping[str, Sequence[str]]) -> str:
    """The model whose landmarks these are.

    Args:
        landmarks: what was submitted. Some of the model's landmarks may be left out, and their order is free.
        models: names of the landmarks of each model.

    Raises:
        ValueError: if no model knows all of the names, with those that it does not and what is like them.
    """
    if not models:
        raise ValueError("the server has no model, so that nobody knows the names of the landmarks.")
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
    """Read a label, and see that it is one of this image and of a model.

    A point list in which nothing is placed says that no landmark is to be seen, and is a label. A file without a point list
    is none.

    Args:
        path: the file.
        image: the image file, with which the position of the points is compared; None if there is none at hand.
        models: names of the landmarks of each model.

    Returns:
        the model, and the landmarks as the file has them.

    Raises:
        ValueError: if it cannot be read, has names that no model knows, or no point of it lies in the image.
    """
    suffix = label_suffix(path)
    landmarks = read_landmarks(path, image=image)
    if suffix == ".mrk.json" and not load_json(read_text(Path(path)))["markups"]:
        raise ValueError("holds no point list at all.")
    model = matching_model(landmarks, models)
    if image is not None and os.path.isfile(image) and not landmarks.missing.all():
        _require_position(landmarks, image)
    return model, landmarks


def _require_position(landmarks: LandmarkSet, image: str | os.PathLike) -> None:
    shape, affine = read_header(image, viewer_spacing(image))
    placed = ~landmarks.missing
    points = landmarks.with_spatial_dims(3).to_index(affine).points[placed]
    size = np.array([*shape, 1][:3])  # a point of a picture lies in its plane
    inside = ((points >= -0.5) & (points <= size - 0.5)).all(axis=1)
    if not inside.any():
        name = next(name for name, there in zip(landmarks.names, placed) if there)
        raise ValueError(
            f"no landmark lies in the image {Path(image).name}: {name!r} is at index "
            f"{points[0].round(1).tolist()} of an image of shape {shape}. The label may be that of another image, or "
            "state the wrong coordinate system."
        )
