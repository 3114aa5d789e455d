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


"""The threshold of presence against trying all, and its file."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.metrics import PresenceThreshold, choose_presence_threshold


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better(seed, device):
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(6, 9, generator=generator) > 0.3
    score = (torch.randn(6, 9, generator=generator) + present).round(decimals=1)
    score[0, 0] = float("nan")
    chosen = choose_presence_threshold(score.to(device), present.to(device))
    found = score > chosen.threshold
    assert chosen.sensitivity == pytest.approx(float(found[present].double().mean()))
    assert chosen.specificity == pytest.approx(float((~found)[~present].double().mean()))
    assert (chosen.num_present, chosen.num_absent) == (int(present.sum()), int((~present).sum()))
    for threshold in torch.linspace(-4, 5, 901):
        found = score > threshold
        rival = float(found[present].double().mean() + (~found)[~present].double().mean())
        assert rival <= chosen.sensitivity + chosen.specificity + 1e-9


def test_lies_between_what_it_separates():
    score = torch.tensor([0.1, 0.3, 0.8, 0.9])
    assert choose_presence_threshold(score, score > 0.5).threshold == pytest.approx(0.55)
    # scores the wrong way round: nothing is told, all is kept
    assert choose_presence_threshold(-score, score > 0.5).sensitivity == 1


def test_what_was_not_seen_does_not_count():
    """Decoded with a limit of 0.05, absent landmarks below it have no score. A lower threshold would find them again."""
    score = torch.tensor([-torch.inf, -torch.inf, 0.4, 0.8, 0.9])
    chosen = choose_presence_threshold(score, score > 0)
    assert chosen.threshold == pytest.approx(0.4) and (chosen.sensitivity, chosen.specificity) == (1, 1)


def test_file(tmp_path):
    chosen = PresenceThreshold(0.25, 0.9, 0.8, 100, 10)
    chosen.write(tmp_path / "presence.json")
    assert PresenceThreshold.read(tmp_path / "presence.json") == chosen
    assert "90.0 % of 100 present" in str(chosen)
    for text in ("[", '{"limit": 3}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=r"other.json does not hold a presence threshold"):
            PresenceThreshold.read(tmp_path / "other.json")


def test_a_threshold_that_is_not_there_yet(tmp_path, caplog):
    with pytest.raises(ValueError, match=r"presence.json: there is no such file; .* Train the bundle first"):
        PresenceThreshold.read(tmp_path / "presence.json")
    assert PresenceThreshold.read(tmp_path / "presence.json", default=0.05).threshold == 0.05
    assert "The threshold 0.05 is used, which was not chosen" in caplog.text


@pytest.mark.parametrize(
    "present,message", [([True, True], "0 absent"), ([False, False], "0 present"), ([True], "shape")]
)
def test_bad_arguments(present, message):
    with pytest.raises(ValueError, match=message):
        choose_presence_threshold(torch.tensor([0.1, 0.2]), torch.tensor(present))
