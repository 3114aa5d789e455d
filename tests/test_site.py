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

"""The site is built without a warning, contains every public name, and needs no network."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import pytest
from filelock import FileLock
from warm_python import WarmPython

import monai_landmarks

pytest.importorskip("sphinx", reason="the site is built by Sphinx")

DOCS = Path(__file__).parents[1] / "docs"
FOLDERS = sorted(path.parent.name for path in Path(monai_landmarks.__file__).parent.glob("*/__init__.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, as text by their path. They are built once, although several processes may need them."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "site"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            build(folder)
    return {str(path.relative_to(folder / "html")): path.read_text() for path in (folder / "html").rglob("*.html")}


def build(folder):
    folder.mkdir(exist_ok=True)
    # a warning is an error: a broken link, a name in a docstring that is nowhere, a page that nothing leads to
    command = ["-m", "sphinx", "--nitpicky", "--fail-on-warning", "--keep-going", "--quiet", DOCS, folder / "html"]
    WarmPython(command, DOCS, folder / "log.txt").printed()
    (folder / "done").touch()


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != "apps"])
def test_public_names_have_an_entry(site, folder):
    module = importlib.import_module(f"monai_landmarks.{folder}")
    page = site.get(f"generated/api_{folder}.html", "")
    # the second names of dictionary transforms, such as LoadLandmarksD, have none
    names = [name for name in module.__all__ if getattr(getattr(module, name), "__name__", name) == name]
    assert [name for name in names if f'id="monai_landmarks.{folder}.{name}"' not in page] == []


def test_nothing_is_loaded_from_elsewhere(site):
    loading = r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"(https?:[^\"]+)"
    assert {page: found for page, text in site.items() if (found := re.findall(loading, text))} == {}


def test_the_front_page_leads_to_the_answers(site):
    pages = ["predict", "slicer", "own_data", "measurements", "concepts", "results", "weights"]
    for page in [*pages, "generated/contributing"]:
        assert f'href="{page}.html' in site["index.html"]
