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

"""The gate of the label server, asked as an ASGI server asks it."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from monai_landmarks.apps.label_server import server_access
from monai_landmarks.label import gate as gate_module
from monai_landmarks.label.gate import LABEL_BYTES, Access, Gate, is_loopback

TOKEN = "0123456789abcdefghij"
ANYWHERE = ("192.0.2.7", 8000)


class Inner:
    """Application behind the gate. It reads the whole body and remembers the request."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {}
        self.received = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        more = True
        while more:
            message = await receive()
            self.received += len(message["body"])
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def ask(
    access: Access,
    headers: dict[str, str] | None = None,
    path: str = "/info/",
    method: str = "GET",
    server: tuple[str, int] = ("127.0.0.1", 8000),
    body: Iterable[bytes] = (b"",),
) -> tuple[int, str, Inner]:
    """Send one request, and return the status, the detail of the answer, and what was behind the gate."""
    inner, sent, chunks = Inner(), [], list(body)
    listed = [(key.encode(), value.encode()) for key, value in {"host": "localhost:8000", **(headers or {})}.items()]
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": listed, "server": server}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Gate(inner, access)(scope, receive, send))
    detail = json.loads(b"".join(message.get("body", b"") for message in sent)).get("detail", "")
    assert sent[0]["type"] == "http.response.start" and not sent[-1].get("more_body", False)
    return sent[0]["status"], detail, inner


@pytest.mark.parametrize(
    "host, status",
    [
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:9000", 200),
        ("[::1]:8000", 200),
        ("scanner.example.org", 200),
        ("scanner.example.org.:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example:8000", 403),
        ("127.0.0.2", 403),
        ("0.0.0.0:8000", 403),
        ("", 400),
        ("localhost:8000@evil.example", 400),
        ("local host", 400),
        ("a/b", 400),
    ],
)
def test_host(host: str, status: int) -> None:
    found, detail, inner = ask(Access(names=("Scanner.example.org",)), {"host": host})
    assert found == status and bool(detail) == (status != 200) and bool(inner.scope) == (status == 200)


def test_address_of_the_connection_is_a_name_of_the_server() -> None:
    assert ask(Access(open=True), {"host": "192.0.2.7:8000"}, server=ANYWHERE)[0] == 200
    assert ask(Access(open=True), {"host": "192.0.2.8:8000"}, server=ANYWHERE)[0] == 403


@pytest.mark.parametrize(
    "origin, host, status",
    [
        ("http://localhost:8000", "localhost:8000", 200),
        ("http://localhost", "localhost", 200),
        ("https://scanner.example.org", "scanner.example.org:443", 200),
        ("https://scanner.example.org", "127.0.0.1:8000", 200),  # of a proxy that sets Host
        ("http://localhost:3000", "localhost:8000", 403),
        ("http://127.0.0.1:8000", "localhost:8000", 403),
        ("http://evil.example", "localhost:8000", 403),
        ("null", "localhost:8000", 403),
        ("", "localhost:8000", 403),
    ],
)
def test_origin(origin: str, host: str, status: int) -> None:
    found, _, _ = ask(Access(names=("scanner.example.org",)), {"host": host, "origin": origin}, method="POST")
    assert found == status


def test_token() -> None:
    access = Access(token=TOKEN)
    for headers, path in (
        ({}, "/info/"),
        ({}, f"/{TOKEN[:-1]}/info/"),
        ({}, f"/info/{TOKEN}"),
        ({"authorization": "Bearer x"}, "/info/"),
        ({"authorization": f"Basic {TOKEN}"}, "/info/"),
        ({"authorization": f"Bearer {TOKEN}x"}, "/info/"),
    ):
        status, detail, inner = ask(access, headers, path)
        assert status == 401 and "Authorization: Bearer TOKEN" in detail and not inner.scope
    status, _, inner = ask(access, {"authorization": f"bearer {TOKEN}", "referer": f"http://x/{TOKEN}/"})
    assert status == 200 and inner.scope["root_path"] == "" and TOKEN not in str(inner.scope["headers"])
    status, _, inner = ask(access, {"authorization": "Bearer of-keycloak"}, f"/{TOKEN}/info/")
    assert status == 200 and inner.scope["root_path"] == f"/{TOKEN}" and "of-keycloak" in str(inner.scope["headers"])


def test_no_token_beyond_this_machine() -> None:
    status, detail, _ = ask(Access(), server=ANYWHERE)
    assert status == 403 and "--token" in detail
    assert ask(Access(open=True), server=ANYWHERE)[0] == 200
    assert ask(Access(token=TOKEN), {"authorization": f"Bearer {TOKEN}"}, server=ANYWHERE)[0] == 200
    assert [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "", "example.org")] == [
        *[True] * 3,
        *[False] * 3,
    ]


@pytest.mark.parametrize(
    "method, path, limit",
    [
        ("PUT", "/datastore/label", LABEL_BYTES),
        ("POST", "/train/model", 100 * 2**10),
        ("DELETE", "/datastore/", 100 * 2**10),
        ("PUT", "/datastore/", 5 * 2**20),
        ("PUT", "/datastore/image", 5 * 2**20),
        ("PUT", "/session/", 5 * 2**20),
        ("POST", "/infer/model", 5 * 2**20),
    ],
)
def test_size(method: str, path: str, limit: int) -> None:
    access = Access(max_upload=5 * 2**20)
    status, detail, inner = ask(access, {"content-length": str(limit + 1)}, path, method, body=[b"x"] * 5)
    assert status == 413 and "larger than the" in detail and not inner.scope
    assert ask(access, {"content-length": "x"}, path, method)[0] == 413
    half = b"x" * (limit // 2)
    status, _, inner = ask(access, None, path, method, body=[half, half])
    assert status == 200 and inner.received == 2 * len(half)
    status, _, inner = ask(access, None, path, method, body=[half, half, b"xx", *[half] * 10])  # without a length
    assert status == 413 and inner.received <= limit
    assert ask(access, {"content-length": str(limit + 1), "expect": "100-continue"}, path, method)[0] == 413


@pytest.mark.parametrize("ends", ["silent", "endless"])
def test_the_rest_of_a_refused_body_is_not_awaited_for_long(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that stops sending has a time limit, and one that does not stop a limit in bytes."""
    sent, received = [], 0
    monkeypatch.setattr(gate_module, "_DRAIN_SECONDS", 0.01 if ends == "silent" else 60)
    monkeypatch.setattr(gate_module, "_DRAIN_BYTES", 10)

    async def receive() -> dict[str, Any]:
        nonlocal received
        if ends == "silent":
            await asyncio.Event().wait()
        received += 4
        return {"type": "http.request", "body": b"xxxx", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-length", b"9000000")]
    scope = {"type": "http", "method": "PUT", "path": "/datastore/label", "headers": headers}
    asyncio.run(Gate(Inner(), Access())(scope, receive, send))
    assert sent[0]["status"] == 413 and not sent[-1]["more_body"] and received == (0 if ends == "silent" else 12)


def test_only_requests_pass() -> None:
    """A web socket is closed with the code of a policy; an error of the application behind the gate remains one."""
    inner, sent = Inner(), []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        raise RuntimeError("a fault of the application")

    asyncio.run(Gate(inner, Access())({"type": "websocket", "path": "/"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}] and not inner.scope
    scope = {"type": "http", "method": "GET", "path": "/info/", "headers": [(b"host", b"localhost")]}
    with pytest.raises(RuntimeError, match="a fault of the application"):
        asyncio.run(Gate(inner, Access())(scope, receive, send))


def test_access_of_a_server(tmp_path: Path) -> None:
    assert server_access(tmp_path, "127.0.0.1") == Access() and not list(tmp_path.iterdir())
    everywhere = server_access(tmp_path, "0.0.0.0")
    assert everywhere.token and len(everywhere.token) >= 32 and everywhere.names and not everywhere.open
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert server_access(tmp_path, "10.0.0.1").token == everywhere.token  # the same after the next start
    assert server_access(tmp_path, "localhost", token=True).token == everywhere.token
    assert server_access(tmp_path, "scanner", ("proxy",), token=False) == Access(("proxy", "scanner"), None, True)
    access = Access(("a",), TOKEN, False, 7)
    assert Access.from_environment(access.to_environment()) == access and Access.from_environment({}) == Access()
    (tmp_path / "token").write_text("short")
    with pytest.raises(ValueError, match="at least 16 letters"):
        server_access(tmp_path, "0.0.0.0")
