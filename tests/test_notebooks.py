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

"""The notebooks run from the first cell to the last, and are stored as text."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from warm_python import WarmPython

jupytext = pytest.importorskip("jupytext", reason="notebooks are run by jupytext and nbclient")
nbclient = pytest.importorskip("nbclient", reason="notebooks are run by jupytext and nbclient")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.py"))

# trainings from which a lesson concludes nothing are shorter here: old and new text
SHORTER = {"04_target_precision": ('error["fixed"] = ', 'epochs = 4\nerror["fixed"] = ')}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    def launch_kernel(command, cwd, env, **_):
        inline = {**env, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # what a kernel sets for itself
        return WarmPython(command[1:], cwd, tmp_path / "kernel.txt", inline)

    monkeypatch.setattr("jupyter_client.provisioning.local_provisioner.launch_kernel", launch_kernel)
    # the setup cell asks `python` whether the package is there: it must be the one that runs this test
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    text = path.read_text()
    if path.stem in SHORTER:
        old, new = SHORTER[path.stem]
        assert text.count(old) == 1
        text = text.replace(old, new)
    notebook = jupytext.reads(text, "py:percent")
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_listed(path):
    assert path.name in (FOLDER / "README.md").read_text()
