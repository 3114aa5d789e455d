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

"""Reading and writing of landmark files, in the format of their suffix or in a named format.

===================  ==============================  ===================================================================
format               suffix                          what
===================  ==============================  ===================================================================
``csv``              ``.csv``                        names and points of one image or of many
``mrk.json``         ``.mrk.json``, ``.json``        point list of 3D Slicer
``fcsv``             ``.fcsv``                       point list of 3D Slicer, its older format
``afids``            ``.fcsv``                       the 32 AFIDs, under their numbers
``elastix``          ``.pts``, ``.txt``              points of elastix and transformix
``labelme``          ``.json``                       points drawn in LabelMe
``coco``             ``.json``                       COCO keypoints of many images
``labelstudio``      ``.json``                       keypoints of Label Studio; read only
``tps``              ``.tps``                        points of tpsDig; requires the images; read only
``verse``            ``.json``                       vertebra centroids of VerSe; requires the image
``napari``           ``.csv``                        points layer of napari
``payer``            ``.csv``                        wide table of many images without header, as in Payer's projects
``isbi2015``         ``.txt``                        annotation of the ISBI 2015 cephalograms
``aasce``            ``.csv``                        vertebra corners of AASCE 2019, read with its images; read only
``mml``              ``_label.npy``                  mandibular molar landmarks; read only
``npz``              ``.npz``                        arrays of NumPy
``nnlandmark``       ``.nii.gz``, ``.nii``           label map with one cube per landmark; chosen only by name
``nnlandmark.json``  ``.json``                       nnLandmark's voxel coordinates of many images
===================  ==============================  ===================================================================

If formats share a suffix, the content of the file decides. Formats of public benchmarks are registered in
``monai_landmarks.data.datasets``.

To add a format, write two functions and register them::

    register_format(".pts", reader=read_pts, writer=write_pts)

The reader takes a path and returns a :class:`~monai_landmarks.data.LandmarkSet`; its ``ValueError`` need not name the
file. The writer takes a path and a landmark set. It writes to a temporary file, which replaces the file once the writer
has finished.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from monai_landmarks.data.files.folder_walk import walk_folder
from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import atomic_write, naming_file, read_text
from monai_landmarks.data.landmarks.formats.afids import is_afids, read_afids, write_afids
from monai_landmarks.data.landmarks.formats.coco import is_coco, read_coco, write_coco
from monai_landmarks.data.landmarks.formats.common import OtherSystemError
from monai_landmarks.data.landmarks.formats.csv_format import read_csv_table, write_csv, write_csv_table
from monai_landmarks.data.landmarks.formats.elastix import is_elastix, read_elastix, write_elastix
from monai_landmarks.data.landmarks.formats.foreign import foreign_file
from monai_landmarks.data.landmarks.formats.label_studio import is_label_studio, read_label_studio
from monai_landmarks.data.landmarks.formats.labelme import is_labelme, read_labelme, write_labelme
from monai_landmarks.data.landmarks.formats.mml import read_mml
from monai_landmarks.data.landmarks.formats.napari import is_napari, read_napari, write_napari
from monai_landmarks.data.landmarks.formats.nnlandmark import (
    is_voxel_table,
    read_label_cubes,
    read_voxel_table,
    write_label_cubes,
    write_voxel_table,
)
from monai_landmarks.data.landmarks.formats.npz import read_npz, write_npz
from monai_landmarks.data.landmarks.formats.payer import is_payer, read_payer, write_payer
from monai_landmarks.data.landmarks.formats.slicer_fcsv import read_fcsv, write_fcsv
from monai_landmarks.data.landmarks.formats.slicer_markups import is_markups, read_markups, write_markups
from monai_landmarks.data.landmarks.formats.tps import read_tps

from .landmark_set import CoordinateSystem, LandmarkSet

__all__ = [
    "LandmarkFormat",
    "find_foreign_files",
    "find_landmark_files",
    "format_to_read",
    "format_to_write",
    "landmark_format",
    "landmark_formats",
    "landmark_suffix",
    "leave_out_predictions",
    "needs_image",
    "read_landmark_sets",
    "read_landmark_table",
    "read_landmarks",
    "register_format",
    "write_landmark_table",
    "write_landmarks",
]

Reader = Callable[..., LandmarkSet]
Writer = Callable[..., None]
TableReader = Callable[..., Mapping[str, LandmarkSet] | Mapping[str | None, LandmarkSet]]


class LandmarkFormat(NamedTuple):
    """How files with one suffix are read and written; see :func:`register_format`."""

    name: str
    suffix: str
    reader: Reader | None
    writer: Writer | None
    table_reader: TableReader | None
    table_writer: Writer | None
    fits: Callable[[Any], bool] | None
    space: Literal["index", "world"] | None
    only_named: bool
    companions: tuple[str, ...]
    supersedes: tuple[str, ...]


_FOREIGN_SUFFIXES = (".json", ".xml", ".csv", ".txt", ".vtk")
_MOST_TEXT = 1 << 20  # characters
# what is written beside predictions and holds no points
_NO_LANDMARKS = (
    "predictions_std.csv",
    "metrics.csv",
    "errors_per_landmark.csv",
    "errors_per_image.csv",
    "measurements.csv",
    "measurement_errors.csv",
    "measurement_errors_per_image.csv",
    "cobb_angles.csv",
    "failed.csv",
)
_FORMATS: dict[tuple[str, str], LandmarkFormat] = {}


def register_format(
    suffix: str,
    reader: Reader | None = None,
    writer: Writer | None = None,
    *,
    name: str | None = None,
    table_reader: TableReader | None = None,
    table_writer: Writer | None = None,
    fits: Callable[[Any], bool] | None = None,
    space: Literal["index", "world"] | None = None,
    only_named: bool = False,
    companions: Sequence[str] = (),
    supersedes: Sequence[str] = (),
) -> None:
    """Register the functions that read and write files with a suffix.

    A function receives those of the options ``names``, ``image``, ``images``, ``coordinate_system``, ``row_faults``,
    ``find_image``, ``assumptions`` and ``form`` (of ``read_landmark_sets`` and related functions) that it has a parameter for.

    Args:
        suffix: suffix in any case, for example ``".csv"``, ``".mrk.json"`` or ``"_label.npy"``. If several suffixes fit
            a file, the longest is chosen.
        reader: ``reader(path) -> LandmarkSet``; None if the format cannot be read.
        writer: ``writer(path, landmark_set)``; None if the format cannot be written.
        name: name of the format; by default the suffix without its dot. A format may have several suffixes. A format
            with the same name and suffix is replaced.
        table_reader: ``table_reader(path)`` for files of many images. It returns the landmark set of each image by
            name, or under None that of a file that names no image.
        table_writer: ``table_writer(path, sets)``.
        fits: for a suffix of several formats, ``fits(content)`` returns whether a file has this format. The content is
            the parsed JSON of a ``.json`` file, and the text of any other file. A format without ``fits`` takes the
            files that fit no other format; a suffix has at most one such format, and a new one replaces the old one.
        space: ``"index"`` or ``"world"`` if the format can only hold such points.
        only_named: choose this format only by its name, never by the suffix of a file.
        companions: names of files that accompany a file of this format and hold no landmarks.
        supersedes: names of more general formats that also fit files of this format. If both fit, this format is
            chosen.

    Raises:
        ValueError: if the suffix does not begin with a dot or an underscore.
    """
    if not suffix.startswith((".", "_")) or len(suffix) < 2:
        raise ValueError(
            f"suffix is {suffix!r}; expected one that begins with a dot, such as '.csv', or an underscore."
        )
    suffix = suffix.lower()
    name = (name or suffix[1:]).lower()
    if fits is None:
        for key in [key for key, other in _FORMATS.items() if other.suffix == suffix and other.fits is None]:
            del _FORMATS[key]
    _FORMATS[suffix, name] = LandmarkFormat(
        name,
        suffix,
        reader,
        writer,
        table_reader,
        table_writer,
        fits,
        space,
        only_named,
        tuple(companions),
        tuple(supersedes),
    )


def landmark_formats() -> list[str]:
    """Return the names of the registered formats, sorted."""
    return sorted({known.name for known in _FORMATS.values()})


def landmark_suffix(path: str | os.PathLike) -> str | None:
    """Return the longest registered suffix of a file name, in lower case; None if there is none.

    Formats that are chosen only by name do not count.
    """
    name = Path(path).name.lower()
    suffixes = (known.suffix for known in _FORMATS.values() if not known.only_named)
    return max((suffix for suffix in suffixes if name.endswith(suffix)), key=len, default=None)


def needs_image(path: str | os.PathLike) -> bool:
    """Return whether the points of a file with this suffix may depend on the size of its image."""
    readers = (known.table_reader or known.reader for known in _sharing(path))
    return any(reader is not None and "find_image" in signature(reader).parameters for reader in readers)


def landmark_format(name: str, path: str | os.PathLike = "") -> LandmarkFormat:
    """Return the format with a name such as ``"labelme"``, or the only format of a suffix.

    Args:
        name: name of the format.
        path: a file. If the format has several suffixes, that of the file is chosen.

    Raises:
        ValueError: if there is no such format.
    """
    wanted = name.lower().removeprefix(".")
    found = [known for known in _FORMATS.values() if known.name == wanted]
    found = found or [known for known in _FORMATS.values() if known.suffix == f".{wanted}"]
    if len({known.name for known in found}) != 1:
        raise ValueError(f"format {name!r} is unknown; known are {landmark_formats()}.")
    file = Path(path).name.lower()
    return next((known for known in found if file.endswith(known.suffix)), found[0])


def find_landmark_files(root_dir: str | os.PathLike, format: str | None = None) -> dict[Path, str]:
    """Find the landmark files of a folder and its subfolders, sorted, each with its suffix.

    Tables that are written beside predictions and hold no points, such as ``metrics.csv``, are left out.

    Args:
        root_dir: the folder. Files whose name begins with a dot are skipped.
        format: name of the format. By default, files with the suffix of any format are found; if several formats share
            the suffix (``.json``, ``.txt``), only those whose content fits one of them.

    Raises:
        ValueError: if a folder cannot be read.
    """
    files = [path for path in sorted(walk_folder(root_dir)) if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if not _is_companion(path) and not _is_beside_predictions(path)]
    if format is not None:
        suffixes = {known.suffix for known in _FORMATS.values() if known.name == landmark_format(format).name}
        found = {path: [suffix for suffix in suffixes if path.name.lower().endswith(suffix)] for path in files}
        return {path: max(fitting, key=len) for path, fitting in found.items() if fitting}
    return {path: suffix for path in files if (suffix := landmark_suffix(path)) and _may_be_landmarks(path, suffix)}


def leave_out_predictions(files: Mapping[Path, str]) -> tuple[dict[Path, str], list[str]]:
    """Leave out ``predictions.csv`` if its folder has files of single images, which hold the same points.

    A person may have corrected them, but not the table.

    Args:
        files: landmark files, each with its suffix, from :func:`find_landmark_files`.

    Returns:
        the other files, and one sentence per table that is left out.
    """
    folders = {path.parent for path, suffix in files.items() if suffix != ".csv"}
    tables = [path for path in files if path.name == "predictions.csv" and path.parent in folders]
    return {path: suffix for path, suffix in files.items() if path not in tables}, [
        f"{path}: is left out, because the files beside it hold the points of single images, which may be corrected."
        for path in tables
    ]


def find_foreign_files(root_dir: str | os.PathLike) -> list[str]:
    """Return one sentence per file of a folder that holds annotations of a program whose files are not read."""
    files = [path for path in sorted(walk_folder(root_dir)) if path.suffix.lower() in _FOREIGN_SUFFIXES]
    return [f"{path}: {what}" for path in files if (what := _foreign(path))]


def read_landmarks(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    names: Sequence[str] | None = None,
    image: str | os.PathLike | None = None,
) -> LandmarkSet:
    """Read the landmark set of one image.

    Args:
        path: a file in a registered format; see :mod:`monai_landmarks.data.landmarks.landmark_io`.
        format: name of the format. By default the suffix decides, and the content if several formats share the suffix.
        names: names of the points, in the order of the file, for formats without names. Default: 1, 2, ...
        image: image of the points. Required by formats whose axes are not those of the image array.

    Returns:
        the landmarks in the coordinate system of the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the format is unknown or the file is malformed, with file, row and what was expected.
    """
    sets = read_landmark_sets(path, format=format, names=names, image=image)
    if len(sets) != 1:
        raise ValueError(
            f"{os.fspath(path)}: holds {len(sets)} images; read it with read_landmark_table, which returns one set per image."
        )
    return next(iter(sets.values()))


def read_landmark_sets(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    names: Sequence[str] | None = None,
    image: str | os.PathLike | None = None,
    coordinate_system: CoordinateSystem | str | None = None,
    row_faults: list[str] | None = None,
    find_image: Callable[[str], Path | None] | None = None,
    assumptions: list[str] | None = None,
) -> dict[str | None, LandmarkSet]:
    """Read a file of one image or of many images.

    Args:
        path: the file.
        format: see :func:`read_landmarks`.
        names: see :func:`read_landmarks`.
        image: see :func:`read_landmarks`.
        coordinate_system: coordinate system of a file that does not state its own. A file that states another one is an
            error.
        row_faults: gets one sentence per faulty row of a CSV; such a row is left out. By default the first is an error.
        find_image: returns the image file with a name that the file states, or None. Required by tables whose points
            depend on the size of their images.
        assumptions: gets what is assumed, in sentences without the name of the file: the coordinate system of 3-D
            points, if it is neither stated nor given, and columns that are not read. By default they are warnings.

    Returns:
        the landmark set of each image, in the order of the file. The key is None if the file names no image.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the format is unknown or the file is malformed, with file, row and what was expected.
    """
    asked = None if coordinate_system is None else CoordinateSystem(coordinate_system)
    found = format_to_read(path, format)
    reader = found.table_reader or found.reader
    if reader is None:
        raise ValueError(f"{os.fspath(path)}: this format can be written, but not read.")
    assumed: list[str] = []
    with naming_file(path):
        result = _call(
            reader,
            Path(path),
            names=names,
            image=image,
            coordinate_system=asked,
            row_faults=row_faults,
            find_image=find_image,
            assumptions=assumed,
        )
        sets: dict[str | None, LandmarkSet] = {None: result} if isinstance(result, LandmarkSet) else result
        others = {landmark_set.coordinate_system.value for landmark_set in sets.values()} - {asked and asked.value}
        if asked is not None and others:
            raise OtherSystemError(f"holds points in {others.pop()}, but {asked} was asked for.")
    if assumptions is not None:
        assumptions += assumed
    else:
        for sentence in assumed:
            warnings.warn(f"{os.fspath(path)}: {sentence}")
    return sets


def write_landmarks(
    path: str | os.PathLike,
    landmark_set: LandmarkSet,
    *,
    format: str | None = None,
    image: str | os.PathLike | None = None,
) -> None:
    """Write the landmark set of one image.

    The file keeps the coordinate system of the set. It is written completely or not at all. Its folder is created if it
    does not exist.

    Args:
        path: a file name with a registered suffix; see :mod:`monai_landmarks.data.landmarks.landmark_io`.
        landmark_set: the landmarks.
        format: name of the format. Required if several formats share the suffix and none is the default, as for
            ``.json``.
        image: image of the points, for formats that store something about it.

    Raises:
        ValueError: if the format is unknown or cannot hold the landmarks.
    """
    found = format_to_write(path, format)
    if found.writer is None and found.table_writer is None:
        raise ValueError(f"{os.fspath(path)}: this format can be read, but not written.")
    with naming_file(path), atomic_write(path) as temporary:
        if found.writer is not None:
            _call(found.writer, temporary, landmark_set, image=image)
        else:
            key = landmark_set.image or (image and Path(image).name)
            if not key:
                raise ValueError("the landmark set has no image name, which a table of images requires.")
            assert found.table_writer is not None
            images = {key: image} if image else None
            _call(found.table_writer, temporary, {key: landmark_set}, images=images)


def read_landmark_table(
    path: str | os.PathLike,
    coordinate_system: CoordinateSystem | str | None = None,
    *,
    format: str | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, LandmarkSet]:
    """Read the landmarks of many images from one file, such as a CSV in long or wide form, or COCO keypoints.

    Args:
        path: the file.
        coordinate_system: coordinate system of a file that does not state its own. A file that states another one is an
            error.
        format: name of the format. By default the suffix decides, and the content if several formats share the suffix.
        names: names of the points, in the order of the file, for formats without names. Default: 1, 2, ...

    Returns:
        the landmark set of each image, in the order of the file. All sets have the same names; a landmark that only
        other images have is missing (NaN).

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is malformed, with file, line and what was expected.
    """
    sets = read_landmark_sets(path, format=format, names=names, coordinate_system=coordinate_system)
    if None in sets:
        raise ValueError(
            f"{os.fspath(path)}: holds the landmark set of one image, and no column or entry names it; use read_landmarks."
        )
    return cast(dict[str, LandmarkSet], sets)


def write_landmark_table(
    path: str | os.PathLike,
    sets: Mapping[str, LandmarkSet],
    form: Literal["long", "wide"] = "long",
    *,
    format: str | None = None,
    images: Mapping[str, str | os.PathLike] | None = None,
) -> None:
    """Write the landmarks of many images to one file.

    Args:
        path: the file. It is written completely or not at all.
        sets: landmark set of each image.
        form: form of a CSV: ``"long"``, one row per landmark, or ``"wide"``, one row per image.
        format: name of the format. Required if several formats share the suffix and none is the default, as for
            ``.json``.
        images: image files, by the keys of ``sets``, for formats that store something about them.

    Raises:
        ValueError: if the format is unknown or holds one image per file; if the sets differ in coordinate system or
            dimension, or their left-right pairs contradict each other.
    """
    found = format_to_write(path, format)
    if found.table_writer is None:
        raise ValueError(
            f"{os.fspath(path)}: files of this format hold the landmark set of one image; use write_landmarks."
        )
    with naming_file(path), atomic_write(path) as temporary:
        _call(found.table_writer, temporary, sets, form=form, images=images)


def _call(function: Callable[..., Any], *args: Any, names: Sequence[str] | None = None, **optional: Any) -> Any:
    """Call a function of a format with those options that it has a parameter for."""
    known = signature(function).parameters
    if names is not None and "names" not in known:
        raise ValueError("files of this format store the names of their landmarks; give names only for other formats.")
    given = {**optional, "names": names}
    return function(*args, **{key: value for key, value in given.items() if key in known and value is not None})


def format_to_read(path: str | os.PathLike, name: str | None = None) -> LandmarkFormat:
    """Return the format of a file: the named one, or the one that suffix and content determine.

    Raises:
        FileNotFoundError: if several formats share the suffix and the file does not exist.
        ValueError: if the format is unknown, or the content fits no format or several.
    """
    if name is not None:
        return landmark_format(name, path)
    candidates = _sharing(path)
    if len(candidates) == 1:
        return candidates[0]
    usual = next((known for known in candidates if known.fits is None), None)
    with naming_file(path):
        try:
            content = _content(Path(path))
        except UnicodeDecodeError:
            raise
        except ValueError:
            if usual is None:
                raise
            return usual
        if what := foreign_file(content):
            raise ValueError(what)
        fitting = [known for known in candidates if known.fits is not None and known.fits(content)]
        superseded = {name for known in fitting for name in known.supersedes}
        fitting = [known for known in fitting if known.name not in superseded]
        if len(fitting) > 1:
            names = [known.name for known in fitting]
            raise ValueError(f"its content fits the formats {names}; choose one with format=.")
        if not fitting and usual is None:
            names = [known.name for known in candidates]
            raise ValueError(f"its content fits none of the formats of this suffix, {names}.")
    return fitting[0] if fitting or usual is None else usual


def format_to_write(path: str | os.PathLike, name: str | None = None) -> LandmarkFormat:
    """Return the format for a new file: the named one, or the default of its suffix.

    Raises:
        ValueError: if the format is unknown, or several formats share the suffix and none is the default.
    """
    if name is not None:
        return landmark_format(name, path)
    candidates = _sharing(path)
    usual = [known for known in candidates if known.fits is None]
    if not usual and len(candidates) > 1:
        names = [known.name for known in candidates]
        raise ValueError(f"{os.fspath(path)}: this suffix belongs to the formats {names}; choose one with format=.")
    return (usual or candidates)[0]


def _sharing(path: str | os.PathLike) -> list[LandmarkFormat]:
    suffix = landmark_suffix(path)
    if suffix is None:
        if what := _foreign(Path(path)):
            raise ValueError(f"{os.fspath(path)}: {what}")
        suffixes = sorted({known.suffix for known in _FORMATS.values() if not known.only_named})
        raise ValueError(f"{os.fspath(path)}: no landmark format has this suffix; known are {suffixes}.")
    return [known for known in _FORMATS.values() if known.suffix == suffix and not known.only_named]


def _foreign(path: Path) -> str:
    """Return what a file of another program is; empty if it is not known, or is no text."""
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        return "is a workbook of a spreadsheet program; save its table as 'CSV UTF-8'."
    if path.suffix.lower() in (".tsv", ".tab"):
        return "is a table with tabs; give it the suffix .csv to read it."
    try:
        return foreign_file(_content(path)) if path.is_file() else ""
    except (OSError, ValueError):
        return ""


def _content(path: Path) -> Any:
    if path.name.lower().endswith(".json"):
        return load_json(read_text(path))
    return read_text(path, _MOST_TEXT)  # enough to recognize a format


def _is_companion(path: Path) -> bool:
    """Return whether a file accompanies a landmark file in the same folder."""
    formats = [known for known in _FORMATS.values() if path.name in known.companions and known.fits]
    beside = [other for other in path.parent.iterdir() if other != path and other.is_file()] if formats else []
    return any(_fits(other, known) for known in formats for other in beside if other.name.endswith(known.suffix))


def _is_beside_predictions(path: Path) -> bool:
    """Return whether a table is written beside predictions and holds no points."""
    if path.name in _NO_LANDMARKS:
        return True
    return path.name.endswith("_std.csv") and path.with_name(path.name[: -len("_std.csv")] + ".csv").is_file()


def _fits(path: Path, known: LandmarkFormat) -> bool:
    try:
        return known.fits is not None and known.fits(_content(path))
    except ValueError:
        return False


def _may_be_landmarks(path: Path, suffix: str) -> bool:
    candidates = _sharing(path)
    if any(known.fits is None for known in candidates):
        return True
    try:
        content = _content(path)
    except ValueError:
        return suffix.endswith(".json")  # the reader will state what is wrong
    return not foreign_file(content) and any(known.fits is not None and known.fits(content) for known in candidates)


register_format(".csv", None, write_csv, table_reader=read_csv_table, table_writer=write_csv_table)
register_format(".csv", read_napari, write_napari, name="napari", fits=is_napari, space="index")
register_format(".csv", name="payer", table_reader=read_payer, table_writer=write_payer, fits=is_payer)
register_format("_label.npy", read_mml, name="mml", space="index")
register_format(".npz", read_npz, write_npz)
register_format(".mrk.json", read_markups, write_markups, space="world")
register_format(".json", read_markups, write_markups, name="mrk.json", fits=is_markups, space="world")
register_format(".json", read_labelme, write_labelme, name="labelme", fits=is_labelme, space="index")
register_format(".json", name="coco", table_reader=read_coco, table_writer=write_coco, fits=is_coco, space="index")
register_format(
    ".json",
    name="nnlandmark.json",
    table_reader=read_voxel_table,
    table_writer=write_voxel_table,
    fits=is_voxel_table,
    space="index",
)
register_format(".json", name="labelstudio", table_reader=read_label_studio, fits=is_label_studio, space="index")
register_format(".tps", table_reader=read_tps, name="tps")
register_format(".fcsv", read_fcsv, write_fcsv, space="world")
register_format(".fcsv", read_afids, write_afids, name="afids", fits=is_afids, space="world")
register_format(".pts", read_elastix, write_elastix, name="elastix", space="world")
register_format(".txt", read_elastix, write_elastix, name="elastix", fits=is_elastix, space="world")
for _suffix in (".nii.gz", ".nii"):
    register_format(
        _suffix, read_label_cubes, write_label_cubes, name="nnlandmark", fits=None, space="index", only_named=True
    )
