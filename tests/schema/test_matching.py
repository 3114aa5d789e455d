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

"""Landmarks of a schema under other spellings."""

from __future__ import annotations

import pytest

from monai_landmarks.schema import Landmark, LandmarkSchema, load_landmark_schema, match_landmarks

CEPH = load_landmark_schema("cephalometric_19")


def test_names_in_any_order():
    names = list(reversed(CEPH.names))
    match = match_landmarks(CEPH, names)
    assert match.names(names) == CEPH.names and match.unknown == match.absent == () and match.note(CEPH) == ""


def test_abbreviations():
    names = [landmark.abbreviation or "" for landmark in CEPH.landmarks]
    match = match_landmarks(CEPH, names)
    assert match.columns == tuple(range(19)) and match.abbreviated == tuple(zip(names, CEPH.names))
    assert "A as subspinale_A, B as supramentale_B" in match.note(CEPH)


def test_one_small_letter_is_no_abbreviation():
    """Points labeled a, b, c, ... are not A, B, S and N of a cephalogram."""
    labels = [chr(ord("a") + n) for n in range(19)]
    match = match_landmarks(CEPH, labels)
    assert match.columns == (None,) * 19 and match.unknown == tuple(labels)
    longer = [landmark for landmark in CEPH.landmarks if len(landmark.abbreviation or "") > 1]
    match = match_landmarks(CEPH, [(landmark.abbreviation or "").lower() for landmark in longer])
    assert [name for name, column in zip(CEPH.names, match.columns) if column is not None] == [m.name for m in longer]


@pytest.mark.parametrize(
    "given, expected",
    [
        ("Sella", "sella"),
        ("subspinale-a", "subspinale_A"),
        ("Soft Tissue Pogonion", "soft_tissue_pogonion"),
        ("POG'", "soft_tissue_pogonion"),
        ("Pog", "pogonion"),
        (" ANS ", "anterior_nasal_spine"),
    ],
)
def test_spellings(given, expected):
    match = match_landmarks(CEPH, [given])
    assert [name for name, found in zip(CEPH.names, match.names([given])) if found] == [expected]


def test_what_fits_nothing_is_named():
    match = match_landmarks(CEPH, ["S", "bregma", "N"])
    assert match.unknown == ("bregma",) and len(match.absent) == 17
    assert "S as sella, N as nasion; " in match.note(CEPH)
    assert "does not have the landmarks bregma" in match.note(CEPH)
    assert "orbitale, porion, subspinale_A, supramentale_B, pogonion and 12 more" in match.note(CEPH)


def test_what_is_ambiguous_is_not_matched():
    schema = LandmarkSchema("two", 2, (Landmark("left eye", "E"), Landmark("Left_Eye", "e")))
    assert match_landmarks(schema, ["LEFT EYE"]).unknown == ("LEFT EYE",)
    assert match_landmarks(schema, ["left eye"]).columns == (0, None)
    assert match_landmarks(schema, ["e", "E"]).columns == (1, 0)
    # two names for one landmark: the exact one is taken
    assert match_landmarks(CEPH, ["S", "sella"]).columns[0] == 1
