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
"""Skeleton of a lumbar spine: vertebrae on a curve, and 20 landmarks, in world RAS millimeters.

The frame of a vertebra has its origin at the center of the body. Its axes point to the patient's right, anterior, and
up along the spine. Between vertebrae the axis of the spine is a smooth curve in both planes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SPINE_LANDMARKS", "SPINE_PAIRS", "SpinePose", "Vertebra", "spine_vertebrae"]

LUMBAR = ("L1", "L2", "L3", "L4", "L5")
SPINE_LANDMARKS: tuple[str, ...] = tuple(
    f"{level}_{part}"
    for level in LUMBAR
    for part in ("body_center", "spinous_tip", "transverse_left_tip", "transverse_right_tip")
)
SPINE_PAIRS: tuple[tuple[str, str], ...] = tuple(
    (f"{level}_transverse_left_tip", f"{level}_transverse_right_tip") for level in LUMBAR
)
PITCH = 34.5  # mm from body to body

# right side of the arch behind the body: start, end, radius at both, mm in the vertebra's frame; the left is its mirror
# image
PEDICLE = ((12.5, -12, 4.5), (13.5, -24, 4.5), 4.6, 4.6)
LAMINA = ((14, -26, 2), (3, -36, -4), 4.2, 3.8)
FACETS = ((15.5, -27, 13), (14, -29, -14), 4.4, 4.8)
TRANSVERSE = ((15, -25, 3), (39, -29, 4), 4.8, 2.8)
SPINOUS = ((0, -35, -3), (0, -60, -8), 4.0, 3.6)
SPINOUS_EDGE = ((0, -36, -9), (0, -56, -15), 3.4, 3.0)
RIB = (((20, -22, 3), (48, -38, -6), 4.5, 4.2), ((48, -38, -6), (78, -26, -22), 4.2, 4.0))
ALA = (((20, -8, 3), (44, -18, -4), 13.0, 11.0), ((30, -14, -10), (36, -22, -36), 13.0, 9.0))


@dataclass(frozen=True)
class SpinePose:
    """Build and curvature of a spine.

    Args:
        scale: size of the whole spine.
        lordosis: distance of the ends of the curve behind its middle, in mm at 90 mm height.
        slope: forward lean of the whole spine, mm/mm.
        scoliosis: amplitude of the lateral wave, mm.
        phase: phase of the lateral wave, radians.
        twist: rotation of each vertebra around the axis of the spine (8,), degrees: T11, T12, L1 to L5, S1.
        stretch: factors for width, depth, height and length of the processes of each vertebra (8, 4).
    """

    scale: float
    lordosis: float
    slope: float
    scoliosis: float
    phase: float
    twist: np.ndarray
    stretch: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator) -> SpinePose:
        """Draw a random spine."""
        return cls(
            scale=rng.uniform(0.84, 1.0),
            lordosis=rng.uniform(5, 17),
            slope=rng.normal(0, 0.05),
            scoliosis=abs(rng.normal(0, 4)),
            phase=rng.uniform(0, 2 * np.pi),
            twist=np.clip(rng.normal(0, 3, 8), -7, 7),
            stretch=np.clip(rng.normal(1, [0.03, 0.03, 0.02, 0.07], (8, 4)), 0.82, 1.18),
        )

    def axis(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of the axis of the spine at height ``z`` (mm)."""
        z = np.clip(z, -110, 120)  # straight beyond these heights
        x = self.scoliosis * (np.sin(z / 42 + self.phase) - np.sin(self.phase))
        return x, self.slope * z - self.lordosis * (z / 90) ** 2


@dataclass(frozen=True)
class Vertebra:
    """One vertebra.

    Args:
        name: name of the vertebra.
        center: center of the body (3,) in world mm.
        frame: axes of the vertebra as rows (3, 3).
        body: half width, depth and height of the body, mm.
        half_pitch: half the distance from body to body, mm.
        capsules: (start, end, radius, radius) of the parts of the arch, in the frame of the vertebra, mm.
        landmarks: landmarks in world mm.
    """

    name: str
    center: np.ndarray
    frame: np.ndarray
    body: np.ndarray
    half_pitch: float
    capsules: list[tuple[np.ndarray, np.ndarray, float, float]]
    landmarks: dict[str, np.ndarray]


def spine_vertebrae(pose: SpinePose) -> list[Vertebra]:
    """Place the vertebrae T11 to S1 on the axis of the spine, with L3 at the origin.

    Args:
        pose: build and curvature of the spine.

    Returns:
        the vertebrae with their landmarks in world mm: the center of the body, and the outermost point of each process,
        on its surface and axis.
    """
    vertebrae = []
    for index, name in enumerate(("T11", "T12", *LUMBAR, "S1")):
        z = (4 - index) * PITCH * pose.scale
        center = np.array([*pose.axis(np.array(z)), z])
        step = np.array([*pose.axis(np.array(z + 1.0)), z + 1.0]) - np.array([*pose.axis(np.array(z - 1.0)), z - 1.0])
        up = step / np.linalg.norm(step)
        twist = np.deg2rad(pose.twist[index])
        right = np.array([np.cos(twist), np.sin(twist), 0])
        right -= (right @ up) * up
        right /= np.linalg.norm(right)
        frame = np.stack([right, np.cross(up, right), up])

        width, depth, height, reach = pose.stretch[index] * pose.scale
        grow = 0.9 + 0.035 * index  # vertebrae get wider downward
        body = np.array([22.5 * grow * width, 16.0 * grow * depth, 13.2 * height])
        resize = np.array([width * grow, depth * grow, height])
        capsules = []
        for start, end, r0, r1 in _arch(name):
            a, b = np.array(start) * resize, np.array(end) * resize
            if (start, end, r0, r1) != PEDICLE:
                b = a + (b - a) * reach / pose.scale
            capsules.append((a, b, r0 * pose.scale, r1 * pose.scale))
            if start[0] != 0:
                capsules.append((a * (-1, 1, 1), b * (-1, 1, 1), r0 * pose.scale, r1 * pose.scale))
        found = {}
        if name in LUMBAR:
            # the list begins with the spinous process, then the right and left transverse processes
            tips = [b + r1 * (b - a) / np.linalg.norm(b - a) for a, b, _, r1 in capsules[:3]]
            found[f"{name}_body_center"] = center
            for part, tip in zip(("spinous_tip", "transverse_right_tip", "transverse_left_tip"), tips):
                found[f"{name}_{part}"] = center + tip @ frame
        vertebrae.append(Vertebra(name, center, frame, body, PITCH * pose.scale / 2, capsules, found))
    return vertebrae


def _arch(name: str) -> list[tuple]:
    if name == "S1":
        return [*ALA, PEDICLE, LAMINA, FACETS, ((0, -4, -14), (0, -16, -36), 15.0, 11.0)]
    if name.startswith("T"):
        return [SPINOUS, PEDICLE, LAMINA, FACETS, SPINOUS_EDGE, *RIB]
    return [SPINOUS, TRANSVERSE, PEDICLE, LAMINA, FACETS, SPINOUS_EDGE]
