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

"""``monai-landmarks report``: what it draws, prints and refuses."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from reports import IMAGES, Content, make, skip_painting

from monai_landmarks.apps.main import program


def run(*args):
    return CliRunner().invoke(program, ["report", *map(str, args), "--resamples", "30"])


@pytest.fixture
def words_only(monkeypatch):
    skip_painting(monkeypatch)


def test_without_images_and_with_one_that_cannot_be_read(tmp_path, words_only):
    pred, datalist = make(tmp_path, 2, count=3)
    broken = tmp_path / "images" / IMAGES[2].format(1)
    broken.write_bytes(b"no picture")
    result = run(pred, datalist, "--out", tmp_path / "report.html")
    assert result.exit_code == 0 and f"note: {broken.name}: cannot be drawn" in result.output
    page = Content(tmp_path / "report.html")
    assert len(page.pictures) == 4 + 2 and "cannot be drawn" in page.text
    result = run(pred, pred, "--out", tmp_path / "report.html")
    assert result.exit_code == 0 and "note: the image files are not known" in result.output
    assert len(Content(tmp_path / "report.html").pictures) == 4


@pytest.mark.parametrize("images", ["images", "datalist.json"])
def test_images_beside_landmark_files(tmp_path, words_only, images):
    pred, _ = make(tmp_path, 3, count=2)
    result = run(pred, pred, "--images", tmp_path / images, "--out", tmp_path / "report.html", "--cases", 2)
    assert result.exit_code == 0, result.output
    assert len(Content(tmp_path / "report.html").pictures) == 4 + 4


def test_nothing_is_written_where_the_evaluation_fails(tmp_path, words_only):
    pred, datalist = make(tmp_path, 2, count=1)
    (pred / "x.mrk.json").write_text("{")
    result = run(pred, datalist, "--out", tmp_path / "report.html")
    assert result.exit_code == 1 and "x.mrk.json" in result.output and not (tmp_path / "report.html").exists()


def test_what_is_read_is_not_replaced(tmp_path):
    pred, datalist = make(tmp_path, 2, count=1)
    before = datalist.read_text()
    result = run(pred, datalist, "--out", datalist)
    assert result.exit_code == 2 and "give a name that ends in .html" in result.output
    other = datalist.rename(datalist.with_suffix(".html"))
    result = run(pred, other, "--out", other)
    assert result.exit_code == 2 and "would be replaced; give another --out" in result.output
    assert other.read_text() == before
