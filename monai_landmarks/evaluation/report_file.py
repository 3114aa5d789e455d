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

"""The HTML file of a report, from its first line to the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from monai_landmarks import __version__
from monai_landmarks.data import atomic_write
from monai_landmarks.visualize import ReportPage

__all__ = ["report_file"]


@contextmanager
def report_file(path: str | os.PathLike, title: str, source: str) -> Iterator[ReportPage]:
    """Yield a page that is written as one self-contained HTML file when it is filled.

    Args:
        path: path of the HTML file. It is written completely or not at all.
        title: title of the page.
        source: text that says what the page shows. Empty: it is left out.
    """
    page = ReportPage(title)
    if source:
        page.text(f"{source}. Written by monai_landmarks {__version__}.")
    yield page
    with atomic_write(path) as temporary:
        page.save(temporary)
