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
"""Several annotators at once, while the server trains: no image is given twice, and no label is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from label_data import SHAPES, random_points, write_bundle_of_spots, write_image
from label_practice import Practice, table
from label_server import LabelServer

from monai_landmarks.apps.label_app import make_app

pytest.importorskip("monailabel", reason="MONAI Label is not installed; ./setup.sh label installs it")

ANNOTATORS, EACH = 4, 4


def test_annotators_at_once(tmp_path: Path) -> None:
    studies, random = tmp_path / "studies", np.random.default_rng(0)
    for number in range(ANNOTATORS * EACH + 2):
        write_image(studies / f"image{number:02d}.png", random_points(random, SHAPES[2]))
    bundle = write_bundle_of_spots(tmp_path / "bundles" / "pictures", ".png")
    with LabelServer(make_app(tmp_path / "app"), studies, tmp_path / "home", {"models": str(bundle)}) as server:
        work = Practice(server.url, "pictures")
        work.run(ANNOTATORS, lambda done: done < 1)
        server.ask("POST", "/train/pictures", json={"max_epochs": 2, "multi_gpu": False})
        work.training = True
        work.run(ANNOTATORS, lambda done: done < EACH - 1)
        assert server.ask("GET", "/train/")["status"] in ("RUNNING", "DONE")
        assert work.faults(studies) == []
        assert len(work.submitted) == ANNOTATORS * EACH == len(set(work.given))
        # two images are left: one annotator gets each, and the next one gets none
        assert [work.annotate(0), work.annotate(1), work.annotate(2)] == [True, True, False]
    assert "| next image | yes |" in table(work.seconds) and "| submit | no | 4 |" in table(work.seconds)


def test_faults_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two annotators with one image, a lost label and a label that was changed are reported."""
    work = Practice("", "", "")
    work.given, work.submitted = ["a", "a", "b", "c"], {"a": [[0.0]], "b": [[1.0]], "c": [[2.0]]}
    labels = tmp_path / "labels" / "final"
    labels.mkdir(parents=True)
    for name, points in (("a", [[0.0]]), ("b", [[9.0]])):
        text = ", ".join(f'{{"position": {point}}}' for point in points)
        (labels / f"{name}.mrk.json").write_text(f'{{"markups": [{{"controlPoints": [{text}]}}]}}')

    class Answer:
        def json(self) -> dict:
            return {"datastore": {"completed": 2}}

    monkeypatch.setattr("requests.get", lambda *args, **options: Answer())
    assert work.faults(tmp_path) == [
        "a was given 2 times",
        "the label of b is not the one that was submitted",
        "the label of c is lost",
        "the server counts 2 labels, 3 were submitted",
    ]
