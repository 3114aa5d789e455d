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

"""The names that are imported at their first use."""

from __future__ import annotations

import importlib

import pytest

import monai_landmarks.evaluation as evaluation


def test_every_name_has_a_module():
    assert set(evaluation.__all__) == set(evaluation._MODULES)
    assert evaluation.__all__ == sorted(evaluation.__all__)


@pytest.mark.parametrize("name", evaluation.__all__)
def test_a_name_is_that_of_its_module(name):
    module = importlib.import_module(f"monai_landmarks.evaluation.{evaluation._MODULES[name]}")
    assert name in module.__all__ and getattr(evaluation, name) is getattr(module, name)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = evaluation.nothing
