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


"""The presence threshold that a validation chooses and writes."""

from __future__ import annotations

import torch
from engines import make_cases, make_evaluator

from monai_landmarks.handlers import PresenceReport, presence_report
from monai_landmarks.metrics import PresenceThreshold


def test_the_threshold_of_the_validation_is_written(tmp_path):
    report = PresenceReport(tmp_path / "models" / "presence.json")
    # one landmark of five cases is missing, the last, whose scores are the highest of all
    make_evaluator(make_cases(5), [report]).run()
    found = PresenceThreshold.read(tmp_path / "models" / "presence.json")
    assert found == report.threshold and (found.num_present, found.num_absent) == (14, 1)
    assert found.sensitivity == 1 and found.specificity == 0
    cases = make_cases(5)
    for case in cases:
        case["label"] = case["label"].clone()
        case["label"][0, 0] = torch.nan
        case["label"][0, 2] = 5.0
    make_evaluator(cases, [report]).run()
    assert report.threshold.sensitivity == report.threshold.specificity == 1
    assert 0.5 < report.threshold.threshold < 0.7  # between the scores of the first landmark and the second


def test_without_absent_landmarks_there_is_none(tmp_path, caplog):
    (tmp_path / "presence.json").write_text("the threshold of other weights")
    evaluator = make_evaluator(make_cases(1), [PresenceReport(tmp_path / "presence.json")])
    evaluator.logger.propagate = True
    evaluator.run()
    assert not (tmp_path / "presence.json").exists() and "no presence threshold" in caplog.text


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(presence_report, "is_main_process", lambda: False)
    report = PresenceReport(tmp_path / "presence.json")
    make_evaluator(make_cases(5), [report]).run()
    assert report.threshold is not None and list(tmp_path.iterdir()) == []
