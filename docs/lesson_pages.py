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

"""Pages of the site that show the executed lessons: text, code, printed output and pictures."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["lesson_page"]

LICENCE = re.compile(r"Copyright \(c\).*?limitations under the License\.\n*", flags=re.DOTALL)


def lesson_page(notebook: Path, folder: Path, links: Callable[[str], str]) -> str:
    """Return the page of an executed lesson in Markdown, and write its pictures.

    Args:
        notebook: the lesson, an ``.ipynb`` file with output.
        folder: folder of the page. Pictures go into ``pictures`` of it.
        links: function that changes the links of the lesson into those of the page.
    """
    parts = []
    (folder / "pictures").mkdir(exist_ok=True)
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(links(LICENCE.sub("", source)))
            continue
        parts.append(_code(source))
        for place, output in enumerate(cell["outputs"]):
            parts.append(_output(output, folder / "pictures" / f"{notebook.stem}-{number}-{place}.jpg"))
    return "\n\n".join(filter(None, parts)) + "\n"


def _code(source: str) -> str:
    """Return a cell as a block of code. Cells of commands, with ``!`` before each, are shown without it."""
    lines = source.splitlines()
    if any(line.startswith(("!", "%")) for line in lines):
        return "```bash\n" + "\n".join(line.removeprefix("!") for line in lines) + "\n```"
    return f"```python\n{source}\n```"


def _output(output: dict[str, Any], path: Path) -> str:
    """Return one output of a cell, and write its picture."""
    data = output.get("data", {})
    if "image/jpeg" in data:
        path.write_bytes(base64.b64decode(data["image/jpeg"]))
        return f"![Figure of the cell above]({path.parent.name}/{path.name})"
    text = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
    return f"```text\n{text}\n```" if text else ""
