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

"""Parts of a set of images drawn at random, with images that belong together kept together."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

__all__ = ["split_images"]


def split_images(
    images: Sequence[str], fractions: Sequence[float], seed: int = 0, group_pattern: str | None = None
) -> list[list[str]]:
    """Draw parts of a set of images.

    Args:
        images: image names. Their order has no influence on what is drawn.
        fractions: size of each part to draw, as a fraction of all images; what is drawn is rounded to whole images, at
            least one where the fraction is above 0. A part is larger if the last group drawn into it is.
        seed: the same seed draws the same parts.
        group_pattern: regular expression which is searched in every name. Images with the same match (with the same
            first bracket, if it has brackets) belong together, for example to one patient, and stay together.

    Returns:
        the parts in the order of ``fractions``, and last the images that are in none of them; each in the order of
        ``images``.

    Raises:
        ValueError: if the fractions leave nothing over, or the pattern is not found in a name.

    Example:
        >>> split_images(["p1_a", "p1_b", "p2_a", "p3_a"], [0.25], seed=1, group_pattern=r"p(\\d+)")
        [['p1_a', 'p1_b'], ['p2_a', 'p3_a']]
    """
    if any(fraction < 0 for fraction in fractions) or sum(fractions) >= 1:
        raise ValueError(f"fractions are {list(fractions)}; expected numbers from 0 whose sum is below 1.")
    groups: dict[str, list[str]] = {}
    for image in images:
        groups.setdefault(_group(image, group_pattern), []).append(image)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    parts = []
    for fraction in fractions:
        size = max(1, round(fraction * len(images))) if fraction > 0 else 0
        part: list[str] = []
        while len(part) < size and order:
            part += groups[order.pop()]
        parts.append(part)
    rest = [image for group in order for image in groups[group]]
    if images and not rest:
        raise ValueError(f"{len(images)} images in {len(groups)} groups leave nothing over besides {list(fractions)}.")
    place = {image: i for i, image in enumerate(images)}
    return [sorted(part, key=place.__getitem__) for part in (*parts, rest)]


def _group(image: str, pattern: str | None) -> str:
    if pattern is None:
        return image
    match = re.search(pattern, image)
    if match is None:
        raise ValueError(f"group pattern {pattern!r} is not found in image name {image!r}.")
    return match.group(1) if match.groups() else match.group()
