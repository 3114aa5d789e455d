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
"""Sigmas that a training has left beside its weights."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.losses import (
    AdaptivePrecisionLoss,
    HeatmapCrossEntropyLoss,
    LearnedCovarianceLoss,
    SCNLoss,
    TargetSigma,
)
from monai_landmarks.uncertainty import find_learned_sigma, load_sigma


@pytest.mark.parametrize("shape", [(3, 1), (3, 2)])
def test_read_as_saved(tmp_path, shape):
    sigma = torch.rand(shape, dtype=torch.float64) + 1
    torch.save({"sigma": sigma}, tmp_path / "model_sigma.pt")
    for read in (load_sigma, find_learned_sigma):
        found = read(tmp_path / "model_sigma.pt")
        assert found is not None and found.dtype == torch.float32 and torch.equal(found, sigma.float())


@pytest.mark.parametrize(
    "loss",
    [HeatmapCrossEntropyLoss(), SCNLoss(2, 2, sigma=[1.5, 2.0], learn_sigma=False)],
    ids=["the same for all", "one of each, chosen before"],
)
def test_a_sigma_that_was_not_learned_is_refused(tmp_path, loss):
    torch.save(TargetSigma(loss).state_dict(), tmp_path / "model_sigma.pt")
    with pytest.raises(ValueError, match="model_sigma.pt: this training has not learned the sigma of each landmark"):
        load_sigma(tmp_path / "model_sigma.pt")
    assert find_learned_sigma(tmp_path / "model_sigma.pt") is None


@pytest.mark.parametrize(
    "loss",
    [SCNLoss(2, 2), LearnedCovarianceLoss(2, 2), AdaptivePrecisionLoss(2, 2)],
    ids=lambda loss: type(loss).__name__,
)
def test_results_of_a_training(tmp_path, loss):
    """A searched sigma is no parameter, but it is found by the training."""
    torch.save(TargetSigma(loss).state_dict(), tmp_path / "model_sigma.pt")
    assert len(load_sigma(tmp_path / "model_sigma.pt")) == 2


@pytest.mark.parametrize("read", [load_sigma, find_learned_sigma])
@pytest.mark.parametrize(
    "content", [{}, {"sigma": 3.0}, {"sigma": torch.ones(3)}, {"sigma": torch.tensor([[1.0], [0.0]])}]
)
def test_something_else_is_refused(tmp_path, content, read):
    path = tmp_path / "model_sigma.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match="model_sigma.pt: (contains no learned sigma|expected a positive sigma)"):
        read(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="contains no learned sigma"):
        read(path)


def test_an_absent_file():
    assert find_learned_sigma("absent.pt") is None
    with pytest.raises(ValueError, match="there is no such file"):
        load_sigma("absent.pt")
