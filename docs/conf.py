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

"""Settings of the site: ``python -m sphinx -nW docs docs/_build`` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generated_pages import keep_stars, site_links, write_pages

import monai_landmarks

project = "monai_landmarks"
copyright = "monai_landmarks contributors"
version = release = monai_landmarks.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "upstream"]
highlight_language = "text"  # of blocks without a language
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
autosummary_generate = False
autodoc_inherit_docstrings = False
napoleon_use_rtype = False
napoleon_use_ivar = True
copybutton_exclude = ".linenos, .gp, .go"

# Types and functions of other packages: their sites cannot be read while this one is built without a network.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(torch|monai\.|ignite|numpy|np\.|nibabel|PIL|matplotlib|collections|subprocess|typing|pathlib|os\.|click|fastapi|enum).*",
    ),
    (r"py:class", r".*\b(Figure|Module|Ndarray(Or)?Tensor|OptionalImportError|Path|(dict|tuple)\[(int|float|str))"),
    (r"py:exc", r"OptionalImportError"),
    # types that only annotations use: they are in files, not among the names of a folder
    (r"py:class", r"monai_landmarks\.(?!networks\.(nets|layers)\.)\w+\.\w+\.[\w.]+"),
    (r"py:class", r"(.*\._\w+|ConsensusKind|Launch|MeasuredRows|Process|Reader|Same|TableReader|Writer)"),
]

html_theme = "pydata_sphinx_theme"
html_title = "monai_landmarks"
html_static_path = ["_static"]
html_css_files = ["site.css"]
toc_object_entries_show_parents = "hide"
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 7,
}


def setup(app):
    """Connect what the site does beyond Sphinx."""
    write_pages(Path(__file__).parent)
    app.connect("source-read", _site_links)
    app.connect("autodoc-process-docstring", _keep_stars)


def _site_links(app, page, source):
    path = Path(app.srcdir, f"{page}.md")
    if path.parent.name != "generated":
        source[0] = site_links(source[0], path, path.parent)


def _keep_stars(app, what, name, obj, options, lines):
    lines[:] = [keep_stars(line) for line in lines]
