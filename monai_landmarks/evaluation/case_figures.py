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
"""Figures of single images in a report: prediction, ground truth and ellipses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_landmarks.data import CoordinateSystem, LandmarkSet, read_image
from monai_landmarks.spaces import affine_spacing
from monai_landmarks.visualize import LandmarkView, ReportPage, draw_views, landmark_view

from .landmark_sources import ImageGeometry
from .prediction_errors import EvaluatedCase, Evaluation

__all__ = ["add_case_figures", "read_pixels", "window_around"]

_ZOOM = 0.2  # side of the enlarged part, relative to the image
_MAX_SIZE = 640  # side of a picture in pixels


def add_case_figures(page: ReportPage, result: Evaluation, count: int) -> list[str]:
    """Add a section with doubtful images, the images of the largest mean error, and with images of a median mean error.

    Args:
        page: page of the report.
        result: evaluation. Images are drawn where their files are known.
        count: number of images of each kind.

    Returns:
        Reasons why images are not drawn, one sentence each.
    """
    errors = np.where(np.isfinite(result.errors), result.errors, np.nan)
    known = np.flatnonzero(np.isfinite(errors).any(axis=1)).tolist()
    if not count or not known:
        return []
    page.section("Cases")
    drawable = [b for b in known if result.cases[b].geometry.image is not None]
    if not drawable:
        note = "the image files are not known, so no image is drawn; give --images, or evaluate against a datalist."
        page.text(f"{note[0].upper()}{note[1:]}")
        return [note]
    means = {b: float(np.nanmean(errors[b])) for b in drawable}
    order = sorted(drawable, key=lambda b: -means[b])
    start = max((len(order) - count) // 2, 0)
    doubtful = [b for b in order if result.images[b] in (result.doubts or {})][:count]
    drawn = [*doubtful, *order[:count]]
    notes = []
    for heading, chosen in (
        ("Doubtful images", doubtful),
        ("Images with the largest mean error", [b for b in order[:count] if b not in doubtful]),
        ("Images with a median mean error", [b for b in order[start : start + count] if b not in drawn]),
    ):
        if chosen:
            page.heading(heading)
        for b in chosen:
            note = _draw_case(page, result, b, means[b])
            notes += [note] if note else []
    return notes


def _draw_case(page: ReportPage, result: Evaluation, b: int, mean: float) -> str:
    """Draw an image. Return the reason why it cannot be drawn, or an empty string."""
    case, image, unit = result.cases[b], result.images[b], result.unit
    n = int(np.nanargmax(np.where(np.isfinite(result.errors[b]), result.errors[b], np.nan)))
    name, error = result.names[n], result.errors[b, n]
    try:
        views = _views(case, n)
    except Exception as failure:  # image readers raise exceptions of any type
        note = f"{image}: cannot be drawn ({str(failure).strip().partition(chr(10))[0] or type(failure).__name__})."
        page.text(note)
        return note
    assert case.predicted is not None
    missed = int(np.isinf(result.errors[b]).sum())
    largest = f"{name}, {error:.2f} {unit}"
    caption = f"{image}: mean error {mean:.2f} {unit}{f', {missed} missed' if missed else ''}. Largest: {largest}"
    alt = f"{image} with predicted landmarks and ground truth. Largest error: {largest}."
    ellipses = _ellipse_caption(case.predicted)
    if len(views[0].planes) == 1:
        page.picture(draw_views(views, columns=2, width=8.4), alt, f"{caption}. Right: enlarged. {ellipses}".strip())
    else:
        page.picture(draw_views(views[:1]), alt, f"{caption}; three planes through this landmark. {ellipses}".strip())
        page.picture(
            draw_views(views[1:]), f"The same planes, enlarged around {name}.", f"{image}: enlarged around {name}."
        )
    return ""


def _views(case: EvaluatedCase, n: int) -> list[LandmarkView]:
    """Return two views: the whole image with all landmarks, and the part around landmark n."""
    assert case.predicted is not None
    pixels, affine, (predicted, true) = read_pixels(case.geometry, [case.predicted, case.true])
    # the figure draws two standard deviations, so the axes of a region are halved
    matrices = predicted.covariances if predicted.regions is None else predicted.regions / 4
    window = window_around(np.stack([true.points[n], predicted.points[n]]), pixels.shape[1:], affine)
    return [
        landmark_view(
            pixels,
            predicted.points,
            true.points,
            names=names,
            covariances=matrices,
            center=true.points[n].tolist(),
            max_size=_MAX_SIZE,
            window=part,
            affine=affine,
        )
        for names, part in ((None, None), ([name if i == n else "" for i, name in enumerate(true.names)], window))
    ]


def window_around(
    points: np.ndarray, shape: Sequence[int], affine: np.ndarray, zoom: float = _ZOOM
) -> tuple[list[int], list[int]]:
    """Return the first index and the end index, per axis, of a square or cube with all points well inside.

    Args:
        points: (K, D), index points; at least one is known.
        shape: shape of the image.
        affine: affine of the image.
        zoom: side of the part relative to the image. It is larger where the points are far apart.
    """
    size, dims = np.array(shape), len(shape)
    steps = affine_spacing(affine, dims)
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    side = max(zoom * float(np.max(steps * size)), 2.0 * float(np.max((high - low) * steps)))
    extent = np.minimum(np.maximum(np.round(side / steps), 2), size).astype(int)
    start = np.clip(np.round(0.5 * (low + high - extent)), 0, size - extent).astype(int)
    return start.tolist(), (start + extent).tolist()


def read_pixels(
    geometry: ImageGeometry, sets: Sequence[LandmarkSet]
) -> tuple[np.ndarray, np.ndarray, list[LandmarkSet]]:
    """Return an image (C, *spatial), its affine, and landmark sets in index coordinates of the image."""
    assert geometry.image is not None
    spacing = geometry.spacing
    steps = None if spacing is None else tuple(np.broadcast_to(np.atleast_1d(spacing)[:2], (2,)).tolist())
    pixels, affine = read_image(geometry.image, steps)
    result = []
    for landmarks in sets:
        if landmarks.spatial_dims == 3 and pixels.ndim == 3:  # a single slice may lie anywhere in the world
            landmarks = landmarks.to_world(affine).with_spatial_dims(2, plane=None)
        result.append(
            landmarks if landmarks.coordinate_system == CoordinateSystem.INDEX else landmarks.to_index(affine)
        )
    while pixels.ndim > result[0].spatial_dims + 1:  # a DICOM radiograph is read as a volume of one slice
        pixels = pixels[..., 0]
    return pixels, affine, result


def _ellipse_caption(predicted: LandmarkSet) -> str:
    if predicted.regions is not None and predicted.coverage is not None:
        return f"Ellipses: regions with a stated coverage of {100 * predicted.coverage:g} %."
    return "" if predicted.covariances is None else "Ellipses: two standard deviations."
