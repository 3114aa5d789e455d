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

"""A real MONAI Label server for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import requests
from warm_python import WarmPython, free_port

ROOT = Path(__file__).parents[2]
STARTED: list[LabelServer] = []
_PATIENCE = 300.0  # seconds, for steps that take a few seconds on an idle machine


class LabelServer:
    """A MONAI Label server in its own process, which ends with the ``with`` block.

    Args:
        app: folder of the app.
        studies: folder of the images.
        home: for what the server keeps elsewhere.
        conf: the app's ``--conf``.
    """

    def __init__(self, app: Path, studies: Path, home: Path, conf: Mapping[str, str]) -> None:
        self.app, self.studies, self.home, self.conf = app, studies, home, dict(conf)
        self.url = ""
        self.log = home / "server.log"
        self._process: WarmPython | None = None

    def __enter__(self) -> LabelServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start on a free port of this machine, and wait until it answers."""
        self.home.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            "-m",
            "monai_landmarks",
            "label-server",
            "--app",
            self.app,
            "--studies",
            self.studies,
            "--port",
            port,
        ]
        for key, value in self.conf.items():
            command += ["--conf", key, value]
        own = {
            "HOME": self.home,
            "PYTHONPATH": ROOT,
            "OMP_NUM_THREADS": 1,
            "MONAI_LABEL_SESSION_PATH": self.home / "sessions",
        }
        environment = {key: str(value) for key, value in own.items()}
        self._process = WarmPython(command, self.home, self.log, environment)  # it reads settings from an .env file
        STARTED.append(self)
        try:
            self.wait_until(lambda: self.answers(), "answer")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and all processes that it has started, in whatever state they are."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(10)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()
        self._process = None
        STARTED.remove(self)

    def answers(self) -> bool:
        """Return whether the server answers."""
        assert self._process is not None and self._process.poll() is None, f"the server has ended:\n{self.log_tail()}"
        try:
            return requests.get(f"{self.url}/info/", timeout=_PATIENCE).status_code == 200
        except requests.ConnectionError:
            return False

    def listens_on(self) -> set[str]:
        """Return the addresses on which the server listens."""
        assert self._process is not None
        listening = psutil.Process(self._process.pid).net_connections("inet")
        return {entry.laddr.ip for entry in listening if entry.status == psutil.CONN_LISTEN}

    def wait_until(self, true: Any, what: str) -> None:
        """Wait for a condition, with a time limit."""
        end = time.monotonic() + _PATIENCE
        while not true():
            assert time.monotonic() < end, f"the server did not {what} in {_PATIENCE:.0f} s:\n{self.log_tail()}"
            time.sleep(0.1)

    def ask(self, method: str, path: str, expect: int | None = 200, **more: Any) -> Any:
        """Return the JSON answer of the server, or the whole response if no status is expected."""
        answer = requests.request(method, self.url + path, timeout=_PATIENCE, **more)
        if expect is None:
            return answer
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}\n{self.log_tail()}"
        return answer.json()

    def task(self, path: str, start: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Start a background task, wait for its end and return its state."""
        begun = self.ask("POST", start, json=dict(params))["id"]

        def state() -> dict[str, Any]:
            return next(task for task in self.ask("GET", f"{path}?all=true") if task["id"] == begun)

        self.wait_until(lambda: state()["status"] not in ("SUBMITTED", "RUNNING"), f"finish {start}")
        return state()

    def save_label(self, image: str, file: Path, expect: int | None = 200, **more: Any) -> Any:
        """Submit a label as the viewers' plugins do."""
        with open(file, "rb") as content:
            return self.ask(
                "PUT", "/datastore/label", expect, params={"image": image, **more}, files={"label": content}
            )

    def log_tail(self, lines: int = 80) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
