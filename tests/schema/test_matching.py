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
    assert match_landmarks(CEPH, names).columns == tuple(range(19))
    assert match_landmarks(CEPH, [name.lower() for name in names if name not in ("S", "Sn")]).absent == (
        "sella",
        "subnasale",
    )


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
    assert "does not have the landmarks bregma" in match.note(CEPH)
    assert "orbitale, porion, subspinale_A, supramentale_B, pogonion and 12 more" in match.note(CEPH)


def test_what_is_ambiguous_is_not_matched():
    schema = LandmarkSchema("two", 2, (Landmark("left eye", "E"), Landmark("Left_Eye", "e")))
    assert match_landmarks(schema, ["LEFT EYE"]).unknown == ("LEFT EYE",)
    assert match_landmarks(schema, ["left eye"]).columns == (0, None)
    assert match_landmarks(schema, ["e", "E"]).columns == (1, 0)
    # two names for one landmark: the exact one is taken
    assert match_landmarks(CEPH, ["S", "sella"]).columns[0] == 1
