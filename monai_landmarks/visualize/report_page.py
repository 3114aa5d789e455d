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
"""HTML page in a single file that contains its text, tables and figures and loads nothing."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from monai_landmarks.lazy import lazy_import

from .figure import Figure

matplotlib = lazy_import("matplotlib")

__all__ = ["ReportPage"]

# the page may show what it holds, and nothing else: no script, no font, no picture from elsewhere
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d232b; --soft: #5a6572; --line: #d8dde3; --tint: #f3f6f9;
  --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #141414; --ink: #e6e8ea; --soft: #a3adb8; --line: #383c42; --tint: #1f2226; --link: #7db8f0; }
  figure.plot img { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -100vw; background: var(--paper); padding: .5rem 1rem; }
.skip:focus { left: 1rem; top: .5rem; z-index: 2; }
header, main, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p, li { max-width: 48rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: 1rem 0 0; }
dl.keys { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1rem 0; }
dl.keys div { background: var(--tint); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
dl.keys dt { color: var(--soft); font-size: .85rem; }
dl.keys dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
dl.keys dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; }
thead th { background: var(--tint); position: sticky; top: 0; }
.word { text-align: left; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; display: block; border-radius: .4rem; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 48rem; margin-top: .4rem; }
.side { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.side figure { flex: 1 1 22rem; max-width: 34rem; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; }
.verdict { background: var(--tint); border-left: 4px solid var(--link); padding: .5rem .9rem; }
code { overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: .85rem; padding: 2rem 1.25rem; }
@media print { nav, .skip { display: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


class ReportPage:
    """Build an HTML page from text, tables and figures, in the order in which they are added.

    All text is plain text: HTML in names is shown as it is written. Figures are matplotlib figures and become data
    URIs. The page has no script and loads nothing. It follows the light or dark color scheme of the reader, can be used
    with the keyboard alone, and has alternative texts for its figures.

    Args:
        title: title of the page.

    Example:
        >>> page = ReportPage("Landmarks <1>")
        >>> page.section("Errors")
        >>> page.table("The largest", [{"landmark": "nasion", "error": 1.25}])
        >>> "<h1>Landmarks &lt;1&gt;</h1>" in page.html(), "<td>1.25</td>" in page.html()
        (True, True)
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._body: list[str] = []
        self._sections: list[str] = []

    def section(self, heading: str) -> None:
        """Begin a section, which is listed in the navigation at the top."""
        self._sections.append(heading)
        self._add(f'<h2 id="section-{len(self._sections)}">{escape(heading)}</h2>')

    def heading(self, text: str) -> None:
        """Add a heading within the section."""
        self._add(f"<h3>{escape(text)}</h3>")

    def text(self, text: str, verdict: bool = False) -> None:
        """Add a paragraph.

        Args:
            text: text of the paragraph.
            verdict: whether to highlight it.
        """
        self._add(f"<p{' class=verdict' if verdict else ''}>{escape(text)}</p>")

    def points(self, items: Sequence[str]) -> None:
        """Add a list of sentences."""
        self._add("<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>")

    def key_figures(self, figures: Sequence[tuple[str, str, str]]) -> None:
        """Add the most important numbers.

        Args:
            figures: heading, value and remark of each number. The remark may be empty.
        """
        cells = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}{f'<small>{escape(remark)}</small>' if remark else ''}</dd></div>"
            for name, value, remark in figures
        )
        self._add(f'<dl class="keys">{cells}</dl>')

    def table(self, caption: str, rows: Sequence[Mapping[str, Any]], digits: int = 2, folded: bool = False) -> None:
        """Add a table, with text aligned to the left and numbers to the right. A table without rows is not added.

        Args:
            caption: caption of the table.
            rows: cells by heading. All rows have the same headings. NaN and None become blank cells. The first column
                names the row.
            digits: number of decimal digits of floats.
            folded: whether only the caption is visible until the reader opens the table.
        """
        if not rows:
            return
        header = list(rows[0])
        words = [all(isinstance(row[key], (str, type(None))) for row in rows) for key in header]
        head = "".join(f'<th scope="col"{_word(word)}>{escape(str(key))}</th>' for key, word in zip(header, words))
        body = []
        for row in rows:
            cells = [_cell(row[key], digits) for key in header]
            first = f'<th scope="row"{_word(words[0])}>{cells[0]}</th>'
            rest = "".join(f"<td{_word(word)}>{cell}</td>" for cell, word in zip(cells[1:], words[1:]))
            body.append(f"<tr>{first}{rest}</tr>")
        table = (
            f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
            f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        )
        self._add(f"<details><summary>{escape(caption)}</summary>{table}</details>" if folded else table)

    def plots(self, plots: Sequence[tuple[Figure, str, str]]) -> None:
        """Add figures of curves side by side, as vector graphics.

        Args:
            plots: figure, alternative text and caption of each.
        """
        pictures = [_picture(figure, alt, caption, "svg", "plot") for figure, alt, caption in plots]
        self._add(pictures[0] if len(pictures) == 1 else f'<div class="side">{"".join(pictures)}</div>')

    def picture(self, figure: Figure, alt: str, caption: str) -> None:
        """Add a figure with images, as pixels. It has the same colors in the dark color scheme.

        Args:
            figure: the figure.
            alt: alternative text.
            caption: caption.
        """
        self._add(_picture(figure, alt, caption, "png", "image"))

    def html(self) -> str:
        """Return the page."""
        links = "".join(
            f'<li><a href="#section-{i}">{escape(heading)}</a></li>' for i, heading in enumerate(self._sections, 1)
        )
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<link rel="icon" href="data:,">\n<title>{escape(self.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n'
            f'<a class="skip" href="#content">Skip to the content</a>\n<header>\n<h1>{escape(self.title)}</h1>\n'
            f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n</header>\n<main id="content">\n'
            + "\n".join(self._body)
            + "\n</main>\n<footer>Research software, not a medical device.</footer>\n</body>\n</html>\n"
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the page to a file."""
        # file names on Linux may contain characters that UTF-8 cannot encode
        Path(path).write_bytes(self.html().encode("utf-8", errors="xmlcharrefreplace"))

    def _add(self, html: str) -> None:
        self._body.append(html)


def _word(is_word: bool) -> str:
    return ' class="word"' if is_word else ""


def _cell(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return escape(f"{value:.{digits}f}" if isinstance(value, float) else str(value))


def _picture(figure: Figure, alt: str, caption: str, format: str, kind: str) -> str:
    buffer = io.BytesIO()
    # the same figure always gives the same file: without the time and without random ids
    with matplotlib.rc_context({"svg.hashsalt": "monai_landmarks", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=format, metadata={"Date": None} if format == "svg" else None)
    mime = {"svg": "image/svg+xml", "png": "image/png"}[format]
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure class="{kind}"><img src="data:{mime};base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
