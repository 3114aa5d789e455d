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

"""``monai-landmarks label-server``: the server of MONAI Label, by default for this machine only."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec

import click

from .label_app import DEFAULT_FOLDER, make_app

__all__ = ["label_server", "server_command"]

_CONF = {"zoo_source": "ngc", "sam2": "false"}  # without these it looks for models and for SAM on the internet


@click.command(short_help="Start the server of MONAI Label, by default for this machine only.")
@click.option(
    "--app",
    type=click.Path(exists=True, file_okay=False),
    help="App folder. Default: that of 'monai-landmarks label-app'.",
)
@click.option("--studies", type=click.Path(), required=True, help="Folder of the images, or the URL of a DICOM server.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on. 0.0.0.0: all addresses.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
@click.option("--conf", nargs=2, multiple=True, metavar="KEY VALUE", help="Setting of the app. May be repeated.")
@click.argument("further", nargs=-1, type=click.UNPROCESSED)
def label_server(
    app: str | None, studies: str, host: str, port: int, conf: tuple[tuple[str, str], ...], further: tuple[str, ...]
) -> None:
    """Start the server of MONAI Label in the Python environment of this program.

    This is 'monailabel start_server' with other defaults. Its FURTHER options can be given after --. By default, only
    this machine can reach the server, it does not look for models on the internet, and images may be NIfTI, NRRD, MHA,
    DICOM, PNG, JPEG, BMP and TIFF files.

    The server has no password: whoever can reach it can read, change and delete images and labels, and start trainings.
    Before you set another --host, put a proxy with TLS and a login in front of it.
    """
    if find_spec("monailabel") is None:
        raise ValueError(
            "MONAI Label is not installed; install it with './setup.sh label', see monai_landmarks/label/README.md."
        )
    from monai_landmarks.data.images.image_files import IMAGE_SUFFIXES

    os.environ.setdefault("MONAI_LABEL_DATASTORE_FILE_EXT", json.dumps([f"*{suffix}" for suffix in IMAGE_SUFFIXES]))
    command = server_command(app or os.fspath(make_app(DEFAULT_FOLDER)), studies, host, port, dict(conf), further)
    sys.stdout.flush()
    os.execv(sys.executable, command)


def server_command(
    app: str, studies: str, host: str, port: int, conf: dict[str, str], further: tuple[str, ...] = ()
) -> list[str]:
    """Return the command that starts the server of MONAI Label."""
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
    command += ["--host", host, "--port", str(port), "--uvicorn_app", "monai_landmarks.label.asgi:app"]
    for key, value in (_CONF | conf).items():
        command += ["--conf", key, value]
    return command + list(further)
