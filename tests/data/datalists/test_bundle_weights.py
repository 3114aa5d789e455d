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
"""Which weights of a bundle are used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_landmarks.data.datalists.bundle_weights import CLOSE_LOOK_PRETRAINED, PRETRAINED, TRAINED, find_weights

ONE = {"conv.weight": torch.zeros(1)}
BOTH = {"coarse.conv.weight": torch.zeros(1), "fine.conv.weight": torch.zeros(1)}


@pytest.mark.parametrize(
    "trained, single, close",
    [(None, PRETRAINED, CLOSE_LOOK_PRETRAINED), (ONE, TRAINED, CLOSE_LOOK_PRETRAINED), (BOTH, TRAINED, TRAINED)],
    ids=["not trained", "one network was trained", "both were trained"],
)
def test_trained_weights_come_before_shipped_ones_of_the_same_kind(tmp_path: Path, trained, single, close) -> None:
    torch.save(ONE, tmp_path / PRETRAINED)
    torch.save(BOTH, tmp_path / CLOSE_LOOK_PRETRAINED)
    if trained is not None:
        torch.save(trained, tmp_path / TRAINED)
    assert Path(find_weights(tmp_path)).name == single
    assert Path(find_weights(tmp_path, CLOSE_LOOK_PRETRAINED)).name == close


def test_the_place_of_weights_that_are_not_there(tmp_path: Path) -> None:
    for name in (PRETRAINED, CLOSE_LOOK_PRETRAINED):
        assert Path(find_weights(tmp_path, name)) == tmp_path / TRAINED
    torch.save(ONE, tmp_path / TRAINED)
    assert Path(find_weights(tmp_path, CLOSE_LOOK_PRETRAINED)) == tmp_path / TRAINED
