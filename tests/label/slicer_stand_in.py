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

"""The parts of 3D Slicer that the script for submitting landmarks uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Node:
    """A point list in the scene. Its file has the given text, or its name."""

    def __init__(self, name: str, count: int = 2, text: str | None = None) -> None:
        self.name, self.text, self.visible = name, name if text is None else text, True
        self.GetName, self.GetNumberOfControlPoints = lambda: name, lambda: count
        self.SetDisplayVisibility = lambda visible: setattr(self, "visible", visible)


class Slicer:
    """3D Slicer with the module of MONAI Label. It records what the user would see.

    Args:
        nodes: point lists.
        sample: the image of the server that is loaded.
        save: called as ``save_label`` of the module's client: with image, path and parameters.
    """

    def __init__(
        self, nodes: Iterable[Node] = (), sample: dict[str, Any] | None = None, save: Callable[..., Any] | None = None
    ) -> None:
        self.nodes, self.settings, self.done, self.bars = list(nodes), {}, [], []
        self.writes = True
        self.module = SimpleNamespace(
            current_sample=sample,
            logic=SimpleNamespace(save_label=save),
            updateServerSettings=lambda: self.done.append("settings"),
            fetchInfo=lambda: self.done.append("info"),
            onNextSampleButton=lambda: self.done.append("next"),
        )
        self.mrmlScene = SimpleNamespace(Clear=lambda singletons: self.done.append("clear"))
        self.util = SimpleNamespace(
            getModuleWidget={"MONAILabel": self.module}.__getitem__,
            getNodesByClass=lambda name: self.nodes,
            saveNode=self.save_node,
            errorDisplay=lambda text, **options: self.done.append(text),
            showStatusMessage=lambda text, milliseconds: self.done.append(text),
            settingsValue=lambda key, default, converter: self.settings.get(key, default),
            toBool=bool,
            mainWindow=lambda: SimpleNamespace(removeToolBar=self.bars.remove, addToolBar=self.bars.append),
            findChildren=lambda window, name: [bar for bar in self.bars if bar.name == name],
        )

    def save_node(self, node: Node, path: str) -> bool:
        """Write the file of a point list."""
        Path(path).write_text(node.text)
        return self.writes
