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
"""Articulated skeleton of a left hand seen from the back: bones, soft tissue and 37 landmarks, in millimeters.

The frame of the hand has its origin at the wrist (middle of the joint surface of the radius), ``x`` toward the thumb
and ``y`` toward the fingers. Every landmark is a point of a bone's outline, so that it is exact and visible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_landmarks.data.datasets.phantom.radiograph import Bone, closed_spline

__all__ = ["HAND_LANDMARKS", "HandPose", "Skeleton", "hand_skeleton"]

SEGMENTS = ("metacarpal", "proximal_phalanx", "middle_phalanx", "distal_phalanx")

# finger 1 is the thumb, which has no middle phalanx
LENGTH = np.array([[46, 32, 0, 22], [67, 40, 23, 16.5], [64, 44, 27, 17.5], [57, 41, 25.5, 17.5], [53, 32.5, 18.5, 16]])
# half widths at the base, in the middle of the shaft, at the head; one row per segment, scaled by the finger's girth
HALF_WIDTH = np.array([[7.2, 3.9, 7.0], [7.4, 4.3, 5.5], [6.3, 3.7, 4.6], [5.3, 2.4, 3.6]])
GIRTH = np.array([1.08, 1.02, 1.03, 0.96, 0.88])
BASE = np.array([[27.2, 30.6], [12.2, 34], [1.2, 35.6], [-9.4, 34], [-19, 31.7]])
JOINT_GAP = 1.7

# fmt: off
# outlines of the short bones and the forearm; every point lies on the drawn border, and those with a name are landmarks
CARPALS: dict[str, list[tuple]] = {
    "scaphoid": [
        (3.6, 5.3, "scaphoid_proximal"), (9.7, 3.2), (16.2, 6.8), (21, 12.9), (21.5, 17.8, "scaphoid_distal"),
        (16.8, 19), (11.3, 15.3), (6.4, 11.7),
    ],
    "lunate": [
        (-4.6, 0.8, "lunate_proximal"), (0.7, 2.1), (3.6, 6.2), (3.2, 11.3), (-1, 9.7), (-5.2, 9.9), (-9.5, 11.7),
        (-11.1, 7.2), (-9.3, 2.5),
    ],
    "triquetrum": [
        (-11.6, 5.3), (-17.7, 4.8), (-22.6, 8.1, "triquetrum_ulnar"), (-22, 14), (-17, 16.8), (-12.7, 14),
        (-10.8, 9.7),
    ],
    "pisiform": [
        (-20.1, 9.4), (-15.4, 8.8), (-13.4, 12.5), (-15.7, 16.8), (-20.1, 16.6), (-22.2, 13),
    ],
    "hamate": [
        (-8.5, 12.5, "hamate_proximal"), (-6.1, 18.5), (-5.2, 25.7), (-5.4, 31.7), (-12, 33), (-19.2, 30),
        (-21, 24.2), (-16.4, 18),
    ],
    "capitate": [
        (-2.2, 10.5, "capitate_proximal"), (3.5, 13.2), (5.7, 18.6), (7, 26.4), (6.8, 32.9), (0.8, 34.9),
        (-4.4, 33.1), (-5, 25.2), (-5.9, 17.6), (-5.5, 12.9),
    ],
    "trapezoid": [
        (8.1, 19.6), (13.8, 19.9), (17.1, 24.7), (16, 31.6), (11.5, 33.3), (7.6, 31.2), (7, 25.3),
    ],
    "trapezium": [
        (16.4, 20.2), (21.5, 19), (27.1, 21.7, "trapezium_radial"), (28.6, 26.8), (22.5, 29.9), (17.4, 31.2),
        (17.6, 26.1),
    ],
}
FOREARM: dict[str, list[tuple]] = {
    "radius": [
        (19.8, 8.5, "radius_styloid"), (14, 4.9), (7, 1.9), (0, 0.5), (-6, 0.1), (-11.2, -0.5, "radius_ulnar_corner"),
        (-11, -5.9), (-6.5, -16.9), (-3.8, -36), (-4.2, -80), (3, -110), (9.8, -80), (10.6, -38), (15, -19.9),
        (19, -9.9, "radius_radial_tubercle"), (19.6, -0.9), (21.3, 4.9),
    ],
    "ulna": [
        (-13, -5.1, "ulna_head_radial"), (-13.2, -9.4), (-15.4, -18.9), (-16, -38), (-15.4, -80), (-20, -110),
        (-25, -80), (-25.6, -40), (-26.2, -19.9), (-27.6, -9.9, "ulna_head_ulnar"), (-27, -2.4),
        (-26.2, 3.7, "ulna_styloid"), (-23.8, -0.3), (-19.5, -1.9), (-15.6, -2.3),
    ],
}
# fmt: on

HAND_LANDMARKS: tuple[str, ...] = (
    *(point[2] for outline in (*FOREARM.values(), *CARPALS.values()) for point in outline if len(point) == 3),
    *(f"metacarpal_{finger}_base" for finger in range(1, 6)),
    *(
        name
        for finger in range(1, 6)
        for name in (
            *(f"{segment}_{finger}_base" for segment in SEGMENTS[1:] if finger > 1 or segment != "middle_phalanx"),
            f"distal_phalanx_{finger}_tip",
        )
    ),
)


@dataclass(frozen=True)
class HandPose:
    """Build and pose of a hand. Angles are in degrees, clockwise from "up" in the image.

    Args:
        length: factor for the length of each bone (5 fingers, 4 segments).
        girth: factor for the width of all bones.
        direction: direction of each bone in the image plane (5, 4).
        flexion: tilt of each bone out of the image plane (5, 4), which shortens it by the cosine.
        wrist: direction of the hand against the forearm.
        shape: random displacement of the centers of the carpal outlines (8, 2), mm.
        soft: factor for the thickness of the soft tissue.
        growth_plates: 0 for an adult hand, up to 1 for a young one with wide growth plates.
    """

    length: np.ndarray
    girth: float
    direction: np.ndarray
    flexion: np.ndarray
    wrist: float
    shape: np.ndarray
    soft: float
    growth_plates: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> HandPose:
        """Draw a random hand."""
        spread, thumb = rng.uniform(0.3, 1.25), rng.uniform(0, 1)
        fingers = spread * np.array([0, 12, 1, -9, -22]) + rng.normal(0, 1.2, 5)
        metacarpals = np.array([0, 8.5, 0, -8, -17]) * (0.85 + 0.15 * spread) + rng.normal(0, 0.8, 5)
        bend = rng.normal(0, 2.2, (5, 2)) - 0.12 * fingers[:, None]
        direction = np.stack([metacarpals, fingers, fingers + bend[:, 0], fingers + bend.sum(1)], axis=1)
        opened = 26 + 22 * thumb + rng.normal(0, 2)
        proximal = opened - rng.uniform(2, 22)
        direction[0] = opened, proximal, proximal, proximal - rng.uniform(-6, 18)
        tilt = np.abs(rng.normal(0, 1, (5, 4))) * np.array([4, 9, 11, 11])
        return cls(
            length=rng.normal(1, 0.02, (5, 1)) * rng.normal(1, 0.02, (5, 4)) * rng.normal(1, 0.025),
            girth=float(np.clip(rng.normal(1, 0.06), 0.86, 1.16)),
            direction=direction,
            flexion=np.minimum(tilt, 30),
            wrist=float(np.clip(rng.normal(0, 3), -7, 7)),
            shape=np.clip(rng.normal(0, 0.25, (len(CARPALS), 2)), -0.6, 0.6),
            soft=float(np.clip(rng.normal(1, 0.06), 0.88, 1.15)),
            growth_plates=float(max(rng.uniform(-1.2, 1), 0)),
        )

    @classmethod
    def neutral(cls) -> HandPose:
        """Return the mean hand, with slightly spread fingers."""
        zero = np.zeros((5, 4))
        fan = np.array([[34, 24, 24, 18], [8.5, 9, 8, 7], [0, 1, 1, 1], [-8, -7, -6, -5], [-17, -16, -13, -11]])
        return cls(zero + 1, 1.0, fan.astype(float), zero, 0.0, np.zeros((len(CARPALS), 2)), 1.0, 0.0)


@dataclass(frozen=True)
class Skeleton:
    """Bones, soft tissue (chains of points (K, 2) with radii (K,)) and landmarks (37, 2) in one plane, mm."""

    bones: list[Bone]
    chains: list[tuple[np.ndarray, np.ndarray]]
    landmarks: np.ndarray

    def moved(self, matrix: np.ndarray, shift: np.ndarray) -> Skeleton:
        """Map all parts by ``matrix @ p + shift``, where the matrix is a similarity, possibly with mirror and scale."""

        def move(points: np.ndarray) -> np.ndarray:
            return points @ matrix.T + shift

        scale = float(np.sqrt(abs(np.linalg.det(matrix))))
        bones = [
            Bone(
                move(b.outline),
                b.half_thickness * scale,
                (b.cortex[0] * scale, b.cortex[1] * scale),
                b.marrow,
                None if b.axis is None else move(b.axis),
                (b.growth_plate[0] * scale, b.growth_plate[1] * scale),
            )
            for b in self.bones
        ]
        return Skeleton(bones, [(move(p), r * scale) for p, r in self.chains], move(self.landmarks))


def _unit(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array([np.sin(angle), np.cos(angle)])


def _long_bone_outline(segment: int, length: float, width: np.ndarray) -> np.ndarray:
    """Return the border (K, 2) of a finger bone along +x, from the middle of its base; its head ends at (length, 0)."""
    b, s, h = width
    if segment == 0:  # a square base, a round head
        base = [(-0.05 * b, 0.55 * b), (0.18 * b, 0.93 * b), (0.65 * b, 0.97 * b), (0.27 * length, 0.35 * b + 0.65 * s)]
        head = [(length - 1.75 * h, 0.72 * h), (length - 0.95 * h, 1.0 * h), (length - 0.34 * h, 0.8 * h)]
        middle = [(0.5 * length, s)]
    elif segment == 3:  # a slim shaft, a tuft
        base = [(-0.07 * b, 0.5 * b), (0.1 * b, 0.93 * b), (0.5 * b, 0.95 * b)]
        middle = [(0.36 * length, 0.3 * b + 0.7 * s), (0.6 * length, s)]
        head = [(length - 1.1 * h, 0.88 * h), (length - 0.62 * h, 1.0 * h), (length - 0.17 * h, 0.62 * h)]
    else:  # a wide, slightly hollow base, a head of two condyles
        base = [(-0.08 * b, 0.5 * b), (0.06 * b, 0.92 * b), (0.45 * b, 1.0 * b)]
        middle = [(0.26 * length, 0.45 * b + 0.55 * s), (0.55 * length, s), (0.76 * length, 0.88 * s + 0.12 * h)]
        head = [(length - 1.0 * h, 0.97 * h), (length - 0.3 * h, 0.95 * h), (length + 0.06 * h, 0.5 * h)]
    side = np.array(base + middle + head)
    return np.concatenate([[(0, 0)], side, [(length, 0)], side[::-1] * (1, -1)])


def hand_skeleton(pose: HandPose) -> Skeleton:
    """Assemble the bones of a hand, finger by finger from the wrist outward.

    Args:
        pose: build and pose of the hand.

    Returns:
        the skeleton in the frame of the hand (mm, y toward the fingers), with landmarks in the order of
        ``HAND_LANDMARKS``.
    """
    bones: list[Bone] = []
    chains: list[tuple[np.ndarray, np.ndarray]] = []
    found: dict[str, np.ndarray] = {}

    turn = np.deg2rad(pose.wrist)
    wrist = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    for name, outline in FOREARM.items():
        control = np.array([p[:2] for p in outline]) @ wrist.T
        found.update({p[2]: control[k] for k, p in enumerate(outline) if len(p) == 3})
        ends = np.array([[0.0, 0.0], [0.0, -150.0]]) @ wrist.T
        plate = (6.5 if name == "radius" else 5.0, 1.7 * pose.growth_plates)
        half = 8.0 if name == "radius" else 6.0
        bones.append(Bone(closed_spline(control), half, (0.8, 2.6), (0.03, 0.014), ends, plate))
    for (name, outline), offset in zip(CARPALS.items(), pose.shape):
        control = np.array([p[:2] for p in outline]) + offset
        found.update({p[2]: control[k] for k, p in enumerate(outline) if len(p) == 3})
        bones.append(Bone(closed_spline(control), 1.2 if name == "pisiform" else 7.0, (0.6, 0.6), (0.036, 0.036)))

    for finger in range(5):
        start = BASE[finger]
        joints = [start]
        for segment, name in enumerate(SEGMENTS):
            if LENGTH[finger, segment] == 0:
                continue
            tilt = np.deg2rad(pose.flexion[finger, segment])
            length = LENGTH[finger, segment] * pose.length[finger, segment] * np.cos(tilt)
            width = HALF_WIDTH[segment] * GIRTH[finger] * pose.girth
            along = _unit(pose.direction[finger, segment])
            frame = np.array([along, [along[1], -along[0]]])  # rows: along the bone, toward the thumb's side
            control = _long_bone_outline(segment, length, width) @ frame + start
            end = start + length * along
            found[f"{name}_{finger + 1}_base"] = start
            cortex = (0.7, 0.4 * width[1])
            plate = length - 1.25 * width[2] if finger and not segment else 0.55 * width[0]
            axis, growth = np.array([start, end]), (plate, 1.3 * pose.growth_plates)
            bones.append(Bone(closed_spline(control), 1.1 * width[1], cortex, (0.036, 0.01), axis, growth))
            if (finger, segment) == (0, 0):  # the sesamoid bone at the thumb
                oval = np.array([(0, -2.4), (1.7, 0), (0, 2.4), (-1.7, 0)]) @ frame + end + (-6.6, -4) @ frame
                bones.append(Bone(closed_spline(oval), 1.5, (0.5, 0.5), (0.03, 0.03)))
            following = pose.direction[finger, min(segment + 1, 3)]
            start = end + JOINT_GAP * _unit((pose.direction[finger, segment] + following) / 2)
            joints.append((start + end) / 2)
        found[f"distal_phalanx_{finger + 1}_tip"] = end
        radii = np.array([15.5, 12.2, 10.6, 9.2, 7.0]) if finger else np.array([16.0, 13.0, 11.5, 7.8])
        joints[-1] = end - 1.5 * along
        chains.append((np.array(joints), radii * pose.soft * (0.9 + 0.1 * GIRTH[finger])))
    # muscles at the thumb and the edge of the little finger, web between thumb and index finger, wrist and forearm
    forearm = np.array(
        [[[9.0, 22.0], [7.0, -4.0], [4.5, -60.0], [7.0, -130.0]], [[-13, 20], [-14, -4], [-13, -60], [-15, -130]]]
    )
    forearm[:, 1:] = forearm[:, 1:] @ wrist.T
    chains += [(p, np.array([17.5, 16.5, 18.5, 23]) * pose.soft) for p in forearm]
    thumb, index, little = (chains[k][0] for k in (0, 1, 4))
    web = np.array(
        [0.45 * thumb[0] + 0.55 * thumb[1], 0.55 * index[0] + 0.45 * index[1], 0.25 * index[0] + 0.75 * index[1]]
    )
    chains.append((web, np.array([13.0, 15, 10]) * pose.soft))
    edge = np.array([[-16, 18], 0.5 * (little[0] + little[1]) + (-2, 0)])
    chains.append((edge, np.array([13.0, 12]) * pose.soft))
    return Skeleton(bones, chains, np.array([found[name] for name in HAND_LANDMARKS]))
