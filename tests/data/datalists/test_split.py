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

from __future__ import annotations

import random

import pytest

from monai_landmarks.data import build_datalist, fold_images, group_images, split_images

IMAGES = [f"p{i // 3}_{i}" for i in range(30)]


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_folds(folds):
    groups = group_images(IMAGES, r"p(\d+)")
    parts = fold_images(IMAGES, folds, seed=1, groups=groups)
    assert sorted(sum(parts, [])) == sorted(IMAGES)
    of_part = [{groups[image] for image in part} for part in parts]
    assert sum(map(len, of_part)) == len(set.union(*of_part)) == 10  # no group is in two folds
    assert max(map(len, parts)) - min(map(len, parts)) <= 3  # a group
    assert all(part == [image for image in IMAGES if image in part] for part in parts)


def test_folds_depend_on_the_seed_and_not_on_the_order():
    shuffled = random.Random(0).sample(IMAGES, len(IMAGES))
    first, again = fold_images(IMAGES, 4), fold_images(shuffled, 4)
    assert [sorted(part) for part in again] == [sorted(part) for part in first]
    assert fold_images(IMAGES, 4, seed=1) != first
    assert [len(part) for part in first] == [8, 8, 7, 7]


def test_groups_of_different_sizes_are_evened_out():
    sizes = [9, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    groups = {f"{g}-{i}": str(g) for g, size in enumerate(sizes) for i in range(size)}
    assert [len(part) for part in fold_images(list(groups), 2, groups=groups)] == [9, 9]


def test_groups_instead_of_a_pattern():
    groups = group_images(IMAGES, r"p(\d+)")
    given = split_images(IMAGES, [0.2, 0.1], seed=3, groups=groups)
    assert given == split_images(IMAGES, [0.2, 0.1], seed=3, group_pattern=r"p(\d+)")
    assert [len(part) for part in given] == [6, 3, 21]


def test_a_part_that_is_asked_for_is_not_empty():
    assert [len(part) for part in split_images(IMAGES, [0.001, 0.0])] == [1, 0, 29]


@pytest.mark.parametrize("folds, images", [(1, IMAGES), (31, IMAGES), (2, IMAGES[:3])])
def test_too_few(folds, images):
    with pytest.raises(ValueError, match=f"{len(images)} images in .* cannot be divided into {folds} folds"):
        fold_images(images, folds, groups=group_images(images, r"p\d+") if len(images) == 3 else None)


def test_the_group_of_a_pattern_with_alternatives():
    images = ["p1_a", "q1_a", "p1_b", "r"]
    assert list(group_images(images, r"(p\d+)|(q\d+)|r").values()) == ["p1", "q1", "p1", "r"]
    assert split_images(images[:3], [0.3], group_pattern=r"(p\d+)|(q\d+)")[0] in (["q1_a"], ["p1_a", "p1_b"])


def test_a_pattern_that_is_no_regular_expression():
    for images in ([], IMAGES):
        with pytest.raises(ValueError, match=r"group pattern '\(p' is not a regular expression: missing \)"):
            group_images(images, "(p")
    with pytest.raises(ValueError, match="is not a regular expression"):  # and not that there is no such folder
        build_datalist("absent", "absent.csv", group_pattern="(p")
