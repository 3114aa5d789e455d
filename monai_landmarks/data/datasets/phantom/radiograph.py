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
"""Rendering of schematic X-ray images: analytic shapes, path lengths through them, attenuation.

All lengths are millimeters in the image plane, ``x`` to the right and ``y`` downward. Pixel ``(i, j)`` has its center
at ``((i + 0.5) * spacing, (j + 0.5) * spacing)``. Arrays are ``(x, y)``, as MONAI's ``PILReader`` returns them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Bone", "Canvas", "blur", "closed_spline", "smoothstep"]


@dataclass(frozen=True)
class Bone:
    """A bone: its outline in the image plane, and what attenuates the rays inside.

    Args:
        outline: closed polygon (K, 2), mm.
        half_thickness: half the depth of the bone along the rays, mm.
        cortex: thickness of the dense shell at the ends of the bone and in its shaft, mm.
        marrow: attenuation of the inside (1 / mm) at the ends and in the shaft.
        axis: the two end points (2, 2) of a long bone; None for a short bone, which has no shaft.
        growth_plate: position along the axis and thickness of the layer of cartilage in a growing bone, mm.
    """

    outline: np.ndarray
    half_thickness: float
    cortex: tuple[float, float]
    marrow: tuple[float, float]
    axis: np.ndarray | None = None
    growth_plate: tuple[float, float] = (0.0, 0.0)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def closed_spline(control: np.ndarray, samples: int = 4) -> np.ndarray:
    """Return a closed Catmull-Rom spline (K * samples, 2) through the points ``control`` (K, 2)."""
    p0, p1, p2, p3 = (np.roll(control, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))
    t = (np.arange(samples) / samples)[None, :, None]
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return curve.reshape(-1, 2)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a 2-D array with a Gaussian of ``sigma`` pixels, with replicated border. A wide one uses a coarser grid."""
    coarse = int(sigma // 2)
    if coarse > 1:
        padded = np.pad(image, [(0, -n % coarse) for n in image.shape], mode="edge")
        rows, columns = (n // coarse for n in padded.shape)
        small = blur(padded.reshape(rows, coarse, columns, coarse).mean((1, 3)), sigma / coarse)
        for axis in (0, 1):
            at = np.clip((np.arange(image.shape[axis]) + 0.5) / coarse - 0.5, 0, small.shape[axis] - 1)
            low = np.minimum(at.astype(int), max(small.shape[axis] - 2, 0))
            weight = np.expand_dims((at - low).astype(image.dtype), 1 - axis)
            high = np.minimum(low + 1, small.shape[axis] - 1)
            small = (1 - weight) * small.take(low, axis) + weight * small.take(high, axis)
        return small
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-6)) ** 2)
    kernel = (kernel / kernel.sum()).astype(image.dtype)
    for axis in (0, 1):
        n = image.shape[axis]
        padded = np.pad(image, [(radius, radius) if d == axis else (0, 0) for d in (0, 1)], mode="edge")
        result = np.zeros_like(image)
        for k, w in enumerate(kernel):
            result += w * (padded[k : k + n] if axis == 0 else padded[:, k : k + n])
        image = result
    return image


def signed_distance(x: np.ndarray, y: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Return the distance of points (P,), (P,) from the border of a closed polygon (K, 2), positive inside."""
    corner, edge = polygon.astype(x.dtype), (np.roll(polygon, -1, axis=0) - polygon).astype(x.dtype)
    px, py = x[:, None] - corner[:, 0], y[:, None] - corner[:, 1]
    t = np.clip((px * edge[:, 0] + py * edge[:, 1]) / (edge**2).sum(1), 0, 1)
    squared = ((px - t * edge[:, 0]) ** 2 + (py - t * edge[:, 1]) ** 2).min(1)
    # a point is inside if the number of edges on one side of it is odd
    below, above = py >= 0, py < edge[:, 1]
    crossed = (below == above) & ((edge[:, 0] * py > edge[:, 1] * px) == below)
    inside = np.logical_xor.reduce(crossed, axis=1)
    return np.where(inside, 1, -1) * np.sqrt(squared)


class Canvas:
    """Image plane on which the attenuation along each ray is summed.

    Args:
        size: pixels along x and y.
        spacing: pixel size, mm.
    """

    def __init__(self, size: Sequence[int], spacing: float) -> None:
        self.spacing = float(spacing)
        self.x, self.y = ((np.arange(n, dtype=np.float32) + 0.5) * np.float32(spacing) for n in size)
        self.bone = np.zeros(tuple(size), np.float32)
        self.soft = np.zeros(tuple(size), np.float32)

    def window(self, points: np.ndarray, margin: float) -> tuple[slice, slice]:
        """Return the part of the canvas that holds the points (K, 2) and a margin in mm; empty if it is outside."""
        low, high = points.min(0) - margin, points.max(0) + margin
        x, y = (slice(*np.searchsorted(grid, (low[d], high[d]))) for d, grid in enumerate((self.x, self.y)))
        return x, y

    def grid(self, window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y (mm) of the pixels of a window as flat arrays."""
        x, y = np.meshgrid(self.x[window[0]], self.y[window[1]], indexing="ij")
        return x.ravel(), y.ravel()

    def add_bone(self, bone: Bone, cortical: float) -> None:
        """Add the attenuation of a bone whose shell attenuates by ``cortical`` (1 / mm)."""
        window = self.window(bone.outline, self.spacing)
        x, y = self.grid(window)
        depth = signed_distance(x, y, bone.outline)
        total = self._attenuation(depth, bone, cortical, part=0)
        if bone.axis is not None:
            start, along = bone.axis[0], bone.axis[1] - bone.axis[0]
            length = float(np.sqrt(along @ along))
            u = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / length
            shaft = smoothstep(0.5 - np.abs(u / length - 0.52), 0.08, 0.3)
            total += shaft * (self._attenuation(depth, bone, cortical, part=1) - total)
            plate, thickness = bone.growth_plate
            if thickness > 0:
                width = np.hypot(thickness / 2, self.spacing / 3)
                total *= 1 - 0.75 * thickness / (2 * width) * np.exp(-(((u - plate) / width) ** 2))
        shape = tuple(s.stop - s.start for s in window)
        self.bone[window] += total.reshape(shape)

    def _attenuation(self, depth: np.ndarray, bone: Bone, cortical: float, part: int) -> np.ndarray:
        """Return the attenuation at a depth inside the outline, averaged over the width of a pixel for smooth edges."""
        cortex, half = bone.cortex[part], bone.half_thickness

        def path(d: np.ndarray, h: float) -> np.ndarray:
            return 2 * np.sqrt(np.maximum(h**2 - (h - np.clip(d, 0, h)) ** 2, 0))

        step = min(self.spacing, half) / 16
        d = np.arange(-1.5 * self.spacing, half + 1.5 * self.spacing, step)
        inner = path(d - cortex, max(half - cortex, 1e-3))
        profile = cortical * (path(d, half) - inner) + bone.marrow[part] * inner
        width = max(int(round(self.spacing / step)), 1)
        profile = np.convolve(np.pad(profile, width, mode="edge"), np.full(width, 1 / width), "same")[width:-width]
        return np.interp(depth, d, profile).astype(np.float32)

    def add_soft_tissue(self, chains: Sequence[tuple[np.ndarray, np.ndarray]], attenuation: float) -> None:
        """Add soft tissue around chains of points (K, 2) with radii (K,), merged smoothly where they meet.

        Each chain is a tube with circular cross-section whose radius changes linearly from point to point.
        """
        power = 4
        total = np.zeros_like(self.soft)
        for points, radii in chains:
            window = self.window(points, float(radii.max()))
            x, y = self.grid(window)
            squared = np.zeros_like(x)
            for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:]):
                edge = (b - a).astype(np.float32)
                px, py = x - np.float32(a[0]), y - np.float32(a[1])
                t = np.clip((px * edge[0] + py * edge[1]) / np.float32(edge @ edge), 0, 1)
                radius = np.float32(ra) + t * np.float32(rb - ra)
                np.maximum(squared, radius**2 - (px - t * edge[0]) ** 2 - (py - t * edge[1]) ** 2, out=squared)
            total[window] += (squared ** (power / 2)).reshape([s.stop - s.start for s in window])
        self.soft += np.float32(2 * attenuation) * total ** (1 / power)
