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

"""Gate of the label server: which requests reach MONAI Label at all.

The gate is an ASGI application around another one. It looks only at the head of a request and counts the bytes of its
body, so that it answers before anything is read into memory. It works without MONAI Label.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Access", "Gate", "LABEL_BYTES", "is_loopback"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_VARIABLE = "MONAI_LANDMARKS_LABEL_ACCESS"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^:/@\[\]\s]+))(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)

LABEL_BYTES = 4 * 2**20  # about 6000 points as 3D Slicer writes them
_JSON_BYTES = 100 * 2**10  # background tasks receive it as one argument of a command: at most 128 KiB on Linux
_PROXY_BYTES = 64 * 2**20  # the proxy for a DICOM server holds it in memory
_UPLOADS = re.compile(r"/(datastore/(image/?)?|session/?|model/[^/]+|infer/(wsi/|wsi_v2/)?[^/]+)")
_DRAIN_BYTES, _DRAIN_SECONDS = 256 * 2**20, 10.0


@dataclass(frozen=True)
class Access:
    """Who may reach the label server.

    Args:
        names: host names under which clients reach the server, besides ``localhost`` and the address of the connection.
        token: secret that each request must contain. None: no secret.
        open: whether the server may be reached from other machines without a token.
        max_upload: largest upload of an image or of weights, in bytes.
    """

    names: tuple[str, ...] = ()
    token: str | None = None
    open: bool = False
    max_upload: int = 2**30

    def to_environment(self) -> dict[str, str]:
        """Return the environment variable that gives these values to a server process. Others cannot see its environment."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Access:
        """Return the values in the environment, or the defaults."""
        values: dict[str, Any] = json.loads(environment.get(_VARIABLE, "{}"))
        names = tuple(values.pop("names", ()))
        return cls(names, **values)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address always means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Gate:
    """ASGI application that passes only permitted requests to another application.

    A request is refused

    - with 403 if its header ``Host`` is not a name of the server (a web page can give its own name the address of this
      machine), or if a web page of another server sends it (``Origin``);
    - with 401 without the token, if the server has one. A client sends it as ``Authorization: Bearer TOKEN``, or as the
      first part of the path, ``http://server:8000/TOKEN``, which the viewers' modules accept as the address of a
      server;
    - with 403 if it comes from another machine to a server without a token, unless this is permitted;
    - with 413 if its body is too large, before the body is read.

    Args:
        app: the application behind the gate.
        access: who may reach the server.
    """

    def __init__(self, app: App, access: Access) -> None:
        self.app, self.access = app, access
        self.names = {name.lower().rstrip(".") for name in access.names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self._refuse_sender(scope)
        if refused is None:
            scope, refused = self._without_token(scope)
        if refused is not None:
            await _answer(send, *refused)
            return
        await self._pass(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limit(scope)
        sizes = _values(scope, b"content-length")
        if any(not size.isdigit() or int(size) > limit for size in sizes):
            await _refuse_body(scope, receive, send, limit)
            return
        received, too_large, started = 0, False, False

        async def counted() -> Message:
            nonlocal received, too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                too_large = True
                raise OSError("the body of the request is too large")
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if not too_large or started:
                started = True
                await send(message)

        try:
            await self.app(scope, counted, watched)
        except Exception:
            if not too_large:
                raise
        if too_large and not started:
            await _refuse_body(scope, receive, send, limit)

    def _refuse_sender(self, scope: Scope) -> tuple[int, str] | None:
        hosts = _values(scope, b"host")
        here = _split(hosts[0]) if len(hosts) == 1 else None
        if here is None:
            return 400, "the request needs one valid header 'Host'."
        server = (scope.get("server") or ("127.0.0.1", None))[0]
        if not (here[0] in self.names or here[0] in _LOOPBACK_NAMES or here[0] == _address(server)):
            return 403, (
                f"this server is not called {here[0]!r}. If it is, start it with --name {here[0]}; its names are "
                f"{', '.join(dict.fromkeys([*_LOOPBACK_NAMES, *sorted(self.names)]))}."
            )
        for origin in _values(scope, b"origin"):
            parts = urlsplit(origin)
            there = _split(parts.netloc)
            port = _PORTS.get(parts.scheme)
            if there is None or (there[0], there[1] or port) != (here[0], here[1] or port):
                if there is None or there[0] not in self.names:
                    return (
                        403,
                        f"web pages of other servers may not use this server, and this one is of {origin[:80]!r}.",
                    )
        if self.access.token is None and not self.access.open and not is_loopback(server):
            return 403, (
                "this server has no token, so it answers only its own machine. Start it with 'monai-landmarks label-server "
                "--token', or with --no-token behind a proxy with a login."
            )
        return None

    def _without_token(self, scope: Scope) -> tuple[Scope, tuple[int, str] | None]:
        """Remove the token from a request, because the application may pass the request on to a DICOM server."""
        token = self.access.token
        if token is None:
            return scope, None
        root = scope.get("root_path", "")
        first = scope["path"].removeprefix(root).lstrip("/").partition("/")[0]
        in_path = _same(first, token)
        headers = [
            (key, value)
            for key, value in scope["headers"]
            if key != b"referer" and not (key == b"authorization" and _same_bearer(value, token))
        ]
        in_header = any(_same_bearer(value.encode("latin-1"), token) for value in _values(scope, b"authorization"))
        if not in_path and not in_header:
            return scope, (
                401,
                "this server needs its token: as the header 'Authorization: Bearer TOKEN', or in the address, "
                "http://server:8000/TOKEN. The server prints it when it starts.",
            )
        return {**scope, "headers": headers, "root_path": f"{root}/{token}" if in_path else root}, None

    def _limit(self, scope: Scope) -> int:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path.startswith("/proxy/"):
            return min(_PROXY_BYTES, self.access.max_upload)
        if path.rstrip("/") == "/datastore/label":
            return min(LABEL_BYTES, self.access.max_upload)
        if scope["method"] in ("PUT", "POST") and _UPLOADS.fullmatch(path):
            return self.access.max_upload
        return _JSON_BYTES


async def _answer(send: Send, status: int, detail: str, more: bool = False) -> None:
    """Send an answer as FastAPI sends its errors."""
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))  # the body of the request, if any, is not read
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _refuse_body(scope: Scope, receive: Receive, send: Send, limit: int) -> None:
    """Answer 413 at once.

    Most clients read an answer only after they have sent everything, and report a broken connection if it was closed
    before. So the rest of the body is received for a while, and thrown away.
    """
    detail = f"the body of the request is larger than the {_readable(limit)} that this server accepts here."
    patient = not _values(scope, b"expect")  # such a client does not send the body after this answer
    await _answer(send, 413, detail, more=patient)
    if patient:
        try:
            await asyncio.wait_for(_drain(receive), _DRAIN_SECONDS)
        except asyncio.TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    received = 0
    while received < _DRAIN_BYTES:
        message = await receive()
        received += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _values(scope: Scope, name: bytes) -> list[str]:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _split(host: str) -> tuple[str, int | None] | None:
    """Return name and port of a ``Host``, or None if it is not valid."""
    match = _HOST.fullmatch(host)
    if match is None:
        return None
    port = match["port"]
    return _address(match["v6"] or match["name"]), int(port) if port else None


def _address(host: str) -> str:
    """Return the usual spelling of an IP address, or of a name."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return host.lower().rstrip(".")


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _same_bearer(value: bytes, token: str) -> bool:
    scheme, _, given = value.decode("latin-1").partition(" ")
    return scheme.lower() == "bearer" and _same(given.strip(), token)


def _readable(size: int) -> str:
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"
