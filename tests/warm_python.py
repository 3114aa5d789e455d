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

"""Python processes that start at once: copies of a process that has imported torch and MONAI already."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

# its first process imports these; the others are forked from it, before it has threads or has used a GPU
START_METHOD = "forkserver"
_CONTEXT: Any = multiprocessing.get_context(START_METHOD)
_CONTEXT.set_forkserver_preload(
    ["monai.bundle", "monai.handlers", "monai_landmarks.handlers", "matplotlib.pyplot", "ipykernel.kernelapp"]
    + ["torch._dynamo"]  # torch's optimizers import it when the first of them is made
)
# options of torchrun: its workers are copies of itself, which has imported everything; they run a file, not a module
COPIED_WORKERS = ("--run-path", "--start-method=fork")


class WarmPython:
    """``python -m MODULE ...`` in a session of its own, with the methods of :class:`subprocess.Popen`.

    Args:
        arguments: ``"-m"``, the module, and its arguments.
        folder: where it runs.
        output: file to which its output and its errors are appended.
        environment: variables that differ from those of this process.
    """

    stdin = stdout = stderr = None

    def __init__(
        self, arguments: Sequence[object], folder: Path, output: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.output = output
        started, start = _CONTEXT.Pipe(duplex=False)
        variables = {**os.environ, **(environment or {})}
        self._process = _CONTEXT.Process(
            target=_main, args=([*map(str, arguments)], str(folder), str(output), variables, start)
        )
        self._process.start()
        started.recv()  # it has left the session of the tests: a signal to its group does not reach them
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def printed(self, seconds: float = 300) -> str:
        """Wait for its end, which must be without an error, and return what it has printed."""
        try:
            code = self.wait(seconds)
        finally:
            self.kill()
        text = self.output.read_text(encoding="utf-8", errors="replace")
        assert code == 0, f"exit code {code}:\n{text[-9000:]}"
        return text


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _main(arguments: list[str], folder: str, output: str, variables: dict[str, str], start: Any) -> None:
    os.setsid()
    # as in any program: a copy would start a server of its own for its workers, and they would outlive it
    multiprocessing.set_start_method(None, force=True)
    start.send(None)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    if "MPLBACKEND" in variables:  # which matplotlib has read already
        matplotlib.rcParams["backend"] = variables["MPLBACKEND"]
    own, execute = os.getpid(), os.execv

    def stay_warm(program: str, command: Sequence[str]) -> None:
        if os.getpid() != own:  # a child, which shall become any program
            execute(program, command)
        _run(command[1:])

    os.execv = stay_warm
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores for programs in the background
    try:
        _run(arguments)
    except (Exception, KeyboardInterrupt) as error:
        _end(error)


def _end(error: BaseException) -> None:
    """End as Python does after an error: the hook may choose another exit code."""
    sys.excepthook(type(error), error, error.__traceback__)
    sys.exit(1)


def _run(arguments: Sequence[str]) -> None:
    option, module, *rest = arguments
    assert option == "-m"
    sys.path[0] = os.getcwd()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
