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
"""Figures of landmarks over their image."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from monai_landmarks.lazy import lazy_import
from monai_landmarks.spaces import affine_4x4, affine_of, affine_spacing, points_as_rows, to_array

from .figure import COLORS, Figure, image_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

patches = lazy_import("matplotlib.patches")
patheffects = lazy_import("matplotlib.patheffects")

__all__ = ["LandmarkPlane", "LandmarkView", "draw_image", "draw_landmarks", "draw_views", "landmark_view"]

_PLANES_3D = ((0, 1), (0, 2), (1, 2))  # (horizontal, vertical) axes
_AXIS_NAMES = "xyz"


@dataclass
class LandmarkPlane:
    """A plane of an image, as it is shown, and the landmarks in it."""

    image: np.ndarray  # (rows, columns), uint8
    extent: tuple[float, float, float, float]  # left, right, bottom, top in pixels
    aspect: float
    pred: np.ndarray  # (N, 2), (horizontal, vertical) in pixels
    truth: np.ndarray | None
    covariances: np.ndarray | None  # (N, 2, 2)
    opacity: np.ndarray  # (N,), of the predictions
    truth_opacity: np.ndarray | None  # (N,)
    title: str = ""

    @property
    def width(self) -> float:
        """Width in pixels of the horizontal axis."""
        return self.extent[1] - self.extent[0]

    @property
    def height(self) -> float:
        """Height in pixels of the horizontal axis."""
        return abs(self.extent[3] - self.extent[2]) * self.aspect


@dataclass
class LandmarkView:
    """The planes of one image and its landmarks. It is small, because it does not contain the volume.

    Args:
        planes: one plane of an image, three planes of a volume.
        title: title of the image.
        names: names of the N landmarks, or None.
    """

    planes: list[LandmarkPlane]
    title: str = ""
    names: tuple[str, ...] | None = None

    def panel_title(self, number: int) -> str:
        """Return the title of a plane. That of the first plane begins with the title of the image.

        Args:
            number: index of the plane.
        """
        texts = (self.title if number == 0 else "", self.planes[number].title)
        return ", ".join(text for text in texts if text)


def landmark_view(
    image: ArrayLike,
    points: ArrayLike,
    truth: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    covariances: ArrayLike | None = None,
    title: str = "",
    center: ArrayLike | None = None,
    spacing: float | Sequence[float] | None = None,
    max_size: int | None = None,
    window: tuple[Sequence[int], Sequence[int]] | None = None,
    affine: ArrayLike | None = None,
) -> LandmarkView:
    """Extract the parts of an image that a figure of its landmarks needs.

    Args:
        image: image (C, X, Y[, Z]) or (X, Y[, Z]) in MONAI's index order: x runs to the right, y runs down. Channels
            are averaged.
        points: predicted index points, (N, D) or (1, N, D). NaN is not drawn.
        truth: true index points, in the same form.
        names: names of the landmarks, which are written beside the points. Suitable for a few landmarks.
        covariances: covariances (N, D, D) in voxel^2, drawn as ellipses of two standard deviations.
        title: title of the image.
        center: for a volume, where its three planes cross: a point, or the index of a landmark. By default, the mean of
            the true points, or of the predicted points if there are no true ones. Points fade with their distance from
            a plane.
        spacing: voxel size along each axis. By default, it is taken from the affine.
        max_size: largest number of pixels on a side of a plane. A longer side is averaged over blocks of pixels, which
            keeps the view small.
        window: the part of the image to show: its first index along each axis, and the index after its last one.
        affine: affine of an image that is no ``MetaTensor``, from index to RAS mm. Default: the identity.

    Returns:
        The view, for :func:`draw_views` or :func:`draw_contact_sheet`.

    Raises:
        ValueError: if image and points have a different number of dimensions, if the window is not inside the image, or
            if the center is neither an index nor a point with three coordinates.
    """
    pred = points_as_rows(points)
    true = None if truth is None else points_as_rows(truth)
    dims = pred.shape[-1]
    known = affine_of(image) if affine is None else affine_4x4(affine)
    affine = np.eye(4) if known is None else known
    pixels = to_array(image)
    if pixels.ndim == dims + 1:
        pixels = pixels.mean(axis=0)
    if pixels.ndim != dims:
        raise ValueError(f"an image of shape {pixels.shape} cannot contain points with {dims} coordinates.")
    steps = affine_spacing(affine, dims) if spacing is None else np.broadcast_to(to_array(spacing), (dims,))
    covariances = None if covariances is None else to_array(covariances).reshape(len(pred), dims, dims)
    low, high = np.percentile(pixels, (0.5, 99.5))
    levels = (255 * np.clip((pixels - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)

    low, high = (np.array(ends) for ends in window or ([0] * dims, pixels.shape))
    if not ((0 <= low) & (low < high) & (high <= pixels.shape)).all():
        raise ValueError(
            f"the window from {low.tolist()} to {high.tolist()} is not inside the image of shape {pixels.shape}."
        )

    planes = []
    if dims == 2:
        planes.append(_cut(levels, pred, true, covariances, (0, 1), None, steps, False))
    else:
        cross = _center(center, pred, true, pixels.shape)
        for axes in _PLANES_3D:
            # anterior and superior are at the top, whatever the order of the axes
            direction = affine[:3, axes[1]]
            upward = direction[np.abs(direction).argmax()] >= 0
            planes.append(_cut(levels, pred, true, covariances, axes, cross, steps, upward))
    for plane, axes in zip(planes, _PLANES_3D):
        _show_part(plane, low[list(axes)], high[list(axes)], max_size)
    return LandmarkView(planes, title, None if names is None else tuple(names))


def draw_landmarks(
    image: ArrayLike, points: ArrayLike, truth: ArrayLike | None = None, width: float | None = None, **options: Any
) -> Figure:
    """Draw predicted landmarks over their image, with the true landmarks and lines for the errors.

    Args:
        image: see :func:`landmark_view`.
        points: see :func:`landmark_view`.
        truth: see :func:`landmark_view`.
        width: width of the figure in inches. By default 4 for an image and 9 for the three planes of a volume.
        options: further arguments of :func:`landmark_view`: ``names``, ``covariances``, ``title``, ``center``,
            ``spacing``, ``max_size``, ``window`` and ``affine``.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.

    Example:
        >>> figure = draw_landmarks(np.zeros((1, 64, 48)), [[10.0, 20.0]], [[12.0, 21.0]])
    """
    view = landmark_view(image, points, truth, **options)
    return draw_views([view], columns=1, width=width or (4.0 if len(view.planes) == 1 else 9.0))


def draw_views(views: Sequence[LandmarkView], columns: int | None = None, width: float = 9.0) -> Figure:
    """Draw several images with their landmarks side by side.

    Args:
        views: views from :func:`landmark_view`.
        columns: number of images per row. By default up to four images, or one volume.
        width: width of the figure in inches.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    each = max(len(view.planes) for view in views)
    columns = columns or (1 if each > 1 else min(len(views), 4))
    rows = math.ceil(len(views) / columns)
    # the planes of a volume have one scale, and a row is as tall as its tallest plane
    shares = np.array([plane.width for plane in views[0].planes] * columns)
    widths = (width - 0.2) * shares / shares.sum()
    picture = max(plane.height / plane.width * w for view in views for plane, w in zip(view.planes, widths))
    head = 0.24 if any(view.title or plane.title for view in views for plane in view.planes) else 0.05
    height = rows * (picture + head) + 0.34
    figure, panels = image_panels(
        rows,
        columns * each,
        width,
        height,
        picture,
        head=head,
        foot=0.32,
        gap=head + 0.02,
        width_ratios=shares.tolist(),
    )
    for i, view in enumerate(views):
        for k, plane in enumerate(view.planes):
            axes = panels[i // columns, (i % columns) * each + k]
            _draw_plane(axes, plane, view.names, min(widths))
            axes.set_title(view.panel_title(k), fontsize=7, pad=3, parse_math=False)
    handles, labels = _legend(panels)
    if labels:
        figure.legend(
            handles, labels, loc="lower center", ncols=len(labels), fontsize=7, facecolor="0.25", labelcolor="w",
            edgecolor="none", borderaxespad=0.3, handletextpad=0.3, columnspacing=1.4,
        )  # fmt: skip
    return figure


def _cut(
    levels: np.ndarray,
    pred: np.ndarray,
    truth: np.ndarray | None,
    covariances: np.ndarray | None,
    axes: tuple[int, int],
    cross: np.ndarray | None,
    steps: np.ndarray,
    upward: bool,
) -> LandmarkPlane:
    """Return the plane of two axes through ``cross``. The rows of its image run along the second axis."""
    title, opacity = "", np.ones(len(pred))
    truth_opacity = None if truth is None else np.ones(len(truth))
    if cross is not None:
        through = 3 - sum(axes)
        at = int(round(cross[through]))
        size = levels.shape[through]
        levels = np.take(levels, at, axis=through)
        opacity = _opacity(pred[:, through], cross[through], size)
        truth_opacity = None if truth is None else _opacity(truth[:, through], cross[through], size)
        title = f"{_AXIS_NAMES[axes[0]]}{_AXIS_NAMES[axes[1]]}, {_AXIS_NAMES[through]} = {at}"
    columns, rows = levels.shape
    bottom, top = (-0.5, rows - 0.5) if upward else (rows - 0.5, -0.5)
    pick = list(axes)
    return LandmarkPlane(
        image=levels.T,
        extent=(-0.5, columns - 0.5, bottom, top),
        aspect=float(steps[axes[1]] / steps[axes[0]]),
        pred=pred[:, pick],
        truth=None if truth is None else truth[:, pick],
        covariances=None if covariances is None else covariances[:, pick][:, :, pick],
        opacity=opacity,
        truth_opacity=truth_opacity,
        title=title,
    )


def _opacity(places: np.ndarray, plane: float, size: int) -> np.ndarray:
    """Return the opacity of points from their places (N,) along the axis through a plane, which has ``size`` slices."""
    distance = np.abs(places - plane) / size
    return np.clip(1 - 2 * np.nan_to_num(distance), 0.25, 1)


def _show_part(plane: LandmarkPlane, low: np.ndarray, high: np.ndarray, max_size: int | None) -> None:
    """Crop a plane to the part between two indices of its axes and average it down to ``max_size``."""
    levels = plane.image.T[low[0] : high[0], low[1] : high[1]]
    ends = (low[1] - 0.5, high[1] - 0.5)
    upward = plane.extent[2] < plane.extent[3]
    plane.image = _average_down(levels, max_size).T
    plane.extent = (low[0] - 0.5, high[0] - 0.5, *(ends if upward else ends[::-1]))


def _average_down(levels: np.ndarray, max_size: int | None) -> np.ndarray:
    """Average blocks of pixels so that no side has more than ``max_size`` of them."""
    if not max_size:
        return levels
    sums, sizes = levels, []
    for axis, size in enumerate(levels.shape):
        block = -(-size // max_size)  # rounded up
        # The picture covers the whole axis with equal pixels. Blocks of nearly equal size leave no remainder, and their
        # edges are within half a pixel of the edges in the picture.
        edges = np.linspace(0, size, -(-size // block) + 1).round().astype(int)
        sums = np.add.reduceat(sums, edges[:-1], axis=axis, dtype=int)
        sizes.append(np.diff(edges))
    return (sums // np.outer(*sizes)).astype(np.uint8)


def draw_image(axes: Axes, plane: LandmarkPlane) -> None:
    """Draw the image of a plane in gray, with the limits of the axes at its edges."""
    left, right, bottom, top = plane.extent
    axes.imshow(
        plane.image, cmap="gray", vmin=0, vmax=255, extent=plane.extent, aspect=plane.aspect,
        origin="upper" if bottom > top else "lower", interpolation="antialiased",
    )  # fmt: skip
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _draw_plane(axes: Axes, plane: LandmarkPlane, names: Sequence[str] | None, panel: float) -> None:
    draw_image(axes, plane)
    size = float(np.clip(1.1 * panel, 1.8, 4.0))  # of a marker in points
    if plane.truth is not None and plane.truth_opacity is not None:
        for p, t, alpha in zip(plane.pred, plane.truth, plane.opacity):
            axes.plot(*zip(p, t), color=COLORS["error"], linewidth=0.35 * size, alpha=alpha, zorder=2)
        for t, alpha in zip(plane.truth, plane.truth_opacity):
            axes.plot(
                *t, "o", markersize=1.7 * size, markerfacecolor="none", color=COLORS["truth"], markeredgewidth=0.3 * size,
                alpha=alpha, zorder=3,
            )  # fmt: skip
        if np.isfinite(plane.truth).any():
            axes.plot([], [], "o", markerfacecolor="none", color=COLORS["truth"], markersize=5, label="ground truth")
    if plane.covariances is not None:
        for p, covariance, alpha in zip(plane.pred, plane.covariances, plane.opacity):
            if np.isfinite(p).all() and np.isfinite(covariance).all():
                values, vectors = np.linalg.eigh(covariance)
                diameters = 4 * np.sqrt(np.maximum(values, 0))  # two standard deviations to either side
                angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
                axes.add_patch(
                    patches.Ellipse(
                        p,
                        diameters[1],
                        diameters[0],
                        angle=angle,
                        fill=False,
                        color=COLORS["pred"],
                        lw=0.7,
                        alpha=alpha,
                    )
                )
    for p, alpha in zip(plane.pred, plane.opacity):
        axes.plot(*p, "o", markersize=size, color=COLORS["pred"], markeredgewidth=0, alpha=alpha, zorder=4)
    if np.isfinite(plane.pred).any():
        axes.plot([], [], "o", color=COLORS["pred"], markersize=3.5, label="predicted")
    for name, p in zip(names or (), plane.pred):
        if name and np.isfinite(p).all():
            axes.annotate(
                name, p, xytext=(1.5 * size, 0), textcoords="offset points", fontsize=5.5, color="w", va="center", zorder=5,
                parse_math=False,
                path_effects=[patheffects.withStroke(linewidth=1.2, foreground="0.15")], annotation_clip=True,
            )  # fmt: skip


def _legend(panels: np.ndarray) -> tuple[list, list[str]]:
    """Return one entry per kind of mark."""
    entries: dict[str, Any] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    return list(entries.values()), list(entries)


def _center(center: Any, pred: np.ndarray, truth: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return the index where the planes of a volume cross, inside the volume."""
    known = pred if truth is None or np.isnan(truth).all() else truth
    expected = f"the index of a landmark or a point with {len(shape)} coordinates"
    if center is None:
        cross = np.nanmean(known, axis=0) if not np.isnan(known).all() else np.array(shape) / 2
    elif np.ndim(center) == 0:
        try:
            cross = known[operator.index(center)]
        except TypeError as error:
            raise ValueError(f"center must be {expected}, but is {center!r}.") from error
    else:
        cross = to_array(center)
        if cross.shape != (len(shape),):
            raise ValueError(f"center must be {expected}, but has shape {cross.shape}.")
    cross = np.where(np.isfinite(cross), cross, np.array(shape) / 2)
    return np.clip(cross, 0, np.array(shape) - 1)
