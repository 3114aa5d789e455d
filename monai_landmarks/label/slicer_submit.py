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


"""Script for 3D Slicer's Python console that submits corrected landmarks to MONAI Label.

3D Slicer's MONAI Label module loads the proposed landmarks as a point list, but submits only segmentations and ROIs.
Paste one line into the Python console (View, Python Console), with the address of your server:

    import requests; exec(requests.get("http://127.0.0.1:8000/slicer_submit.py").text)

If you have this file on your disk, you can also run ``exec(open("slicer_submit.py").read())``. It adds a button "Submit
landmarks" to the toolbar, which calls ``submit_landmarks()``. The script uses the network only through the MONAI Label
module, which sends the point list to the server that is set there.
"""

from __future__ import annotations

import json
import os
import tempfile
from importlib import import_module
from typing import Any

__all__ = ["add_button", "submit_landmarks"]

TITLE = "Submit landmarks"
MARK = "-landmarks-"  # follows the name of the image in the names of the server's point lists


def submit_landmarks(name: str | None = None) -> Any:
    """Submit a point list as the label of the current image of MONAI Label.

    Args:
        name: name of the point list. By default, the list that the server has proposed for the image, or otherwise the
            only list in the scene.

    Returns:
        The answer of the server, or None if the list was not submitted. A window then shows the reason.
    """
    slicer = import_module("slicer")
    module = slicer.util.getModuleWidget("MONAILabel")
    try:
        sample = module.current_sample
        if not sample or sample.get("session"):
            raise ValueError("No image of the server is loaded: press Next Sample in the MONAI Label module first.")
        node = _point_list(slicer, sample["id"], name)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "landmarks.mrk.json")
            if not slicer.util.saveNode(node, path):
                raise ValueError(f"The point list {node.GetName()!r} could not be written.")
            module.updateServerSettings()
            answer = module.logic.save_label(sample["id"], path, {})
    except Exception as error:
        slicer.util.errorDisplay(f"The landmarks were not submitted. {_reason(error)}", windowTitle=TITLE)
        return None
    missing = answer.get("missing") or []
    text = f"{sample['id']}: {len(answer.get('landmarks', []))} landmarks saved"
    text += f"; left out: {', '.join(missing)}" if missing else ""
    replaced = answer.get("replaced")
    text += f"; the label before is kept in {replaced['copy']}" if replaced else ""
    slicer.util.showStatusMessage(text, 10000)
    node.SetDisplayVisibility(False)  # hidden, not deleted: it can be changed and submitted again
    module.fetchInfo()
    if slicer.util.settingsValue("MONAILabel/autoFetchNextSample", False, converter=slicer.util.toBool):
        slicer.mrmlScene.Clear(0)
        module.onNextSampleButton()
    return answer


def add_button() -> None:
    """Add a button to the toolbar that submits the landmarks."""
    slicer, qt = import_module("slicer"), import_module("qt")
    window = slicer.util.mainWindow()
    for old in slicer.util.findChildren(window, name="SubmitLandmarks"):
        window.removeToolBar(old)
    bar = qt.QToolBar(TITLE)
    bar.setObjectName("SubmitLandmarks")
    bar.addAction(TITLE).connect("triggered()", submit_landmarks)
    window.addToolBar(bar)


def _point_list(slicer: Any, image: str, name: str | None) -> Any:
    """Return the point list with a name, or the list of the image, or the only list with points."""
    nodes = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
        if name in (None, node.GetName()) and (name or node.GetNumberOfControlPoints())
    ]
    of_image = [node for node in nodes if node.GetName().startswith(f"{image}{MARK}")]
    found = of_image[-1:] or nodes
    if len(found) == 1:
        return found[0]
    if not nodes:
        raise ValueError(f"There is no point list {name!r}." if name else "There is no point list with points.")
    names = ", ".join(repr(node.GetName()) for node in nodes)
    raise ValueError(f"There are the point lists {names}. Name one in the Python console: submit_landmarks('...')")


def _reason(error: Exception) -> str:
    """Return the reason in the answer of the server, or the text of an error without an answer."""
    text = str(getattr(error, "msg", "") or error)
    _, _, body = text.partition("Response: ")
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return text


if __name__ == "__main__":
    add_button()
