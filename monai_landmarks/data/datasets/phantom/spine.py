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
"""Schematic CT of a lumbar spine with 20 exact landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_landmarks.data.datasets.phantom.spine_anatomy import (
    SPINE_LANDMARKS,
    SPINE_PAIRS,
    SpinePose,
    Vertebra,
    spine_vertebrae,
)
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet
from monai_landmarks.spaces import affine_spacing, points_to_index

__all__ = ["spine_phantom"]

# Hounsfield units
AIR, FAT, MUSCLE, DISC, FLUID = -1000, -95, 55, 85, 15
SHELL = 1.4  # mm of dense bone around each vertebra


def spine_phantom(
    rng: np.random.Generator | int,
    size: Sequence[int] = (64, 64, 96),
    spacing: Sequence[float] = (2.0, 2.0, 2.0),
    oblique: float = 0.0,
    crop: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, LandmarkSet]:
    """Draw a lumbar spine and simulate its CT.

    Args:
        rng: random number generator, or its seed.
        size: voxels along the three axes.
        spacing: voxel size in mm.
        oblique: largest rotation of the image axes against the patient's axes, around each axis, in degrees.
        crop: probability that the field of view is too high or too low and cuts off one or two vertebrae.

    Returns:
        int16 volume (x, y, z) in Hounsfield units; its affine (4, 4) from index to RAS world in mm; its landmarks in
        RAS world with their left-right pairs. A landmark outside the volume is missing.

    Example:
        >>> volume, affine, landmarks = spine_phantom(3, size=(32, 32, 48), spacing=(4, 4, 4))
        >>> volume.shape, affine.shape, len(landmarks), landmarks.names[0]
        ((32, 32, 48), (4, 4), 20, 'L1_body_center')
    """
    rng = np.random.default_rng(rng)
    pose = SpinePose.random(rng)
    vertebrae = spine_vertebrae(pose)
    found = {name: point for vertebra in vertebrae for name, point in vertebra.landmarks.items()}
    points = np.array([found[name] for name in SPINE_LANDMARKS])
    affine = _field_of_view(points, size, spacing, oblique, crop, rng)
    origin = rng.uniform(-60, 60, 3).round(1)  # the origin of a scanner is not in L3
    volume = _scan(vertebrae, pose, size, affine, rng)

    affine[:3, 3] += origin
    affine = affine.astype(np.float32).astype(np.float64)  # NIfTI headers have single precision
    world = points + origin
    index = points_to_index(world, affine)
    world[((index < -0.5) | (index > np.asarray(size) - 0.5)).any(1)] = np.nan
    return volume, affine, LandmarkSet(SPINE_LANDMARKS, world, CoordinateSystem.RAS, SPINE_PAIRS)


def _field_of_view(
    points: np.ndarray,
    size: Sequence[int],
    spacing: Sequence[float],
    oblique: float,
    crop: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return an affine (4, 4) whose volume holds all points (N, 3), or is centered on them if it is too small."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-oblique, oblique, 3))):
        step, (i, j) = np.eye(3), [d for d in range(3) if d != axis]
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    along, step_size = points @ turn, np.asarray(spacing, float)
    extent = np.asarray(size) * step_size
    low, high = along.min(0), along.max(0)
    free = np.maximum(extent - (high - low) - 2 * 6.0, 0)
    start = (low + high - extent) / 2 + rng.uniform(-0.5, 0.5, 3) * free
    if rng.random() < crop:
        shift = (high[2] - low[2]) * rng.uniform(0.15, 0.35)
        start[2] = high[2] - shift - extent[2] if rng.random() < 0.5 else low[2] + shift
    affine = np.eye(4)
    affine[:3, :3] = turn * step_size
    affine[:3, 3] = turn @ (start + step_size / 2)
    return affine


def _scan(
    vertebrae: list[Vertebra], pose: SpinePose, size: Sequence[int], affine: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the Hounsfield units (int16) of all voxels."""
    axes = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in size), indexing="ij", sparse=True)
    world = [_weighted(row[:3], axes) + np.float32(row[3]) for row in affine[:3]]
    voxel = float(affine_spacing(affine, 3).mean())
    volume = _soft_tissue(world, pose, rng)
    trabecular, cortical = rng.uniform(130, 230), rng.uniform(650, 950)
    inverse = np.linalg.inv(affine)
    soft: list[tuple[tuple[slice, slice, slice], np.ndarray, float]] = []
    hard: list[tuple[tuple[slice, slice, slice], np.ndarray, float]] = []
    for vertebra in vertebrae:
        window = _window(vertebra, inverse, size)
        if window is None:
            continue
        local = [grid[window].ravel() - c for grid, c in zip(world, vertebra.center.astype(np.float32))]
        local = [_weighted(axis, local) for axis in vertebra.frame]
        depth, disc, canal = _vertebra_depth(vertebra, local)
        # soft parts first: a disc belongs to two vertebrae and must not cover either of them
        soft += [(window, disc, DISC), (window, canal, FLUID)]
        hard += [(window, depth, cortical), (window, depth - SHELL, trabecular)]
    for window, depth, value in soft + hard:
        _cover(volume[window], depth.reshape(volume[window].shape), value, voxel)
    volume += rng.uniform(12, 38) * rng.standard_normal(volume.shape, dtype=np.float32)
    return np.clip(np.rint(volume), -1024, 3071).astype(np.int16)


def _weighted(weights: np.ndarray, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the weighted sum of three arrays in single precision."""
    a, b, c = weights.astype(np.float32)
    return a * arrays[0] + b * arrays[1] + c * arrays[2]


def _cover(region: np.ndarray, depth: np.ndarray, value: float, voxel: float) -> None:
    """Fill, in place, where the depth is positive; border voxels are filled partly."""
    region += np.clip(0.5 + depth / np.float32(voxel), 0, 1) * (np.float32(value) - region)


def _window(vertebra: Vertebra, inverse: np.ndarray, size: Sequence[int]) -> tuple[slice, slice, slice] | None:
    """Return the voxels that a vertebra with its disc may touch; None if it is outside the volume."""
    reach = [
        vertebra.body,
        -vertebra.body,
        np.array([0, 0, vertebra.half_pitch]),
        -np.array([0, 0, vertebra.half_pitch]),
    ]
    margin = max(max(r0, r1) for *_, r0, r1 in vertebra.capsules)
    reach += [end for capsule in vertebra.capsules for end in capsule[:2]]
    low, high = np.min(reach, 0) - margin, np.max(reach, 0) + margin
    corners = np.array(np.meshgrid(*zip(low, high))).reshape(3, -1).T @ vertebra.frame + vertebra.center
    index = corners @ inverse[:3, :3].T + inverse[:3, 3]
    start = np.clip(np.floor(index.min(0)), 0, size).astype(int)
    stop = np.clip(np.ceil(index.max(0)) + 1, 0, size).astype(int)
    if (start >= stop).any():
        return None
    return slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2])


def _vertebra_depth(vertebra: Vertebra, local: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the depth of each point in the bone, its discs and the canal behind it, in mm; negative outside."""
    r, a, u = local
    width, depth, height = (np.float32(v) for v in vertebra.body)
    # an oval, concave toward the canal, with a waist; the end plates are concave too
    rho = np.sqrt((r / width) ** 2 + ((a + 0.12 * depth) / depth) ** 2 + 1e-6)
    # in the midline the front and the back wall are equally far from the center
    hollow = 0.22 * depth * np.exp(-((r / (0.55 * width)) ** 2))
    side = np.minimum((1 - rho) * depth * 1.15, a + 1.1 * depth - hollow)
    waist = 2.2 * (1 - np.clip(u / height, -1, 1) ** 2)
    plate = height - np.abs(u) - 1.6 * np.clip(1 - rho**2, 0, 1)
    # a rounded edge where side and plate meet
    edge, x, y = np.float32(3.0), side - waist, plate
    corner = edge - np.hypot(np.minimum(x - edge, 0), np.minimum(y - edge, 0))
    bone = np.where((x < edge) & (y < edge), corner, np.minimum(x, y))
    disc = np.minimum(side - 0.8, vertebra.half_pitch + 0.5 - np.abs(u))
    canal = np.minimum(7.0 - np.hypot(r / 1.15, a + 1.42 * depth), vertebra.half_pitch + 0.5 - np.abs(u))
    for start, end, r0, r1 in vertebra.capsules:
        edge_vector = (end - start).astype(np.float32)
        q = [p - np.float32(s) for p, s in zip(local, start)]
        t = np.clip(_weighted(edge_vector, q) / (edge_vector @ edge_vector), 0, 1)
        distance = np.sqrt(sum((p - t * e) ** 2 for p, e in zip(q, edge_vector)))
        bone = np.maximum(bone, np.float32(r0) + t * np.float32(r1 - r0) - distance)
    return bone, disc, canal


def _soft_tissue(world: list[np.ndarray], pose: SpinePose, rng: np.random.Generator) -> np.ndarray:
    """Render skin, fat, the muscles along the spine, aorta, vena cava and bowel. They follow the curve of the spine."""
    z = world[2]
    x0, y0 = pose.axis(z)
    x, y = (world[0] - x0) / pose.scale, (world[1] - y0) / pose.scale

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return (1 - np.sqrt(((np.abs(x) if cx > 0 else x) - abs(cx)) ** 2 / rx**2 + (y - cy) ** 2 / ry**2)) * min(
            rx, ry
        )

    thick = rng.uniform(6, 18)
    trunk = (1 - np.sqrt((x / 155) ** 2 + ((y - 42 + thick / 2) / (110 + thick / 2)) ** 2)) * 110
    volume = np.full(trunk.shape, AIR, np.float32)
    _cover(volume, trunk, FAT, 2.0)
    _cover(volume, trunk - thick, MUSCLE - 8, 3.0)
    _cover(volume, ellipse(0, 66, 110, 62), FAT, 4.0)  # the cavity in front of the spine
    _cover(volume, ellipse(31, -42, 24, 17), MUSCLE, 2.0)
    _cover(volume, -np.abs(ellipse(31, -42, 25.5, 18.5)) + 0.8, FAT + 30, 2.0)
    growth = np.clip(1 - (z / pose.scale + 70) / 160, 0.25, 1.1)  # the psoas gets thicker downward
    _cover(volume, (1 - np.hypot((np.abs(x) - 35) / (17 * growth), (y + 3) / (20 * growth))) * 15, MUSCLE + 5, 2.0)
    contrast = rng.choice([45, rng.uniform(150, 320)])
    vessel = -9.0, 29.0
    _cover(volume, 9.0 - np.hypot(x - vessel[0], y - vessel[1]), contrast, 2.0)
    _cover(volume, 10.0 - np.hypot((x - 13) / 1.2, y - 28), 45 + 0.4 * (contrast - 45), 2.0)
    for _ in range(5):  # bowel, some of it with gas
        center = rng.uniform((-70, 48, -90), (70, 75, 90))
        radius = rng.uniform(10, 22)
        distance = np.sqrt((x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2 / 2)
        _cover(volume, radius - distance, 35, 2.0)
        if rng.random() < 0.5:
            _cover(volume, np.minimum(radius - 4 - distance, y - center[1]), -850, 2.0)
    return volume
