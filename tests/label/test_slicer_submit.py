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

from monai_landmarks.label import slicer_submit
from monai_landmarks.label.slicer_submit import submit_landmarks


class Node:
    """A point list in the scene."""

    def __init__(self, name, count=2):
        self.name, self.visible = name, True
        self.GetName, self.GetNumberOfControlPoints = lambda: name, lambda: count
        self.SetDisplayVisibility = lambda visible: setattr(self, "visible", visible)


class Slicer:
    """What the script uses of 3D Slicer. Records what the user would see and what the server would get."""

    def __init__(self, nodes=(), sample=None, answer=None, fails=None):
        self.nodes, self.settings, self.done, self.bars = list(nodes), {}, [], []
        self.writes = True
        self.module = SimpleNamespace(
            current_sample=sample,
            logic=SimpleNamespace(save_label=self.save_label),
            updateServerSettings=lambda: self.done.append("settings"),
            fetchInfo=lambda: self.done.append("info"),
            onNextSampleButton=lambda: self.done.append("next"),
        )
        self.answer, self.fails = answer or {}, fails
        self.mrmlScene = SimpleNamespace(Clear=lambda singletons: self.done.append("clear"))
        self.util = SimpleNamespace(
            getModuleWidget=lambda name: self.module,
            getNodesByClass=lambda name: self.nodes,
            saveNode=self.save_node,
            errorDisplay=lambda text, **options: self.done.append(text),
            showStatusMessage=lambda text, milliseconds: self.done.append(text),
            settingsValue=lambda key, default, converter: self.settings.get(key, default),
            toBool=bool,
            mainWindow=lambda: SimpleNamespace(removeToolBar=self.bars.remove, addToolBar=self.bars.append),
            findChildren=lambda window, name: [bar for bar in self.bars if bar.name == name],
        )

    def save_node(self, node, path):
        Path(path).write_text(node.name)
        return self.writes

    def save_label(self, image, path, params):
        if self.fails is not None:
            raise self.fails
        assert Path(path).name.endswith(".mrk.json")
        self.done.append((image, Path(path).read_text()))
        return self.answer


@pytest.fixture
def run(monkeypatch):
    """Return a function that makes a 3D Slicer in which the script runs."""

    def make(*args, **kwargs):
        slicer = Slicer(*args, **kwargs)
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
