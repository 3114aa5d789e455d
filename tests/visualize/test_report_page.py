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
from __future__ import annotations

import base64
import re

import pytest

from monai_landmarks.visualize import ReportPage
from monai_landmarks.visualize.figure import Figure

HOSTILE = "</title><script>alert('x')</script>\"&"
ESCAPED = "&lt;/title&gt;&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;"


def make_figure():
    figure = Figure(figsize=(2, 1))
    figure.subplots().set_title("t")
    return figure


def test_every_text_is_escaped():
    page = ReportPage(HOSTILE)
    page.section(HOSTILE)
    page.heading(HOSTILE)
    page.text(HOSTILE, verdict=True)
    page.points([HOSTILE])
    page.key_figures([(HOSTILE, HOSTILE, HOSTILE)])
    page.table(HOSTILE, [{HOSTILE: HOSTILE, "n": 1}], folded=True)
    page.plots([(make_figure(), HOSTILE, HOSTILE)])
    page.picture(make_figure(), HOSTILE, HOSTILE)
    html = page.html()
    assert "<script" not in html and "alert('x')" not in html
    # title twice, navigation, headings, text, list, three of a key figure, four of a table and its label, two of each picture
    assert html.count(ESCAPED) == 2 + 1 + 1 + 1 + 1 + 1 + 3 + 5 + 4


def test_table():
    page = ReportPage("t")
    page.table(
        "c",
        [{"name": "a", "n": 3, "mean": 1.234, "note": None}, {"name": "b", "n": 12, "mean": float("nan"), "note": "x"}],
        1,
    )
    html = page.html()
    assert '<th scope="row" class="word">a</th><td>3</td><td>1.2</td><td class="word"></td>' in html
    assert '<th scope="row" class="word">b</th><td>12</td><td></td><td class="word">x</td>' in html
    assert "<caption>c</caption>" in html and "<details>" not in html
    page.table("empty", [])
    assert "empty" not in page.html()


def test_pictures_are_in_the_page_and_always_the_same(tmp_path):
    pages = []
    for _ in range(2):
        page = ReportPage("t")
        page.plots([(make_figure(), "one", ""), (make_figure(), "two", "")])
        page.picture(make_figure(), "three", "")
        pages.append(page.html())
    assert pages[0] == pages[1]
    kinds = re.findall(r'src="data:image/([a-z+]+);base64,([^"]+)" width="192" height="96" alt="(\w+)"', pages[0])
    assert [(kind, alt) for kind, _, alt in kinds] == [("svg+xml", "one"), ("svg+xml", "two"), ("png", "three")]
    assert base64.b64decode(kinds[2][1]).startswith(b"\x89PNG") and b"<svg" in base64.b64decode(kinds[0][1])
    assert "http" not in re.sub(r'"data:[^"]+"', "", pages[0]).replace("http-equiv", "")


@pytest.mark.parametrize("name", ["caf\u00e9", "bad\udcff", "nul\x00"])
def test_names_of_files_that_are_no_text(tmp_path, name):
    page = ReportPage(name)
    page.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes().decode("utf-8").startswith("<!DOCTYPE html>")
