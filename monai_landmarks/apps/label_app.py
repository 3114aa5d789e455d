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


"""``monai-landmarks label-app``: a folder for MONAI Label to be started with."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from .console import FOLDER

__all__ = ["DEFAULT_FOLDER", "label_app", "make_app"]

DEFAULT_FOLDER = Path("label_app")


@click.command(short_help="Make the folder with which MONAI Label proposes landmarks, and print its path.")
@click.argument("folder", type=FOLDER, default=DEFAULT_FOLDER)
def label_app(folder: Path) -> None:
    """Make FOLDER (./label_app if not given), unless it is there, and print its path and nothing else.

    \b
    monailabel start_server --app $(monai-landmarks label-app) --studies my/images \\
        --host 127.0.0.1 --conf models my/bundle

    or, which is shorter and makes the same folder,

    \b
    monai-landmarks label-server --studies my/images --conf models my/bundle

    MONAI Label keeps there what it learns: model/ gets a copy of each bundle, which the corrections train, and logs/ the log.
    Start it again with the same folder, and nothing is lost.

    --conf models names the bundles, separated by commas: folders, or names of shipped ones. They need no weights. Without it
    every shipped bundle that has weights is a model.

    In 3D Slicer: the module MONAI Label, and for the way back one line in the Python console, with the server's address:

    \b
    import requests; exec(requests.get("http://127.0.0.1:8000/slicer_submit.py").text)
    """
    click.echo(make_app(folder))


def make_app(folder: Path) -> Path:
    """Make the folder of the app, unless it is there.

    Returns:
        its absolute path.

    Raises:
        ValueError: if there is something else in the folder.
    """
    target = folder.resolve() / "main.py"
    if folder.is_dir() and any(folder.iterdir()) and not target.is_file():
        raise ValueError(f"{folder}: the folder is not empty, and no app of MONAI Label; choose another.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("landmarks") / "main.py", target)
    return target.parent
