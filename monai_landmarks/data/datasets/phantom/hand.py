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
"""Schematic radiographs of a left hand with 37 exact landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_landmarks.data.datasets.phantom.hand_anatomy import HAND_LANDMARKS, HandPose, Skeleton, hand_skeleton
from monai_landmarks.data.datasets.phantom.radiograph import Canvas, blur, smoothstep
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

__all__ = ["hand_phantom", "hand_spacing", "place_hand", "render_hand"]

FIELD_OF_VIEW = (200.0, 236.0)  # mm: an adult hand with the wrist and some air around it


def hand_spacing(size: Sequence[int]) -> float:
    """Return the pixel size in mm at which a hand fills an image of ``size`` (x, y) pixels.

    Example:
        >>> hand_spacing((256, 256))
        0.921875
    """
    return max(extent / n for extent, n in zip(FIELD_OF_VIEW, size))


def place_hand(
    skeleton: Skeleton,
    extent: Sequence[float],
    center: Sequence[float] = (0.5, 0.5),
    scale: float = 1,
    rotation: float = 0,
) -> Skeleton:
    """Move a hand from its own frame into the image plane, with all landmarks at least 6 mm inside.

    Args:
        skeleton: result of :func:`hand_skeleton`.
        extent: width and height of the image plane in mm.
        center: position of the hand within the free space, 0 (left, top) to 1 (right, bottom).
        scale: size of the hand, reduced if it does not fit.
        rotation: clockwise rotation in degrees.

    Returns:
        the skeleton in the image plane (mm, y downward).
    """
    margin, angle = 6.0, np.deg2rad(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1.0, -1.0])
    turned = skeleton.landmarks @ turn.T
    low, high = turned.min(0), turned.max(0)
    free = np.asarray(extent) - 2 * margin
    scale = float(min(scale, *(free / (high - low))))
    shift = margin + np.asarray(center) * (free - scale * (high - low)) - scale * low
    return skeleton.moved(scale * turn, shift)


def render_hand(skeleton: Skeleton, size: Sequence[int], spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Simulate the radiograph of a hand in the image plane.

    Args:
        skeleton: skeleton in the image plane.
        size: pixels along x and y.
        spacing: pixel size in mm.
        rng: random number generator for exposure, contrast, blur, noise, marker and collimation.

    Returns:
        float32 image (size[0], size[1]) between 0 (air) and 1.
    """
    canvas = Canvas(size, spacing)
    cortical = rng.uniform(0.085, 0.125)
    canvas.add_soft_tissue(skeleton.chains, attenuation=rng.uniform(0.016, 0.026))
    for bone in skeleton.bones:
        canvas.add_bone(bone, cortical)

    # trabeculae: band-limited noise that only bone shows
    grain = rng.standard_normal(canvas.bone.shape, dtype=np.float32)
    grain = blur(grain, 0.7 / spacing) - blur(grain, 1.8 / spacing)
    bone = canvas.bone * (1 + rng.uniform(0.03, 0.08) * grain / (grain.std() + 1e-6))
    soft = blur(canvas.soft, max(0.5, 0.5 / spacing))
    attenuation = blur(bone + soft, max(0.35, rng.uniform(0.2, 0.6) / spacing))

    # the beam is stronger on one side; photon noise, slightly blurred in the detector
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.12)
    width, height = np.asarray(size) * spacing
    ramp = np.cos(angle) * (canvas.x[:, None] / width - 0.5) + np.sin(angle) * (canvas.y / height - 0.5)
    noise = blur(rng.standard_normal(bone.shape, dtype=np.float32), 0.5)
    dose = np.exp(-attenuation) * (1 + slope * ramp)
    dose *= 1 + rng.uniform(0.004, 0.016) * noise * np.exp(attenuation / 2)

    # the displayed image: dense tissue is bright, broad differences are reduced, some scatter surrounds the hand
    image = -np.log(np.maximum(dose, 1e-3))
    image += rng.uniform(0, 0.1) * blur(canvas.soft, 9 / spacing)
    image -= rng.uniform(0.15, 0.4) * blur(attenuation, 14 / spacing) * smoothstep(attenuation, 0, 0.4)
    image = 1 - np.exp(-rng.uniform(1.1, 1.7) * (image + rng.uniform(0.02, 0.08)))
    bright = np.quantile(image[::2, ::2], 0.995) / rng.uniform(0.88, 1.02)
    image = np.clip(image / bright, 0, 1) ** rng.uniform(0.85, 1.25)

    if rng.random() < 0.5:
        image = _add_marker(image, skeleton, canvas, rng)
    if rng.random() < 0.3:
        image = _collimate(image, skeleton, canvas, rng)
    return np.clip(image, 0, 1).astype(np.float32)


def _add_marker(image: np.ndarray, skeleton: Skeleton, canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Add a lead letter "L" in the corner farthest from the hand."""
    extent = np.array([canvas.x[-1], canvas.y[-1]])
    corners = (0.1 + 0.8 * np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) + rng.uniform(-0.03, 0.03, (4, 2))) * extent
    tissue = np.concatenate([points for points, _ in skeleton.chains])
    room = np.sqrt(((corners[:, None] - tissue) ** 2).sum(-1)).min(1)
    if room.max() < 34:
        return image
    x, y = canvas.x[:, None] - corners[room.argmax(), 0], canvas.y - corners[room.argmax(), 1]
    angle = np.deg2rad(rng.normal(0, 6))
    x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    upright = np.maximum(np.abs(x + 3.5) - 1.4, np.abs(y) - 7)
    foot = np.maximum(np.abs(x) - 4.9, np.abs(y - 5.6) - 1.4)
    cover = np.clip(0.5 - np.minimum(upright, foot) / canvas.spacing, 0, 1)
    return image + cover * (rng.uniform(0.75, 0.95) - image)


def _collimate(image: np.ndarray, skeleton: Skeleton, canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Add shutters that limit the beam to a slightly rotated rectangle, which contains all landmarks."""
    angle = np.deg2rad(rng.normal(0, 2))
    middle = np.array([canvas.x.mean(), canvas.y.mean()])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (skeleton.landmarks - middle) @ turn
    x, y = canvas.x[:, None] - middle[0], canvas.y - middle[1]
    u, v = x * turn[0, 0] + y * turn[1, 0], x * turn[0, 1] + y * turn[1, 1]
    outside = np.full(image.shape, -np.inf)
    for w, p, half in ((u, points[:, 0], middle[0]), (v, points[:, 1], middle[1])):
        low, high = rng.uniform(0.0, 1.3, 2)
        outside = np.maximum(outside, (-half * low + min(p.min() - 8 + half * low, 0)) - w)
        outside = np.maximum(outside, w - (half * high + max(p.max() + 8 - half * high, 0)))
    return image + smoothstep(outside, -0.8, 0.8) * (rng.choice([0.01, 0.03, 0.92]) - image)


def hand_phantom(
    rng: np.random.Generator | int, size: Sequence[int] = (256, 256), spacing: float | None = None
) -> tuple[np.ndarray, LandmarkSet]:
    """Draw a hand and simulate its radiograph.

    Args:
        rng: random number generator, or its seed.
        size: pixels along x and y.
        spacing: pixel size in mm. By default an adult hand fills the image (``hand_spacing``).

    Returns:
        float32 image (x, y) between 0 and 1, and its 37 landmarks in index coordinates (whole numbers at pixel
        centers).

    Example:
        >>> image, landmarks = hand_phantom(7)
        >>> image.shape, len(landmarks), landmarks.names[-1]
        ((256, 256), 37, 'distal_phalanx_5_tip')
    """
    rng = np.random.default_rng(rng)
    spacing = hand_spacing(size) if spacing is None else spacing
    skeleton = place_hand(
        hand_skeleton(HandPose.random(rng)),
        extent=[n * spacing for n in size],
        center=rng.uniform(0.1, 0.9, 2).tolist(),
        scale=rng.uniform(0.86, 1.06),
        rotation=float(np.clip(rng.normal(0, 7), -18, 18)),
    )
    image = render_hand(skeleton, size, spacing, rng)
    points = skeleton.landmarks / spacing - 0.5
    return image, LandmarkSet(HAND_LANDMARKS, points, CoordinateSystem.INDEX)
