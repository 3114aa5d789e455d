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

"""Pages of the site that repeat what stands elsewhere: documents of the repository, docstrings, and help of commands.

They are written to ``docs/generated/``, which git ignores.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import reprlib
import shutil
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType

import click
from lesson_pages import lesson_page

import monai_landmarks
from monai_landmarks.apps.main import program

__all__ = ["keep_stars", "site_links", "write_pages"]

ROOT = Path(__file__).parents[1]
# page to the document that it shows
DOCUMENTS = {
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
    "changelog": "CHANGELOG.md",
    "conduct": "CODE_OF_CONDUCT.md",
    "benchmarks": "benchmarks/README.md",
    "lessons": "notebooks/README.md",
    "upstream": "docs/upstream/README.md",
    "monai_transforms": "monai_landmarks/transforms/README.md",
    "label_guide": "monai_landmarks/apps/landmarks/README.md",
    "label_reference": "monai_landmarks/label/README.md",
    **{f"bundle_{path.parents[1].name}": str(path.relative_to(ROOT)) for path in ROOT.glob("bundles/*/docs/README.md")},
    **{
        f"weights_{path.parents[1].name}": str(path.relative_to(ROOT))
        for path in ROOT.glob("bundles/*/models/README.md")
    },
}
# modules whose docstring belongs to the page of a folder
MODULES = {
    "monai_landmarks.data": "monai_landmarks.data.landmarks.landmark_io",
    "monai_landmarks.schema": "monai_landmarks.schema.expression",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def write_pages(site: Path) -> None:
    """Write all generated pages.

    Args:
        site: folder of the site's sources.
    """
    folder = site / "generated"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pages = {page: (ROOT / path, (ROOT / path).read_text()) for page, path in DOCUMENTS.items()}
    for page, (source, text) in pages.items():
        (folder / f"{page}.md").write_text(site_links(text, source, folder))
    for room in _rooms():
        (folder / f"api_{room.__name__.partition('.')[2].replace('.', '_')}.md").write_text(_api_page(room))
    (folder / "commands.md").write_text(_commands_page())
    lessons = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for lesson in lessons:
        text = lesson_page(lesson, folder, partial(site_links, source=lesson, folder=folder))
        (folder / f"lesson_{lesson.stem}.md").write_text(text)
    with open(folder / "lessons.md", "a") as page:
        page.write(
            "\n".join(["\n```{toctree}", ":hidden:\n", *(f"lesson_{lesson.stem}" for lesson in lessons), "```\n"])
        )


def keep_stars(text: str) -> str:
    """Return text of a docstring in which the star of a shape such as (N, *spatial) does not begin an emphasis."""
    return re.sub(r"(?<=[ (])\*(?=[\w(])", r"\\*", text)


def site_links(text: str, source: Path, folder: Path) -> str:
    """Return a document whose links to files of the repository lead to pages of the site.

    Args:
        text: the document, in Markdown.
        source: its file, from which its links start.
        folder: folder of the page that shows it.
    """
    return LINK.sub(lambda match: _link(match, source, folder), text)


def _link(match: re.Match[str], source: Path, folder: Path) -> str:
    """Return a link as the site needs it: to the page of another document, or plain text without one."""
    image, text, target = match.groups()
    path, _, anchor = target.partition("#")
    if not path or re.match(r"\w+:", target):
        return match[0]
    place = (source.parent / path).resolve()
    if image:
        return f"![{text}]({os.path.relpath(place, folder)})"
    page = _page(place / "README.md" if place.is_dir() else place)
    if page == ROOT / "docs" / "index.md":  # the front page has other sections than the README
        anchor = ""
    return f"[{text}]({os.path.relpath(page, folder)}{'#' + anchor if anchor else ''})" if page else text


def _page(document: Path) -> Path | None:
    """Return the page that shows a document of the repository."""
    site = ROOT / "docs"
    for page, path in DOCUMENTS.items():
        if document == ROOT / path:
            return site / "generated" / f"{page}.md"
    if document == ROOT / "README.md":
        return site / "index.md"
    if document.parent == ROOT / "notebooks":
        return site / "generated" / f"lesson_{document.stem}.md"
    return document if document.is_relative_to(site) and document.suffix == ".md" else None


@lru_cache
def _rooms() -> tuple[ModuleType, ...]:
    """Return the folders of the package that users import from."""
    found = [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(monai_landmarks.__path__, "monai_landmarks.")
        if info.ispkg and info.name.count(".") == 1 and info.name != "monai_landmarks.apps"
    ]
    nets = importlib.import_module("monai_landmarks.networks.nets")
    layers = importlib.import_module("monai_landmarks.networks.layers")
    return tuple(room for room in (*found, nets, layers) if getattr(room, "__all__", ()))


@lru_cache
def _alias_names() -> frozenset[str]:
    """Return the second names of dictionary transforms, such as ``LoadLandmarksD`` and ``LoadLandmarksDict``."""
    return frozenset(
        name
        for room in _rooms()
        for name in room.__all__
        if getattr(getattr(room, name), "__name__", name) != name and name.endswith(("D", "Dict"))
    )


def _api_page(room: ModuleType) -> str:
    """Return the page of a room: what it is for, a table of its names, and each of them from its docstring."""
    values = {name: getattr(room, name) for name in room.__all__ if name not in _alias_names()}
    listed = "\n".join(f"   {name}" for name, value in values.items() if callable(value) and hasattr(value, "__name__"))
    described = "\n\n".join(_described(name, value) for name, value in values.items())
    purpose = keep_stars((room.__doc__ or "").strip())
    if room.__name__ in MODULES:
        described += f"\n\n.. automodule:: {MODULES[room.__name__]}\n   :no-members:"
    return (
        f"# {room.__name__.partition('.')[2]}\n\n```{{eval-rst}}\n{purpose}\n\n.. module:: {room.__name__}\n\n"
        f".. autosummary::\n   :nosignatures:\n\n{listed}\n\n{described}\n```\n"
    )


def _described(name: str, value: object) -> str:
    if isinstance(value, type):
        return f".. {'autoexception' if issubclass(value, BaseException) else 'autoclass'}:: {name}"
    if inspect.isroutine(value):
        return f".. autofunction:: {name}"
    # a constant has the docstring of its type
    return f".. data:: {name}\n   :value: {reprlib.repr(value)}"


def _commands_page() -> str:
    texts = ["# Commands\n"]
    for name in sorted(program.commands):
        command = program.commands[name]
        context = click.Context(command, info_name=f"monai-landmarks {name}", max_content_width=110)
        texts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(texts)
