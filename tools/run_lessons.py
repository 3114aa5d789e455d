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

"""Run the lessons and write them as notebooks with output, beside their text.

``python tools/run_lessons.py`` runs all lessons in ``notebooks/``. ``python tools/run_lessons.py 01 06`` runs some of
them. Pictures become small JPEG images, and paths of this machine are left out.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbclient
import nbformat
from PIL import Image

__all__ = ["run_lesson"]

FOLDER = Path(__file__).parents[1] / "notebooks"
WIDTH = 800  # largest width of a picture in pixels
QUALITY = 70  # of JPEG
LIMIT = 300_000  # bytes per lesson


def run_lesson(text: Path) -> Path:
    """Run a lesson and write its notebook.

    Args:
        text: the lesson as text.

    Returns:
        the notebook.

    Raises:
        ValueError: if the notebook is larger than ``LIMIT``.
    """
    notebook = jupytext.read(text, fmt="py:percent")
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(
            notebook, timeout=3600, kernel_name="python3", resources=resources, record_timing=False
        )
        client.execute()
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"
            if cell.cell_type == "code":
                outputs = [_small(output, folder) for output in cell.outputs if output.get("name") != "stderr"]
                cell.outputs = _joined(outputs)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    path = text.with_suffix(".ipynb")
    written = nbformat.writes(notebook, version=4) + "\n"
    if len(written) > LIMIT:
        raise ValueError(f"{path} would have {len(written)} bytes; at most {LIMIT} are allowed. Draw smaller figures.")
    path.write_text(written)
    return path


def _small(output: nbformat.NotebookNode, folder: str) -> nbformat.NotebookNode:
    """Return an output with a small picture, without paths of this machine and without terminal codes."""
    data = output.get("data", {})
    if "image/png" in data:
        with Image.open(io.BytesIO(base64.b64decode(data.pop("image/png")))) as picture:
            picture = picture.convert("RGB")
            picture.thumbnail((WIDTH, 10 * WIDTH), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        data["image/jpeg"] = base64.b64encode(buffer.getvalue()).decode()
    for place in (output, data):
        for key in ("text", "text/plain"):
            if key in place:
                place[key] = _plain(place[key], folder)
    return output


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return outputs in which printed text that follows printed text is one output."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _plain(text: str, folder: str) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(str(Path(folder).resolve()), ".").replace(folder, ".")
    text = re.sub(r"\S*/(?=site-packages/)", "", text).replace(str(FOLDER.parent), "..").replace(sys.prefix, ".venv")
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}/tmp\w+", "my", text)
    text = re.sub(
        r"^.*(nvImageCodec|NvImgCodec).*\n", "", text, flags=re.MULTILINE
    )  # of pydicom, on machines without it
    # the last state of a line that a progress bar writes again and again
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def main() -> None:
    """Run the lessons that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lessons", nargs="*", help="beginnings of the names, such as 01; all lessons without one")
    names = parser.parse_args().lessons
    # the setup cell asks `python` for the package: it must be the one that runs this
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for text in sorted(FOLDER.glob("[0-9]*.py")):
        if not names or text.name.startswith(tuple(names)):
            path = run_lesson(text)
            print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
