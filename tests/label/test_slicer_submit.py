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
"""The script for 3D Slicer's Python console, with a stand-in for 3D Slicer and its MONAI Label module."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from slicer_stand_in import Node, Slicer

from monai_landmarks.label import slicer_submit
from monai_landmarks.label.slicer_submit import submit_landmarks


@pytest.fixture
def run(monkeypatch):
    """Return a function that makes a 3D Slicer in which the script runs. It records what the server would get."""

    def make(nodes=(), sample=None, answer=None, fails=None):
        def save(image, path, params):
            if fails is not None:
                raise fails
            assert Path(path).name.endswith(".mrk.json")
            slicer.done.append((image, Path(path).read_text()))
            return answer or {}

        slicer = Slicer(nodes, sample, save)
        monkeypatch.setitem(sys.modules, "slicer", slicer)
        return slicer

    return make


SAMPLE = {"id": "scan"}
PROPOSED = "scan-landmarks-spots"


@pytest.mark.parametrize(
    "names, wanted, sent",
    [
        (["mine"], None, "mine"),  # the only one
        (["mine", PROPOSED, f"{PROPOSED}_1"], None, f"{PROPOSED}_1"),  # the latest proposal for this image
        (["mine", PROPOSED], "mine", "mine"),
    ],
)
def test_the_list_of_the_image_is_sent(run, names, wanted, sent):
    answer = {"landmarks": ["a", "b"], "missing": ["c"]}
    slicer = run([Node("empty", 0), *map(Node, names)], SAMPLE, answer)
    assert submit_landmarks(wanted) == answer
    assert slicer.done == ["settings", ("scan", sent), "scan: 2 landmarks saved; left out: c", "info"]
    assert [node.name for node in slicer.nodes if not node.visible] == [sent]


def test_a_label_that_is_replaced_is_named(run):
    copy = "labels/replaced/final/scan.1.mrk.json"
    slicer = run([Node("mine")], SAMPLE, {"landmarks": ["a"], "replaced": {"client_id": "ann", "ts": 1, "copy": copy}})
    submit_landmarks()
    assert f"scan: 1 landmarks saved; the label before is kept in {copy}" in slicer.done


def test_the_next_image_is_loaded_if_that_is_set(run):
    slicer = run([Node("mine")], SAMPLE, {"landmarks": ["a"]})
    slicer.settings["MONAILabel/autoFetchNextSample"] = True
    submit_landmarks()
    assert slicer.done[2:] == ["scan: 1 landmarks saved", "info", "clear", "next"]


def http_error(body):
    error = RuntimeError("failed")
    error.msg = f"Status: 422; Response: {body}"
    return error


@pytest.mark.parametrize(
    "nodes, sample, name, fails, message",
    [
        ([Node("a")], None, None, None, "No image of the server is loaded"),
        ([Node("a")], {"id": "x", "session": True}, None, None, "No image of the server is loaded"),
        ([Node("a", 0)], SAMPLE, None, None, "There is no point list with points."),
        ([Node("a")], SAMPLE, "b", None, "There is no point list 'b'."),
        ([Node("a"), Node("b")], SAMPLE, None, None, "There are the point lists 'a', 'b'. Name one"),
        ([Node("a")], SAMPLE, None, http_error(json.dumps({"detail": "no landmark"})), "submitted. no landmark"),
        ([Node("a")], SAMPLE, None, http_error("[]"), "Response: []"),
        ([Node("a")], SAMPLE, None, OSError("no route to host"), "submitted. no route to host"),
    ],
)
def test_the_reason_is_shown_and_the_list_stays(run, nodes, sample, name, fails, message):
    slicer = run(nodes, sample, fails=fails)
    assert submit_landmarks(name) is None
    assert slicer.done[-1].startswith("The landmarks were not submitted. ") and message in slicer.done[-1]
    assert all(node.visible for node in nodes)


def test_a_list_that_cannot_be_written(run):
    slicer = run([Node("a")], SAMPLE)
    slicer.writes = False
    assert submit_landmarks() is None and slicer.done == [
        "The landmarks were not submitted. The point list 'a' could not be written."
    ]


def test_run_in_the_console_it_adds_one_button(run, monkeypatch):
    pressed = []

    def tool_bar(title):
        bar = SimpleNamespace(title=title, name=None, setObjectName=lambda name: setattr(bar, "name", name))
        bar.addAction = lambda title: SimpleNamespace(
            connect=lambda signal, slot: pressed.append((signal, slot.__name__))
        )
        return bar

    slicer = run([Node("a")], SAMPLE)
    monkeypatch.setitem(sys.modules, "qt", SimpleNamespace(QToolBar=tool_bar))
    for _ in range(2):
        runpy.run_path(slicer_submit.__file__, run_name="__main__")
    assert [bar.title for bar in slicer.bars] == ["Submit landmarks"]
    assert pressed == [("triggered()", "submit_landmarks")] * 2
