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
import secrets
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .label_app import DEFAULT_FOLDER, make_app

if TYPE_CHECKING:
    from monai_landmarks.label.gate import Access

__all__ = ["label_server", "server_access", "server_command"]

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
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="Further host name under which clients reach the server, for example of a proxy. May be repeated.",
)
@click.option(
    "--token/--no-token",
    default=None,
    help="Whether each request needs a secret. Default: only if the server listens beyond this machine.",
)
@click.option(
    "--max-upload",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    metavar="MIB",
    help="Largest image or weights that a client may send.",
)
@click.option("--conf", nargs=2, multiple=True, metavar="KEY VALUE", help="Setting of the app. May be repeated.")
@click.argument("further", nargs=-1, type=click.UNPROCESSED)
def label_server(
    app: str | None,
    studies: str,
    host: str,
    port: int,
    names: tuple[str, ...],
    token: bool | None,
    max_upload: int,
    conf: tuple[tuple[str, str], ...],
    further: tuple[str, ...],
) -> None:
    """Start the server of MONAI Label in the Python environment of this program.

    This is 'monailabel start_server' with other defaults. Its FURTHER options can be given after --. By default, only
    this machine can reach the server, it does not look for models on the internet, and images may be NIfTI, NRRD, MHA,
    DICOM, PNG, JPEG, BMP and TIFF files.

    Whoever can reach the server can read, change and delete images and labels, and start trainings. On this machine,
    these are all its users. With another --host, each request needs the token that the server prints at its start. It
    is the file 'token' in the app folder. Clients use http://server:8000/TOKEN as the address of the server. The
    connection is not encrypted: outside a network that you trust, put a proxy with TLS in front of it.
    """
    if find_spec("monailabel") is None:
        raise ValueError(
            "MONAI Label is not installed; install it with './setup.sh label', see monai_landmarks/label/README.md."
        )
    from monai_landmarks.data.images.image_files import IMAGE_SUFFIXES

    os.environ.setdefault("MONAI_LABEL_DATASTORE_FILE_EXT", json.dumps([f"*{suffix}" for suffix in IMAGE_SUFFIXES]))
    app = app or os.fspath(make_app(DEFAULT_FOLDER))
    access = server_access(app, host, names, token, max_upload * 2**20)
    os.environ.update(access.to_environment())
    if access.token:
        shown = access.names[0] if access.names else host
        click.echo(f"The address of this server, with its token: http://{shown}:{port}/{access.token}")
    command = server_command(app, studies, host, port, dict(conf), further)
    sys.stdout.flush()
    os.execv(sys.executable, command)


def server_command(
    app: str, studies: str, host: str, port: int, conf: dict[str, str], further: tuple[str, ...] = ()
) -> list[str]:
    """Return the command that starts the server of MONAI Label."""
    command = [
        sys.executable,
        "-m",
        "monai_landmarks.apps.label_process",
        "start_server",
        "--app",
        app,
        "--studies",
        studies,
    ]
    command += ["--host", host, "--port", str(port), "--uvicorn_app", "monai_landmarks.label.asgi:app"]
    for key, value in (_CONF | conf).items():
        command += ["--conf", key, value]
    return command + list(further)


def server_access(
    app: str | os.PathLike, host: str, names: tuple[str, ...] = (), token: bool | None = None, max_upload: int = 2**30
) -> Access:
    """Return who may reach a server.

    Args:
        app: folder of the app, which stores the token in the file ``token``.
        host: address on which the server listens.
        names: further host names of the server.
        token: whether a token is required. None: if the server listens beyond this machine.
        max_upload: largest upload in bytes.
    """
    from monai_landmarks.label.gate import Access, is_loopback

    beyond = not is_loopback(host)
    if beyond:
        names = (*names, host) if not _is_address(host) else (*names, socket.gethostname(), socket.getfqdn())
    needed = beyond if token is None else token
    return Access(tuple(dict.fromkeys(names)), _read_token(Path(app)) if needed else None, token is False, max_upload)


def _is_address(host: str) -> bool:
    return not host or host.replace(".", "").isdigit() or ":" in host


def _read_token(app: Path) -> str:
    path = app / "token"
    if not path.is_file():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(24))
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < 16 or not token.replace("-", "").replace("_", "").isalnum() or not token.isascii():
        raise ValueError(
            f"{path}: a token has at least 16 letters, digits, '-' and '_'; delete the file for a new one."
        )
    return token
