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

"""``monai-landmarks label-server``: MONAI Label's server, for this machine only unless told otherwise."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec

import click

from .label_app import DEFAULT_FOLDER, make_app

__all__ = ["label_server", "server_command"]

_CONF = {"zoo_source": "ngc", "sam2": "false"}  # or it asks the internet for models, and for SAM


@click.command(short_help="Start MONAI Label's server, for this machine only unless told otherwise.")
@click.option(
    "--app",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of the app; if not given that of `monai-landmarks label-app`.",
)
@click.option("--studies", type=click.Path(), required=True, help="Folder of the images, or the URL of a DICOM server.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all of them.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
@click.option("--conf", nargs=2, multiple=True, metavar="KEY VALUE", help="A setting of the app; may be repeated.")
@click.argument("further", nargs=-1, type=click.UNPROCESSED)
def label_server(
    app: str | None, studies: str, host: str, port: int, conf: tuple[tuple[str, str], ...], further: tuple[str, ...]
) -> None:
    """Start MONAI Label's server in the Python of this program.

    It is `monailabel start_server`, and takes its FURTHER options after --, with other defaults: nobody but this machine
    reaches it, it looks for no models in the internet, and images may be NIfTI, NRRD, MHA, DICOM, PNG, JPEG, BMP and TIFF files.

    As it is set up here, MONAI Label asks nobody for a password: whoever reaches the server can read, change and delete images
    and labels, and start trainings. Before you give another --host, put a proxy with TLS and a login in front of it.
    """
    if find_spec("monailabel") is None:
        raise ValueError(
            "MONAI Label is not installed; `./setup.sh label` installs it, see monai_landmarks/label/README.md."
        )
    from monai_landmarks.data.images.image_files import IMAGE_SUFFIXES

    os.environ.setdefault("MONAI_LABEL_DATASTORE_FILE_EXT", json.dumps([f"*{suffix}" for suffix in IMAGE_SUFFIXES]))
    command = server_command(app or os.fspath(make_app(DEFAULT_FOLDER)), studies, host, port, dict(conf), further)
    sys.stdout.flush()
    os.execv(sys.executable, command)


def server_command(
    app: str, studies: str, host: str, port: int, conf: dict[str, str], further: tuple[str, ...] = ()
) -> list[str]:
    """The command that starts MONAI Label's server."""
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
    command += ["--host", host, "--port", str(port), "--uvicorn_app", "monai_landmarks.label.asgi:app"]
    for key, value in (_CONF | conf).items():
        command += ["--conf", key, value]
    return command + list(further)
