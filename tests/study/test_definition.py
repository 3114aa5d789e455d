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

"""Definitions of studies: what they mean, and what is refused."""

from __future__ import annotations

import json

import pytest

from monai_landmarks.study import Budget, load_study

BASE = {"datalist": "data/list.json", "methods": ["scn"]}


def load(folder, text, suffix="yaml"):
    path = folder / f"study.{suffix}"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return load_study(path)


def test_methods_with_variants(tmp_path):
    study = load(
        tmp_path,
        """
datalist: data/list.json
methods:
  scn:
  light: {method: adaptive, settings: {width: 4, rotate: 0.3}, overrides: {"optimizer#lr": 0.1}}
settings:
  narrow: {sigma_mm: 2}
  wide: {sigma_mm: 4, width: 6}
common: {width: 8, elastic: 1}
folds: 5
seeds: 3
budget: {steps: 100}
same: [grid]
""",
    )
    assert study.datalist == tmp_path / "data/list.json" and study.seeds == (0, 1, 2) and study.same == ("grid",)
    assert study.budget == Budget("steps", 100) and str(study.budget) == "100 steps"
    found = {one.name: one for one in study.configurations}
    assert list(found) == ["scn_narrow", "scn_wide", "light_narrow", "light_wide"]
    assert found["scn_narrow"].settings == {"width": 8, "elastic": 1, "sigma_mm": 2}
    assert found["light_wide"].settings == {"width": 6, "elastic": 1, "rotate": 0.3, "sigma_mm": 4}
    assert found["light_wide"].method == "adaptive" and found["light_wide"].overrides == {"optimizer#lr": 0.1}


def test_json_and_defaults(tmp_path):
    study = load(tmp_path, {**BASE, "seeds": [7, 3], "training_sizes": [10, 5], "same": []}, "json")
    assert study.seeds == (7, 3) and study.training_sizes == (10, 5) and study.same == ()
    assert study.budget == Budget("own") and study.sections == ("training", "validation")


@pytest.mark.parametrize("stated", [{}, {"datalist": "elsewhere.json"}])
def test_a_given_datalist_replaces_that_of_the_file(tmp_path, monkeypatch, stated):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "study.json").write_text(json.dumps({"methods": ["scn"], **stated}))
    monkeypatch.chdir(tmp_path)
    assert load_study("studies/study.json", "mine.json").datalist == tmp_path / "mine.json"


@pytest.mark.parametrize(
    "more, message",
    [
        ({"method": 1}, "unknown key 'method'; expected one of budget, common, confidence"),
        ({"methods": []}, "methods: expected a list with at least one entry"),
        ({"methods": ["resnet"]}, "methods: resnet: expected one of scn, farnet, adaptive, unet"),
        ({"methods": {"scn": {"lr": 1}}}, "methods: scn: unknown key 'lr'"),
        ({"methods": {"../x": {"method": "scn"}}}, "becomes a folder"),
        ({"methods": {"a": {"method": "scn"}, "A": {"method": "scn"}}}, "two configurations have the same name"),
        ({"methods": [{"scn": {}}]}, "methods: expected text, got {'scn': {}}"),
        (
            {"methods": {"scn": {"overrides": {"seed": 7}}}},
            "scn: overrides must not change 'seed', which 'seeds' sets; remove it",
        ),
        ({"methods": {"scn": {"overrides": {"batch_size": 1}}}}, "'batch_size', which 'settings' or 'common' sets"),
        ({"folds": 1}, "folds: expected a whole number of at least 2, got 1"),
        ({"folds": True}, "folds: expected a whole number"),
        ({"folds": 2, "training_sizes": [3]}, "expected one of them"),
        ({"seeds": [1, 1]}, "'seeds' has a value twice"),
        ({"budget": {"steps": 3, "seconds": 4}}, "budget: expected {steps: N}"),
        ({"budget": {"seconds": 0}}, "budget: expected a positive number"),
        ({"same": ["size"]}, "same: expected one of grid, batch_size, augmentation"),
        ({"val_frac": 1}, "val_frac: expected a number between 0 and 1"),
        ({"common": {"max_epochs": 3}}, "the setting 'max_epochs' follows from the budget"),
        ({"common": {"close_size": [8, 8]}}, "'close_size' is of close_look.json, which a study does not train"),
        ({"symmetric": "yes"}, "symmetric: expected true or false"),
        ({"datalist": None}, "datalist: expected text"),
    ],
)
def test_refused(tmp_path, more, message):
    with pytest.raises(ValueError) as error:
        load(tmp_path, {**BASE, **more}, "json")
    assert message in str(error.value) and "study.json" in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("datalist: [", "not YAML that can be read"),
        ("- scn", "expected a mapping"),
        ("methods: [scn]", "'datalist' is missing"),
        ("datalist: !!python/object/apply:os.system [ls]\nmethods: [scn]", "not YAML that can be read"),
        ("a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdef", "bcdefg")
        ), "aliases expand"),
    ],
)  # fmt: skip
def test_refused_yaml(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, text)
