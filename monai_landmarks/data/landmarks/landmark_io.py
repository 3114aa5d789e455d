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

"""Landmark files, read and written by the format that belongs to their suffix, or that is named.

=================  ==============================  =====================================================================
format             suffix                          what
=================  ==============================  =====================================================================
``csv``            ``.csv``                        names and points of one image or of many
``mrk.json``       ``.mrk.json``, ``.json``        point list of 3D Slicer
``fcsv``           ``.fcsv``                       point list of 3D Slicer, its older format
``afids``          ``.fcsv``                       the 32 AFIDs, under their numbers
``elastix``        ``.pts``, ``.txt``              points of elastix and transformix
``labelme``        ``.json``                       points drawn in LabelMe
``coco``           ``.json``                       COCO keypoints of many images
``verse``          ``.json``                       vertebra centroids of VerSe; needs the image
``napari``         ``.csv``                        points layer of napari
``payer``          ``.csv``                        wide table of many images without header, as Payer's projects have it
``isbi2015``       ``.txt``                        annotation of the ISBI 2015 cephalograms
``aasce``          ``.csv``                        vertebra corners of AASCE 2019, beside its images; can only be read
``mml``            ``_label.npy``                  mandibular molar landmarks; can only be read
``npz``            ``.npz``                        arrays of NumPy
``nnlandmark``     ``.nii.gz``, ``.nii``           label map with a cube a landmark; has to be named, for images end so, too
``nnlandmark.json``  ``.json``                     nnLandmark's voxel coordinates of many images
=================  ==============================  =====================================================================

Formats which share a suffix are told apart by what the file holds. Those of public benchmarks are registered in
:mod:`monai_landmarks.data.datasets`.

To add a format, write two functions and register them::

    register_format(".pts", reader=read_pts, writer=write_pts)

The reader takes a path and gives a :class:`LandmarkSet`; a ``ValueError`` of it need not name the file. The writer
takes a path and a landmark set; it may write as it likes, because what it writes becomes the file only once it is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import atomic_write, naming_file, read_text
from monai_landmarks.data.landmarks.formats.afids import is_afids, read_afids, write_afids
from monai_landmarks.data.landmarks.formats.coco import is_coco, read_coco, write_coco
from monai_landmarks.data.landmarks.formats.csv_format import read_csv_table, write_csv, write_csv_table
from monai_landmarks.data.landmarks.formats.elastix import is_elastix, read_elastix, write_elastix
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

from .landmark_set import CoordinateSystem, LandmarkSet

__all__ = [
    "LandmarkFormat",
    "find_landmark_files",
    "format_to_read",
    "format_to_write",
    "landmark_format",
    "landmark_formats",
    "landmark_suffix",
    "read_landmark_sets",
    "read_landmark_table",
    "read_landmarks",
    "register_format",
    "write_landmark_table",
    "write_landmarks",
]

Reader = Callable[..., LandmarkSet]
Writer = Callable[..., None]
TableReader = Callable[..., Mapping[Any, LandmarkSet]]


class LandmarkFormat(NamedTuple):
    """How files of one suffix are read and written, see :func:`register_format`."""

    name: str
    suffix: str
    reader: Reader | None
    writer: Writer | None
    table_reader: TableReader | None
    table_writer: Writer | None
    fits: Callable[[Any], bool] | None
    space: str | None
    only_named: bool
    companions: tuple[str, ...]
    supersedes: tuple[str, ...]


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
    space: str | None = None,
    only_named: bool = False,
    companions: Sequence[str] = (),
    supersedes: Sequence[str] = (),
) -> None:
    """Read and write files which end in ``suffix`` with these functions.

    Functions may have the parameters ``names``, ``image``, ``images``, ``coordinate_system`` and ``form`` of
    :func:`read_landmarks` and its like; they then get what was given there.

    Args:
        suffix: such as ``".csv"``, ``".mrk.json"`` or ``"_label.npy"``, in any case; of several that fit a file, the longest
            wins.
        reader: ``reader(path) -> LandmarkSet``, or None if the format cannot be read.
        writer: ``writer(path, landmark_set)``, or None if the format cannot be written.
        name: of the format; the suffix without its dot if not given. One format may have several suffixes; a name that
            was registered for this suffix before is replaced.
        table_reader: for files of many images, ``table_reader(path)`` gives the landmark set of each image by its name,
            or under None that of a file which names no image.
        table_writer: ``table_writer(path, sets)``.
        fits: for a suffix that formats share: ``fits(content)`` tells whether a file is of this format; the content is the
            parsed JSON of a ``.json`` file, and the text of any other. A format without it takes what fits no other, and
            replaces the one that did so before.
        space: ``"index"`` or ``"world"`` if the format holds such points only.
        only_named: never choose this format by the suffix of a file.
        companions: names of files that lie beside one of this format and are no landmark files themselves.
        supersedes: names of more general formats that also fit files of this one. Where both fit, this one is chosen.
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
    """Names of the registered formats, sorted."""
    return sorted({known.name for known in _FORMATS.values()})


def landmark_suffix(path: str | os.PathLike) -> str | None:
    """The longest registered suffix that a file name ends in, in lower case; None if no format fits.

    Suffixes of formats that have to be named do not count.
    """
    name = Path(path).name.lower()
    suffixes = (known.suffix for known in _FORMATS.values() if not known.only_named)
    return max((suffix for suffix in suffixes if name.endswith(suffix)), key=len, default=None)


def landmark_format(name: str, path: str | os.PathLike = "") -> LandmarkFormat:
    """The format of a name such as ``"labelme"``, or of a suffix that has one format only.

    Args:
        name: of the format.
        path: a file; of several suffixes that the format has, the one this file ends in is chosen.

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
    """The landmark files of a folder and the folders in it, sorted, each with its suffix.

    Args:
        root_dir: where to look. Files whose name begins with a dot are passed over.
        format: of the files; if not given, those which end in a suffix of any format count, but where formats share the
            suffix (``.json``, ``.txt``) only if what they hold fits one of them.
    """
    files = [path for path in sorted(Path(root_dir).rglob("*")) if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if not _is_companion(path)]
    if format is not None:
        suffixes = {known.suffix for known in _FORMATS.values() if known.name == landmark_format(format).name}
        found = {path: [suffix for suffix in suffixes if path.name.lower().endswith(suffix)] for path in files}
        return {path: max(fitting, key=len) for path, fitting in found.items() if fitting}
    return {path: suffix for path in files if (suffix := landmark_suffix(path)) and _may_be_landmarks(path, suffix)}


def read_landmarks(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    names: Sequence[str] | None = None,
    image: str | os.PathLike | None = None,
) -> LandmarkSet:
    """Read the landmark set of one image.

    Args:
        path: a file in a registered format, see :mod:`monai_landmarks.data.landmarks.landmark_io`.
        format: of the file; if not given, its suffix tells, and what it holds where formats share the suffix.
        names: names of the points, in the order of the file, for formats that do not hold them; 1, 2, ... if not given.
        image: the image of the points, which formats need that count along other axes than the image's array.

    Returns:
        the landmarks in the coordinate system of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the format is unknown or the file is malformed, with file, row and what was expected.
    """
    sets = read_landmark_sets(path, format=format, names=names, image=image)
    if len(sets) != 1:
        raise ValueError(
            f"{os.fspath(path)}: holds {len(sets)} images; read it with read_landmark_table, which gives each its own set."
        )
    return next(iter(sets.values()))


def read_landmark_sets(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    names: Sequence[str] | None = None,
    image: str | os.PathLike | None = None,
    coordinate_system: CoordinateSystem | str | None = None,
) -> dict[str | None, LandmarkSet]:
    """Read a file of one image or of many.

    Args:
        path: the file.
        format: see :func:`read_landmarks`.
        names: see :func:`read_landmarks`.
        image: see :func:`read_landmarks`.
        coordinate_system: of a file which does not state its own; one which states another is an error.

    Returns:
        the landmark set of each image, in the order of the file; the key is None for that of a file which holds one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the format is unknown or the file is malformed, with file, row and what was expected.
    """
    asked = None if coordinate_system is None else CoordinateSystem(coordinate_system)
    found = format_to_read(path, format)
    reader = found.table_reader or found.reader
    if reader is None:
        raise ValueError(f"{os.fspath(path)}: this format can be written, but not read.")
    with naming_file(path):
        result = _call(reader, Path(path), names=names, image=image, coordinate_system=asked)
        sets: dict[str | None, LandmarkSet] = {None: result} if isinstance(result, LandmarkSet) else dict(result)
        others = {landmark_set.coordinate_system.value for landmark_set in sets.values()} - {asked and asked.value}
        if asked is not None and others:
            raise ValueError(f"holds points in {others.pop()}, but {asked} was asked for.")
    return sets


def write_landmarks(
    path: str | os.PathLike,
    landmark_set: LandmarkSet,
    *,
    format: str | None = None,
    image: str | os.PathLike | None = None,
) -> None:
    """Write the landmark set of one image.

    The file keeps the coordinate system of the set. It is written whole or not at all; its folder is created if it is
    not there.

    Args:
        path: a file name with a registered suffix, see :mod:`monai_landmarks.data.landmarks.landmark_io`.
        landmark_set: what to write.
        format: of the file; necessary where formats share the suffix and none is the usual one, as for ``.json``.
        image: the image of the points, for formats that say something of it.

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
                raise ValueError("the landmark set does not name its image, which a table of images needs.")
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
        coordinate_system: of a file which does not state its own; one which states another is an error.
        format: of the file; if not given, its suffix tells, and what it holds where formats share the suffix.
        names: names of the points, in the order of the file, for formats that do not hold them; 1, 2, ... if not given.

    Returns:
        the landmark set of each image, in the order of the file. All have the same names: a landmark which other
        images have and this one does not is missing (NaN).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is malformed, with file, line and what was expected.
    """
    sets = read_landmark_sets(path, format=format, names=names, coordinate_system=coordinate_system)
    if None in sets:
        raise ValueError(
            f"{os.fspath(path)}: holds the landmark set of one image, and no column or entry names it; use read_landmarks."
        )
    return {str(image): landmark_set for image, landmark_set in sets.items()}


def write_landmark_table(
    path: str | os.PathLike,
    sets: Mapping[str, LandmarkSet],
    form: str = "long",
    *,
    format: str | None = None,
    images: Mapping[str, str | os.PathLike] | None = None,
) -> None:
    """Write the landmarks of many images to one file.

    Args:
        path: the file; it is written whole or not at all.
        sets: the landmark set of each image.
        form: of a CSV: ``"long"``, one row a landmark, or ``"wide"``, one row an image.
        format: of the file; necessary where formats share the suffix and none is the usual one, as for ``.json``.
        images: the image files, by the keys of ``sets``, for formats that say something of them.

    Raises:
        ValueError: if the format is unknown or holds one image a file; if the sets differ in coordinate system or
            dimension, or contradict each other on pairs.
    """
    found = format_to_write(path, format)
    if found.table_writer is None:
        raise ValueError(
            f"{os.fspath(path)}: files of this format hold the landmark set of one image; use write_landmarks."
        )
    with naming_file(path), atomic_write(path) as temporary:
        _call(found.table_writer, temporary, sets, form=form, images=images)


def _call(function: Callable[..., Any], *args: Any, names: Sequence[str] | None = None, **optional: Any) -> Any:
    """Call a function of a format with those of the options that it has a parameter for."""
    known = signature(function).parameters
    if names is not None and "names" not in known:
        raise ValueError("files of this format hold the names of their landmarks; names are for those that do not.")
    given = {**optional, "names": names}
    return function(*args, **{key: value for key, value in given.items() if key in known and value is not None})


def format_to_read(path: str | os.PathLike, name: str | None = None) -> LandmarkFormat:
    """The format of a file: the one named, or the one that its suffix and, if need be, what it holds tell.

    Raises:
        FileNotFoundError: if formats share the suffix, and there is no such file.
        ValueError: if the format is unknown, or no format or several fit what the file holds.
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
        except ValueError:
            if usual is None:
                raise
            return usual
        fitting = [known for known in candidates if known.fits is not None and known.fits(content)]
        superseded = {name for known in fitting for name in known.supersedes}
        fitting = [known for known in fitting if known.name not in superseded]
        if len(fitting) > 1:
            names = [known.name for known in fitting]
            raise ValueError(f"what it holds fits the formats {names}; say with format= which it is.")
        if not fitting and usual is None:
            names = [known.name for known in candidates]
            raise ValueError(f"what it holds fits none of the formats {names} that such a file may have.")
    return fitting[0] if fitting or usual is None else usual


def format_to_write(path: str | os.PathLike, name: str | None = None) -> LandmarkFormat:
    """The format in which to write a file: the one named, or the usual one of its suffix.

    Raises:
        ValueError: if the format is unknown, or formats share the suffix and none is the usual one.
    """
    if name is not None:
        return landmark_format(name, path)
    candidates = _sharing(path)
    usual = [known for known in candidates if known.fits is None]
    if not usual and len(candidates) > 1:
        names = [known.name for known in candidates]
        raise ValueError(f"{os.fspath(path)}: such a file may have one of the formats {names}; say with format= which.")
    return (usual or candidates)[0]


def _sharing(path: str | os.PathLike) -> list[LandmarkFormat]:
    suffix = landmark_suffix(path)
    if suffix is None:
        suffixes = sorted({known.suffix for known in _FORMATS.values() if not known.only_named})
        raise ValueError(f"{os.fspath(path)}: no landmark format has this suffix; known are {suffixes}.")
    return [known for known in _FORMATS.values() if known.suffix == suffix and not known.only_named]


def _content(path: Path) -> Any:
    text = read_text(path)
    return load_json(text) if path.name.lower().endswith(".json") else text


def _is_companion(path: Path) -> bool:
    """Whether a file belongs to a landmark file beside it."""
    formats = [known for known in _FORMATS.values() if path.name in known.companions and known.fits]
    beside = [other for other in path.parent.iterdir() if other != path and other.is_file()] if formats else []
    return any(_fits(other, known) for known in formats for other in beside if other.name.endswith(known.suffix))


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
        return suffix.endswith(".json")  # reading it will say what is wrong with it
    return any(known.fits is not None and known.fits(content) for known in candidates)


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
register_format(".fcsv", read_fcsv, write_fcsv, space="world")
register_format(".fcsv", read_afids, write_afids, name="afids", fits=is_afids, space="world")
register_format(".pts", read_elastix, write_elastix, name="elastix", space="world")
register_format(".txt", read_elastix, write_elastix, name="elastix", fits=is_elastix, space="world")
for _suffix in (".nii.gz", ".nii"):
    register_format(
        _suffix, read_label_cubes, write_label_cubes, name="nnlandmark", fits=None, space="index", only_named=True
    )
