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


"""``monai-landmarks label-app``: the app folder for MONAI Label."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from .console import FOLDER, keep_copies

__all__ = ["DEFAULT_FOLDER", "label_app", "make_app"]

DEFAULT_FOLDER = Path("label_app")


@click.command(short_help="Create the app folder for MONAI Label, and print its path.")
@click.argument("folder", type=FOLDER, default=DEFAULT_FOLDER)
def label_app(folder: Path) -> None:
    """Create the app folder FOLDER (default: ./label_app) if it does not exist, and print only its path.

    \b
    monailabel start_server --app $(monai-landmarks label-app) --studies my/images \\
        --host 127.0.0.1 --conf models my/bundle

    Or, with the same folder:

    \b
    monai-landmarks label-server --studies my/images --conf models my/bundle

    MONAI Label stores its models and logs there: model/ gets a copy of each bundle, which is trained on the corrected
    labels, and logs/ gets the log. To continue later, start the server again with the same folder.

    --conf models names the bundles, separated by commas: folders, or names of shipped bundles. They need no weights.
    Default: every shipped bundle that has weights.

    In 3D Slicer, use the module MONAI Label. To send labels back, enter one line in the Python console, with the
    address of the server:

    \b
    import requests; exec(requests.get("http://127.0.0.1:8000/slicer_submit.py").text)
    """
    click.echo(make_app(folder))


def make_app(folder: Path) -> Path:
    """Create the app folder for MONAI Label if it does not exist, or bring its ``main.py`` up to date.

    A ``main.py`` that was changed is kept as ``main.py.bak``.

    Args:
        folder: the app folder.

    Returns:
        Its absolute path.

    Raises:
        ValueError: if the folder has other contents, such as another app.
    """
    from monai_landmarks.data.files.safe_files import atomic_write, read_text

    target = folder.resolve() / "main.py"
    is_own = target.is_file() and "monai_landmarks.label.app" in read_text(target)
    if folder.is_dir() and any(folder.iterdir()) and not is_own:
        raise ValueError(f"{folder}: the folder is not empty and has no app of this package; choose another folder.")
    with keep_copies(target.parent), atomic_write(target) as temporary:
        shutil.copyfile(Path(__file__).with_name("landmarks") / "main.py", temporary)
    return target.parent
