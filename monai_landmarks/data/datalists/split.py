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

"""Random splits of images that keep the images of a group together."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

__all__ = ["fold_images", "group_images", "require_group_pattern", "split_images"]


def split_images(
    images: Sequence[str],
    fractions: Sequence[float],
    seed: int = 0,
    group_pattern: str | None = None,
    groups: Mapping[str, str] | None = None,
) -> list[list[str]]:
    """Draw parts of a set of images.

    Args:
        images: image names. Their order does not influence the draw.
        fractions: size of each part as a fraction of all images. It is rounded to whole images, and at least one if the
            fraction is positive. A part is larger if the last group drawn is larger than needed.
        seed: seed of the draw.
        group_pattern: regular expression that is searched in every name. Images with the same match (of the first group
            of the expression that matches, if it has groups) belong together, for example to one patient, and stay together.
        groups: group of each image, instead of a pattern.

    Returns:
        the parts in the order of ``fractions``, then the remaining images; each in the order of ``images``.

    Raises:
        ValueError: if no images remain, or the pattern is not found in a name.

    Example:
        >>> split_images(["p1_a", "p1_b", "p2_a", "p3_a"], [0.25], seed=1, group_pattern=r"p(\\d+)")
        [['p1_a', 'p1_b'], ['p2_a', 'p3_a']]
    """
    if any(fraction < 0 for fraction in fractions) or sum(fractions) >= 1:
        raise ValueError(f"fractions are {list(fractions)}; expected numbers of at least 0 whose sum is below 1.")
    members = _members(images, groups or group_images(images, group_pattern))
    order = _shuffled(members, seed)
    parts = []
    for fraction in fractions:
        size = max(1, round(fraction * len(images))) if fraction > 0 else 0
        part: list[str] = []
        while len(part) < size and order:
            part += members[order.pop()]
        parts.append(part)
    rest = [image for group in order for image in members[group]]
    if images and not rest:
        raise ValueError(
            f"{len(images)} images in {len(members)} groups are too few for the fractions {list(fractions)}: no image remains."
        )
    return [_in_order(part, images) for part in (*parts, rest)]


def fold_images(
    images: Sequence[str], folds: int, seed: int = 0, groups: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Divide images into folds of similar size for cross-validation.

    Args:
        images: image names. Their order does not influence the draw.
        folds: number of folds.
        seed: seed of the draw.
        groups: group of each image; images of a group stay together.

    Returns:
        the images of each fold, in the order of ``images``. Each image is in one fold.

    Raises:
        ValueError: if there are fewer groups than folds.

    Example:
        >>> fold_images(["1", "2", "3", "4"], 2, seed=1, groups={"1": "a", "2": "a", "3": "b", "4": "c"})
        [['1', '2'], ['3', '4']]
    """
    members = _members(images, groups or group_images(images))
    if folds < 2 or len(members) < folds:
        raise ValueError(f"{len(images)} images in {len(members)} groups cannot be divided into {folds} folds.")
    parts: list[list[str]] = [[] for _ in range(folds)]
    for group in sorted(_shuffled(members, seed), key=lambda group: -len(members[group])):
        min(parts, key=len).extend(members[group])  # largest groups first, so that small ones balance the folds
    return [_in_order(part, images) for part in parts]


def group_images(images: Sequence[str], group_pattern: str | None = None) -> dict[str, str]:
    """Return the group of each image by a pattern, as in :func:`split_images`; by default each is its own group."""
    if group_pattern is not None:
        require_group_pattern(group_pattern)
    return {image: _group(image, group_pattern) for image in images}


def require_group_pattern(group_pattern: str) -> None:
    """Raise ValueError if a group pattern is not a regular expression."""
    try:
        re.compile(group_pattern)
    except re.error as error:
        raise ValueError(f"group pattern {group_pattern!r} is not a regular expression: {error}.") from error


def _members(images: Sequence[str], groups: Mapping[str, str]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for image in images:
        members.setdefault(groups[image], []).append(image)
    return members


def _shuffled(members: Mapping[str, list[str]], seed: int) -> list[str]:
    order = sorted(members)
    random.Random(seed).shuffle(order)
    return order


def _in_order(part: list[str], images: Sequence[str]) -> list[str]:
    chosen = set(part)
    return [image for image in images if image in chosen]


def _group(image: str, pattern: str | None) -> str:
    if pattern is None:
        return image
    match = re.search(pattern, image)
    if match is None:
        raise ValueError(f"group pattern {pattern!r} is not found in image name {image!r}.")
    return next((group for group in match.groups() if group is not None), match.group())
