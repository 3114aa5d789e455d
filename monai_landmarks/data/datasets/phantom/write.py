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
"""Write phantoms as ordinary files: images, landmarks and the datalist that names them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from monai_landmarks.data.datasets.phantom.hand import hand_phantom, hand_spacing
from monai_landmarks.data.datasets.phantom.hand_anatomy import HAND_LANDMARKS
from monai_landmarks.data.datasets.phantom.spine import spine_phantom
from monai_landmarks.data.datasets.phantom.spine_anatomy import SPINE_LANDMARKS, SPINE_PAIRS
from monai_landmarks.data.files.safe_files import atomic_write
from monai_landmarks.data.landmarks.landmark_io import write_landmark_table, write_landmarks
from monai_landmarks.data.landmarks.landmark_set import LandmarkSet

__all__ = ["write_hand_phantom", "write_spine_phantom"]

VERSION = 1  # of the pictures: a phantom written by another version is not the same and is written anew


def sections(num_images: int, val_frac: float, test_frac: float) -> list[str]:
    """The datalist section of each image: training comes first, then validation, then testing.

    >>> sections(5, 0.2, 0.2)
    ['training', 'training', 'training', 'validation', 'testing']
    """
    validation, testing = (int(round(num_images * f)) for f in (val_frac, test_frac))
    training = num_images - validation - testing
    if num_images < 1 or training < 0 or min(validation, testing) < 0:
        raise ValueError(
            f"num_images={num_images}, val_frac={val_frac}, test_frac={test_frac}: "
            "expected at least one image and fractions between 0 and 1 whose sum is at most 1."
        )
    return ["training"] * training + ["validation"] * validation + ["testing"] * testing


def write_phantom(
    folder: str | os.PathLike,
    parameters: dict[str, Any],
    landmarks: dict[str, Any],
    write_image: Callable[[Path, int], tuple[dict[str, Any], LandmarkSet]],
) -> Path:
    """Write ``num_images`` images, a table of their landmarks and, last of all, the datalist.

    Of several processes that ask for the same phantom, as in a training on several devices, one writes it and the others
    wait for it.

    Args:
        folder: where to write.
        parameters: what determines the phantom, JSON types; a datalist that records the same is left as it is.
        landmarks: the datalist's description of the landmarks: names, pairs, coordinate system.
        write_image: writes image number i into the folder and returns its datalist item and its landmarks.

    Returns:
        path of ``datalist.json``.
    """
    folder = Path(folder)
    datalist = folder / "datalist.json"
    parameters = json.loads(json.dumps({**parameters, "version": VERSION}))
    belongs = sections(*(parameters[key] for key in ("num_images", "validation_fraction", "testing_fraction")))
    if _is_complete(datalist, parameters):
        return datalist
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".writing.lock"):
        if not _is_complete(datalist, parameters):  # another process may have written it meanwhile
            datalist.unlink(missing_ok=True)  # an interrupted run must not leave a datalist that speaks of other images
            _write_all(datalist, parameters, landmarks, belongs, write_image)
    return datalist


def _write_all(
    datalist: Path,
    parameters: dict[str, Any],
    landmarks: dict[str, Any],
    belongs: Sequence[str],
    write_image: Callable[[Path, int], tuple[dict[str, Any], LandmarkSet]],
) -> None:
    folder = datalist.parent
    content: dict[str, Any] = {"phantom": parameters, "landmarks": landmarks}
    content.update({section: [] for section in ("training", "validation", "testing")})
    table: dict[str, LandmarkSet] = {}
    for index, section in enumerate(tqdm(belongs, desc=str(folder), disable=len(belongs) <= 50)):
        item, found = write_image(folder, index)
        content[section].append(item)
        table[Path(item["image"]).name] = found
    write_landmark_table(folder / "landmarks.csv", table)
    with atomic_write(datalist) as path:
        path.write_text(json.dumps(content, indent=1) + "\n")


def _is_complete(datalist: Path, parameters: dict[str, Any]) -> bool:
    try:
        content = json.loads(datalist.read_text())
    except (FileNotFoundError, ValueError):
        return False
    items = [item for section in ("training", "validation", "testing") for item in content.get(section, [])]
    files = [item["image"] for item in items] + [item["label"] for item in items if isinstance(item["label"], str)]
    return content.get("phantom") == parameters and all((datalist.parent / name).exists() for name in files)


def _drop(found: LandmarkSet, missing_fraction: float, seed: int, index: int) -> LandmarkSet:
    """Round to 4 digits, as the files have it, and make some landmarks missing."""
    points = found.points.round(4)
    points[np.random.default_rng([seed, index, 1]).random(len(points)) < missing_fraction] = np.nan
    return replace(found, points=points)


def _jitter(found: LandmarkSet, deviation: np.ndarray, seed: int, index: int) -> LandmarkSet:
    """Labels of an annotator who is not sure: normal noise with a standard deviation (N,) in the unit of the points."""
    noise = np.random.default_rng([seed, index, 2]).standard_normal(found.points.shape)
    return replace(found, points=found.points + deviation[:, None] * noise)


def write_hand_phantom(
    root_dir: str | os.PathLike,
    num_images: int = 200,
    seed: int = 0,
    *,
    size: Sequence[int] = (256, 256),
    spacing: float | None = None,
    val_frac: float = 0.2,
    test_frac: float = 0.15,
    missing_fraction: float = 0.0,
    label_jitter: float | Sequence[float] = 0.0,
) -> Path:
    """Write schematic hand radiographs (8-bit PNG) with their landmarks, the default data of the bundles.

    The same arguments give the same files, bit by bit; image number i does not depend on how many there are. Nothing is
    done where the same phantom has been written before.

    Args:
        root_dir: where to write ``images/``, ``landmarks.csv`` (long form, index coordinates) and ``datalist.json``.
        num_images: number of images, training first, then validation and testing.
        seed: start of all random draws.
        size: pixels along x and y.
        spacing: pixel size, mm; by default a grown hand fills the image.
        val_frac: part of the images that is for validation.
        test_frac: part of the images that is for testing.
        missing_fraction: probability that a landmark is missing from the files, though it is visible.
        label_jitter: standard deviation, along each axis, of the error of the labels, mm; one for all landmarks or one for
            each. Labels for testing are exact, so that it can be told what a network made of the others.

    Returns:
        path of ``datalist.json``. Its labels are inline, in index coordinates: ``[x, y]`` runs along the axes of the
        array that MONAI's ``PILReader`` gives, whole numbers are pixel centers.

    Raises:
        ValueError: if the number or the fractions make no sense.
    """
    size = tuple(int(n) for n in size)
    spacing = float(hand_spacing(size) if spacing is None else spacing)
    jitter = np.asarray(label_jitter, dtype=float)
    if jitter.shape not in ((), (len(HAND_LANDMARKS),)) or not (jitter >= 0).all():
        raise ValueError(f"label_jitter must be one number or {len(HAND_LANDMARKS)}, not negative, got {label_jitter}.")
    deviation = np.broadcast_to(jitter / spacing, len(HAND_LANDMARKS))
    belongs = sections(num_images, val_frac, test_frac)

    def write_image(root: Path, index: int) -> tuple[dict[str, Any], LandmarkSet]:
        image, found = hand_phantom(np.random.default_rng([seed, index]), size, spacing)
        name = f"images/hand_{index:04d}.png"
        with atomic_write(root / name) as path:
            Image.fromarray(np.rint(image.T * 255).astype(np.uint8)).save(path)
        if jitter.any() and belongs[index] != "testing":
            found = _jitter(found, deviation, seed, index)
        found = _drop(found, missing_fraction, seed, index)
        label = [[None, None] if gone else point for point, gone in zip(found.points.tolist(), found.missing)]
        return {"image": name, "label": label, "spacing": [spacing, spacing]}, found

    # the names of the two fractions are those that datalists on disk have: another name would draw a phantom anew
    parameters = {
        "kind": "hand",
        "num_images": num_images,
        "seed": seed,
        "size": size,
        "spacing": spacing,
        "validation_fraction": val_frac,
        "testing_fraction": test_frac,
        "missing_fraction": missing_fraction,
        # absent where it is zero: such phantoms are those of before
        **({"label_jitter": jitter.tolist()} if jitter.any() else {}),
    }
    landmarks = {"names": HAND_LANDMARKS, "pairs": [], "coordinate_system": "index"}
    return write_phantom(root_dir, parameters, landmarks, write_image)


def write_spine_phantom(
    root_dir: str | os.PathLike,
    num_images: int = 40,
    seed: int = 0,
    *,
    size: Sequence[int] = (64, 64, 96),
    spacing: Sequence[float] = (2.0, 2.0, 2.0),
    oblique: float = 0.0,
    crop: float = 0.0,
    val_frac: float = 0.2,
    test_frac: float = 0.15,
    missing_fraction: float = 0.0,
) -> Path:
    """Write schematic CTs of the lumbar spine (NIfTI) with their landmarks (``.mrk.json``, world RAS).

    Deterministic and done only once, as ``write_hand_phantom`` is.

    Args:
        root_dir: where to write ``images/``, ``points/``, ``landmarks.csv`` (long form, RAS) and ``datalist.json``.
        num_images: number of images, training first, then validation and testing.
        seed: start of all random draws.
        size: voxels along the three axes.
        spacing: voxel size, mm.
        oblique: the image axes are turned against the patient's by up to this many degrees.
        crop: probability that the field of view cuts off one to two vertebrae, whose landmarks are then missing.
        val_frac: part of the images that is for validation.
        test_frac: part of the images that is for testing.
        missing_fraction: probability that a landmark is missing from the files, though it is visible.

    Returns:
        path of ``datalist.json``; its labels are paths of the landmark files.

    Raises:
        ValueError: if the number or the fractions make no sense.
    """
    size, spacing = tuple(int(n) for n in size), tuple(float(s) for s in spacing)

    def write_image(root: Path, index: int) -> tuple[dict[str, Any], LandmarkSet]:
        volume, affine, found = spine_phantom(np.random.default_rng([seed, index]), size, spacing, oblique, crop)
        stem = f"spine_{index:04d}"
        with atomic_write(root / f"images/{stem}.nii.gz") as path:
            image = nib.Nifti1Image(volume, affine)
            image.header.set_xyzt_units("mm")
            nib.save(image, path)
        found = _drop(found, missing_fraction, seed, index)
        write_landmarks(root / f"points/{stem}.mrk.json", found)
        return {"image": f"images/{stem}.nii.gz", "label": f"points/{stem}.mrk.json"}, found

    parameters = {
        "kind": "spine",
        "num_images": num_images,
        "seed": seed,
        "size": size,
        "spacing": spacing,
        "oblique": oblique,
        "crop": crop,
        "validation_fraction": val_frac,
        "testing_fraction": test_frac,
        "missing_fraction": missing_fraction,
    }
    landmarks = {"names": SPINE_LANDMARKS, "pairs": SPINE_PAIRS, "coordinate_system": "RAS"}
    return write_phantom(root_dir, parameters, landmarks, write_image)
