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
"""Writing of phantoms as files: images, landmarks and their datalist."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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

VERSION = 1  # of the images: a phantom of another version is replaced


def sections(num_images: int, val_frac: float, test_frac: float) -> list[str]:
    """Return the section of each image: training first, then validation, then testing.

    Example:
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
    """Write ``num_images`` images, a table of their landmarks and, last, the datalist.

    If several processes request the same phantom, as in a training on several devices, one writes it and the others
    wait.

    Args:
        folder: folder to write.
        parameters: JSON values that determine the phantom. If the datalist already records the same values, nothing is
            written.
        landmarks: description of the landmarks in the datalist: names, pairs, coordinate system.
        write_image: function that writes image number i into the folder and returns its item and its landmarks.

    Returns:
        path of ``datalist.json``.
    """
    folder = Path(folder)
    datalist = folder / "datalist.json"
    parameters = json.loads(json.dumps({**parameters, "version": VERSION}))
    belongs = sections(*(parameters[key] for key in ("num_images", "validation_fraction", "testing_fraction")))
    lock = folder / ".writing.lock"
    if not _is_complete(datalist, parameters):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not _is_complete(datalist, parameters):  # another process may have written it in the meantime
                _require_own(datalist)
                # an interrupted run must not leave the datalist of other images, but the folder stays a phantom's
                with atomic_write(datalist) as path:
                    path.write_text('{"phantom": "incomplete"}\n')
                _write_all(datalist, parameters, landmarks, belongs, write_image)
    # Processes that wait for the lock only find out that the datalist is complete, so they no longer need it.
    lock.unlink(missing_ok=True)
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


def _require_own(datalist: Path) -> None:
    """Raise an error if a folder has landmarks or a datalist that are not those of a phantom."""
    theirs = [path.name for path in (datalist, datalist.with_name("landmarks.csv")) if path.exists()]
    if theirs and not _is_of_phantom(datalist):
        raise ValueError(
            f"{datalist.parent}: {' and '.join(theirs)} would be replaced by those of a phantom; give an empty folder, or, to "
            "train on the images there, a datalist (--datalist)."
        )


def _is_of_phantom(datalist: Path) -> bool:
    try:
        return "phantom" in json.loads(datalist.read_text())
    except (OSError, ValueError, TypeError):
        return False


def _is_complete(datalist: Path, parameters: dict[str, Any]) -> bool:
    try:
        content = json.loads(datalist.read_text())
    except (FileNotFoundError, ValueError):
        return False
    if not isinstance(content, dict):
        return False
    items = [item for section in ("training", "validation", "testing") for item in content.get(section, [])]
    files = [item["image"] for item in items] + [item["label"] for item in items if isinstance(item["label"], str)]
    return content.get("phantom") == parameters and all((datalist.parent / name).exists() for name in files)


def _drop(found: LandmarkSet, missing_fraction: float, seed: int, index: int) -> LandmarkSet:
    """Round points to 4 digits, as in the files, and make some landmarks missing."""
    points = found.points.round(4)
    points[np.random.default_rng([seed, index, 1]).random(len(points)) < missing_fraction] = np.nan
    return replace(found, points=points)


def _jitter(found: LandmarkSet, deviation: np.ndarray, seed: int, index: int) -> LandmarkSet:
    """Add normal noise with standard deviations (N,) to the points, in their unit, as an uncertain annotator would."""
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
    test_frac: float = 0.0,
    missing_fraction: float = 0.0,
    label_jitter: float | Sequence[float] = 0.0,
) -> Path:
    """Write schematic hand radiographs (8-bit PNG) with their landmarks, the data of the hand bundle.

    The same arguments give identical files, and image number i does not depend on the number of images. Nothing is
    written if the folder already holds the same phantom.

    Args:
        root_dir: folder to write, with ``images/``, ``landmarks.csv`` (long form, index coordinates) and
            ``datalist.json``.
        num_images: number of images: training first, then validation, then testing.
        seed: seed of all random numbers.
        size: pixels along x and y.
        spacing: pixel size in mm. By default an adult hand fills the image.
        val_frac: fraction of the images for validation.
        test_frac: fraction of the images for testing.
        missing_fraction: probability that a landmark is missing from the files although it is visible.
        label_jitter: standard deviation, per axis, of the error of the labels in mm: one number, or one per landmark.
            Testing labels are exact, so that predictions can be compared with the true positions.

    Returns:
        path of ``datalist.json``. Its labels are lists of points in index coordinates: ``[x, y]`` along the axes of the
        array that MONAI's ``PILReader`` returns, with whole numbers at pixel centers.

    Raises:
        ValueError: if the number of images, the fractions or the jitter are invalid.
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

    # the names of the fractions are those in existing datalists; other names would draw those phantoms again
    parameters = {
        "kind": "hand",
        "num_images": num_images,
        "seed": seed,
        "size": size,
        "spacing": spacing,
        "validation_fraction": val_frac,
        "testing_fraction": test_frac,
        "missing_fraction": missing_fraction,
        # left out if zero, so that phantoms written before this option existed stay valid
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
    test_frac: float = 0.0,
    missing_fraction: float = 0.0,
) -> Path:
    """Write schematic CTs of the lumbar spine (NIfTI) with their landmarks (``.mrk.json``, world RAS).

    As in :func:`write_hand_phantom`, the same arguments give identical files, which are written only once.

    Args:
        root_dir: folder to write, with ``images/``, ``points/``, ``landmarks.csv`` (long form, RAS) and
            ``datalist.json``.
        num_images: number of images: training first, then validation, then testing.
        seed: seed of all random numbers.
        size: voxels along the three axes.
        spacing: voxel size in mm.
        oblique: largest rotation of the image axes against the patient's axes in degrees.
        crop: probability that the field of view cuts off one or two vertebrae, whose landmarks are then missing.
        val_frac: fraction of the images for validation.
        test_frac: fraction of the images for testing.
        missing_fraction: probability that a landmark is missing from the files although it is visible.

    Returns:
        path of ``datalist.json``. Its labels are paths of landmark files.

    Raises:
        ValueError: if the number of images or the fractions are invalid.
    """
    size, spacing = tuple(int(n) for n in size), tuple(float(s) for s in spacing)

    def write_image(root: Path, index: int) -> tuple[dict[str, Any], LandmarkSet]:
        volume, affine, found = spine_phantom(np.random.default_rng([seed, index]), size, spacing, oblique, crop)
        stem = f"spine_{index:04d}"
        with atomic_write(root / f"images/{stem}.nii.gz") as path:
            import nibabel as nib

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
