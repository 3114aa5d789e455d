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

"""World coordinates of NIfTI images on whose header readers disagree.

A header has two transforms to the world, qform and sform, each with a code that is 0 if the transform is not given, and
a unit of length. nibabel takes the sform, then the qform, then a guess, and ignores the unit. ITK, and so 3D Slicer and
ITK-SNAP, takes a transform only if it is a rotation and a voxel size, always takes the voxel size from ``pixdim``,
prefers the sform only if its code is 1 or there is no qform, has another guess, and converts to mm. It mirrors an axis
whose voxel size is negative, and takes 1 for a size that is 0 or no number. Annotations are drawn and predictions are
opened in such viewers, so this package follows ITK wherever both differ. ITK 5.4 cannot open NIfTI-2.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from monai_landmarks.spaces import affine_spacing, picture_affine

__all__ = ["NiftiWorld", "nifti_world", "read_nifti_world"]

_METER, _MICRON = 1, 3
_UNIT_IN_MM = {_METER: 1e3, _MICRON: 1e-3}  # other codes count as mm, as in ITK
_UNIT_NAMES = {_METER: "meter", _MICRON: "micron"}
_QUATERNION = ("quatern_b", "quatern_c", "quatern_d")
_SIZE_OF_NIFTI2 = 540
_SCANNER = 1  # sform code for which ITK prefers the sform to the qform
_APART = 0.1  # voxels; quaternions are rounded, and large images move by some hundredths
_ORTHONORMAL = 1e-4  # tolerance of ITK
_ITK = "viewers built on ITK, such as 3D Slicer"

_KEEP_ITK = (
    "python -c \"import SimpleITK as s; s.WriteImage(s.ReadImage('old.nii.gz'), 'new.nii.gz')\" keeps the place in these"
    " viewers"
)
_KEEP_NIBABEL = (
    "python -c \"import nibabel as n; i = n.load('old.nii.gz'); i.set_qform(i.affine, 1); i.set_sform(i.affine, 1); "
    "n.save(i, 'new.nii.gz')\" keeps that of nibabel"
)
_NIFTI2 = (
    f'The file is NIfTI-2, which {_ITK}, cannot open. To write it as NIfTI-1: python -c "import nibabel as n; '
    "n.save(n.Nifti1Image.from_image(n.load('old.nii.gz')), 'new.nii.gz')\"."
)
_MEND = f"To write a file on which all readers agree: {_KEEP_ITK}; {_KEEP_NIBABEL}."


class NiftiWorld(NamedTuple):
    """World coordinates of a NIfTI image.

    Args:
        affine: (4, 4), from index to RAS mm.
        size_note: what to know about the voxel size; empty if there is nothing.
        place_note: where readers put the image at different places, with how to mend it; empty if they agree.
    """

    affine: np.ndarray
    size_note: str = ""
    place_note: str = ""


def read_nifti_world(path: str | os.PathLike) -> NiftiWorld:
    """Read the world coordinates of a NIfTI file; see :func:`nifti_world`. The voxels are not read."""
    state = os.stat(path)
    return _read(os.fspath(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _read(path: str, _mtime: int, _size: int) -> NiftiWorld:
    import nibabel as nib

    image: Any = nib.load(path)
    holder = image.file_map.get("header", image.file_map["image"])
    with holder.get_prepare_fileobj("rb") as file:  # as it is: nibabel mends voxel sizes when it loads an image
        return nifti_world(type(image.header).from_fileobj(file, check=False))


def nifti_world(header: Any) -> NiftiWorld:
    """Return the world coordinates of an image with a header, as ITK reads them.

    If ITK and nibabel agree within 0.1 voxel, the affine is that of nibabel. If ITK cannot read the header, because its
    only transform shears the image, the affine is that of nibabel too, and a note says so. A NIfTI-2 header, which ITK
    does not read, is treated as the same header of NIfTI-1.

    Args:
        header: NIfTI header of nibabel, as it is in the file.

    Raises:
        ValueError: if the affine is singular, or the plane of a 2-D image is not the x-y plane of the world.
    """
    world = _nifti_world(header)
    if int(header["sizeof_hdr"]) == _SIZE_OF_NIFTI2:
        return world._replace(place_note=f"{_NIFTI2} {world.place_note}".strip())
    return world


def _nifti_world(header: Any) -> NiftiWorld:
    shape = header.get_data_shape()[:3]
    unit = int(header["xyzt_units"]) & 7
    to_mm = np.diag([*[_UNIT_IN_MM.get(unit, 1.0)] * 3, 1.0])
    mended = type(header)(header.binaryblock, header.endianness)  # as nibabel loads it
    nibabel, itk = to_mm @ mended.get_best_affine(), _itk_affine(header)
    itk = None if itk is None else to_mm @ itk
    size_note = (
        f"The unit of the header is {_UNIT_NAMES[unit]}; lengths are converted to mm." if unit in _UNIT_NAMES else ""
    )
    if len(shape) == 2:
        if itk is None or not _invertible(itk):
            raise ValueError(
                "the 2-D image does not lie in the x-y plane of the world, so that its points cannot be 2-D; save it as a"
                " volume of one slice."
            )
        # viewers put a 2-D image at z = 0
        nibabel = np.block([[nibabel[:2, :2], np.zeros((2, 1)), nibabel[:2, 3:]], [np.eye(4)[2:]]])
    elif itk is None:
        if not _invertible(nibabel):
            raise ValueError(
                "the header has no valid affine: qform_code is 0, and the sform is singular. Write a valid affine with"
                " nibabel's set_sform and set_qform."
            )
        note = (
            f"The sform is not a rotation and a voxel size, and there is no qform; {_ITK}, cannot open the file or show it at"
            " another place. Here, the sform is used. Resample the image to a grid without shear, for example with"
            " nibabel.processing.resample_to_output."
        )
        return NiftiWorld(nibabel, size_note, note)
    agree = _corner_distance(itk, nibabel, shape) <= _APART
    size_note = f"{size_note} {_size_note(header, itk, nibabel, len(shape))}".strip()
    return NiftiWorld(nibabel if agree else itk, size_note, _place_note(header, itk, nibabel, shape, to_mm))


def _place_note(header: Any, itk: np.ndarray, nibabel: np.ndarray, shape: Sequence[int], to_mm: np.ndarray) -> str:
    q_code, s_code = int(header["qform_code"]), int(header["sform_code"])
    if q_code <= 0 and s_code <= 0:
        return (
            f"The header does not state where the image is (qform_code and sform_code are 0). {_ITK[0].upper()}{_ITK[1:]}, put"
            f" its first voxel at the origin, and so does this package; nibabel puts its center there. {_MEND}"
        )
    if not np.isfinite(nibabel).all():
        return (
            f"nibabel finds no place for the image, because its voxel size is no number; this package puts it where {_ITK}, do."
            f" To write a file on which all readers agree: {_KEEP_ITK}."
        )
    if _corner_distance(itk, nibabel, shape) > _APART:
        used, other = "the qform" if q_code > 0 else "the voxel size of pixdim", "the sform"
        viewers = f"as do {_ITK}"
        if q_code > 0 and _differ_by_axes(itk, nibabel):
            # ITK compares the left singular vectors only, whose signs depend on rounding
            viewers = f"{_ITK}, may use either of both, since their axes are parallel"
        return (
            f"qform (code {q_code}) and sform (code {s_code}) put the image at places that are up to"
            f" {_corner_distance(itk, nibabel, shape, mm=True):.3g} mm apart. This package uses {used}, {viewers};"
            f" nibabel uses {other}. {_MEND}"
        )
    if q_code > 0 and s_code > 0 and len(shape) == 3:
        q_form = to_mm @ _qform(header)
        if _corner_distance(q_form, nibabel, shape) > _APART:
            return (
                f"qform (code {q_code}) and sform (code {s_code}) put the image at places that are up to"
                f" {_corner_distance(q_form, nibabel, shape, mm=True):.3g} mm apart. This package uses the sform, as do"
                f" nibabel and ITK 5.4; older {_ITK}, use the qform. {_MEND}"
            )
    return ""


def _size_note(header: Any, itk: np.ndarray, nibabel: np.ndarray, dims: int) -> str:
    used, other = (affine_spacing(affine, dims) for affine in (itk, nibabel))
    sform = f"; the sform has {_sizes(other)} mm" if not np.allclose(used, other, rtol=1e-2, equal_nan=True) else ""
    sform = sform if np.isfinite(other).all() else ""
    stated = np.asarray(header["pixdim"][1 : dims + 1], dtype=np.float64)
    if not ((stated > 0) & np.isfinite(stated)).all():
        return (
            f"pixdim is {_sizes(stated)}: as in ITK, a negative size mirrors its axis, and 1 is used for a size that is 0 or no"
            f" number{sform}."
        )
    return sform and f"pixdim states a voxel size of {_sizes(used)} mm, which is used, as in ITK{sform}."


def _sizes(steps: np.ndarray) -> str:
    return " x ".join(f"{step:.4g}" for step in steps)


def _itk_affine(header: Any) -> np.ndarray | None:
    """Return the affine that ITK uses, in the unit of the header; None if it refuses the header."""
    dims = min(3, len(header.get_data_shape()))
    steps = _steps(header)[:dims]
    q_code, s_code = int(header["qform_code"]), int(header["sform_code"])
    if q_code <= 0 and s_code <= 0:
        return picture_affine(steps)
    form = _qform(header) if q_code > 0 else None
    if s_code > 0 and (form is None or s_code == _SCANNER):
        sform = np.asarray(header.get_sform(), dtype=np.float64)
        form = sform if _is_rotation(sform) else form
    if form is None:
        return None
    result = np.eye(4)
    lengths = np.linalg.norm(form[:dims, :dims], axis=0)
    result[:dims, :dims] = form[:dims, :dims] / np.where(lengths > 0, lengths, 1.0) * steps
    result[:dims, 3] = form[:dims, 3]
    return result


def _steps(header: Any) -> np.ndarray:
    """Return the voxel size (3,) of ``pixdim``, as ITK reads it."""
    steps = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    return np.where(np.isfinite(steps) & (steps != 0), steps, 1.0)


def _qform(header: Any) -> np.ndarray:
    """Return the transform of the quaternion, as ITK reads it."""
    header = header.copy()
    header["pixdim"][:4] = [-1 if header["pixdim"][0] < 0 else 1, *np.abs(_steps(header))]
    for field in (*_QUATERNION, "qoffset_x", "qoffset_y", "qoffset_z"):
        if not np.isfinite(header[field]):  # counts as 0 in ITK
            header[field] = 0
    length = np.linalg.norm([float(header[field]) for field in _QUATERNION])
    if length > 1:  # no rotation has this quaternion: ITK scales it, and nibabel refuses it
        for field in _QUATERNION:
            header[field] = header[field] / length
    return np.asarray(header.get_qform(), dtype=np.float64)


def _differ_by_axes(one: np.ndarray, two: np.ndarray) -> bool:
    """Return whether two forms have the same origin, and the same axes in another direction or order."""
    if not np.allclose(one[:3, 3], two[:3, 3], atol=1e-3):
        return False
    first, second = (form[:3, :3] / np.linalg.norm(form[:3, :3], axis=0) for form in (one, two))
    turns = np.abs(first.T @ second)
    return bool(np.abs(turns - turns.round()).max() < 1e-3)


def _is_rotation(form: np.ndarray) -> bool:
    """Return whether the axes of a form are orthogonal, as ITK requires it."""
    lengths = np.linalg.norm(form[:3, :3], axis=0)
    if not (np.isfinite(form).all() and (lengths > 0).all()):
        return False
    axes = form[:3, :3] / lengths
    return bool(np.abs(axes @ axes.T - np.eye(3)).max() <= _ORTHONORMAL)


def _corner_distance(one: np.ndarray, other: np.ndarray, shape: Sequence[int], mm: bool = False) -> float:
    """Return the largest distance between the places of a corner voxel, in voxels of ``one`` or in mm."""
    corners = np.array(
        [[*corner, *[0] * (3 - len(shape)), 1] for corner in itertools.product(*((0, n - 1) for n in shape))]
    )
    difference = (other - one) @ corners.T
    if mm:
        return float(np.linalg.norm(difference[:3], axis=0).max())
    return float(np.abs(np.linalg.solve(one, difference)[:3]).max()) if _invertible(one) else np.inf


def _invertible(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all()) and np.linalg.matrix_rank(affine[:3, :3]) == 3
