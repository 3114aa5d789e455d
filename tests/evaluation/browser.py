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
"""A page in Chromium without a window, spoken to through a pipe in the DevTools protocol: no driver, no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PATIENCE = 120  # seconds; a busy machine is slow to start a browser


def find_browser():
    """Path of the browser; skips the test, with the reason, where there is none."""
    found = os.environ.get("MONAI_LANDMARKS_TEST_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        pytest.skip(
            f"no browser: none of {', '.join(_NAMES)} is on the path, and MONAI_LANDMARKS_TEST_BROWSER is not set"
        )
    return found


class Page:
    """A file, opened: what it asked for, what went wrong, and what a script sees in it.

    Args:
        path: the file.
        profile: an empty folder for the browser.
        width: of the window in CSS pixels.
        dark: whether the reader wants it dark.
    """

    def __init__(self, path, profile, width=1280, dark=False):
        browser = find_browser()
        self.requests, self.complaints = [], []
        self._number, self._buffer = 0, b""
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
        self._process = subprocess.Popen(
            [browser, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-extensions",
             f"--user-data-dir={profile}", "about:blank"],
            # the protocol is at file descriptors 3 and 4 of the browser
            preexec_fn=lambda: [os.dup2(end, number) for number, end in enumerate(ends, 3)],
            pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for end in ends:
            os.close(end)
        os.close(to_browser)
        os.close(from_browser)
        try:
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Network", "Log", "Runtime", "Page"):
                self._call(f"{domain}.enable")
            self._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self._call("Emulation.setEmulatedMedia", features=[scheme])
            self._call("Page.navigate", url=Path(path).resolve().as_uri())
            self._wait(lambda message: message.get("method") == "Page.loadEventFired")
            # every picture decoded, or given up
            self.run("Promise.all([...document.images].map(i => i.decode().catch(() => 0)))")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def run(self, script):
        """The value of a JavaScript expression."""
        result = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key, code):
        """A key of the keyboard, down and up."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path):
        """The whole page as a PNG."""
        data = self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def _call(self, method, **parameters):
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda message: message.get("id") == number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _wait(self, wanted):
        end = time.monotonic() + _PATIENCE
        while True:
            while b"\0" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(line)
                self._note(message)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError("the browser ended" if ready else f"the browser did not answer in {_PATIENCE} s")
            self._buffer += part

    def _note(self, message):
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(parameters["args"]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
