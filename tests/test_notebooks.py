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

"""The lessons run from the first cell to the last, and the notebooks that show them are in step with their text."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from warm_python import WarmPython

jupytext = pytest.importorskip("jupytext", reason="notebooks are run by jupytext and nbclient")
nbclient = pytest.importorskip("nbclient", reason="notebooks are run by jupytext and nbclient")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.py"))

# what is shorter here, since the lesson comes to the same conclusion: old and new text
SHORTER = {
    "02_train_scn": ("max_epochs = 10", "max_epochs = 5"),
    "03_farnet": ("max_steps, batch_size = 80, 4", "max_steps, batch_size = 60, 4"),
    "04_target_precision": ('error["fixed"] = ', 'epochs = 4\nerror["fixed"] = '),
    "06_own_data": ("num_images=20", "num_images=12"),
}


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
    assert f"({path.stem}.ipynb)" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_shown_notebook_is_in_step(path):
    """The notebook with output has the cells of the text. If not: ``python tools/run_lessons.py``."""
    shown = path.with_suffix(".ipynb")
    cells = json.loads(shown.read_text())["cells"]
    expected = [(cell.cell_type, cell.source) for cell in jupytext.read(path, fmt="py:percent").cells]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in cells] == expected
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert shown.stat().st_size <= 300_000
    printed = json.dumps([{key: output.get(key) for key in ("text", "name")} for output in outputs])
    assert "/tmp/" not in printed and "/home/" not in printed
