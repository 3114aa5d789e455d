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
"""What a bundle prints when it is stopped from the command line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import TracebackType

__all__ = ["note_continuation", "plain_errors"]

INTERRUPTED = 130  # exit code of a program that Ctrl-C ended: 128 + the number of SIGINT
# of MONAI around the error of a component or a transform
_WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")
_ENGINES = ("SupervisedTrainer", "SupervisedEvaluator")

_continuation: list[Callable[[], str]] = []


def plain_errors() -> None:
    """End the program with a plain message after Ctrl-C or an error.

    Ctrl-C prints one line, which says how to continue the training, and the exit code is 130. The traceback of an error
    in a component of a configuration ends with the message of that error, instead of that of MONAI's configuration
    parser. If an inference has left out images, only that message is printed.

    This function sets ``sys.excepthook``. It has no effect on errors that a program handles itself.
    """
    if not isinstance(sys.excepthook, _PlainHook):
        sys.excepthook = _PlainHook()
    for name in _ENGINES:
        logger = logging.getLogger(f"ignite.engine.engine.{name}")
        if not any(isinstance(found, _NoInterrupts) for found in logger.filters):
            logger.addFilter(_NoInterrupts())


def note_continuation(text: Callable[[], str] | None) -> None:
    """Set the function that says at Ctrl-C how to continue; None if there is nothing to continue."""
    _continuation[:] = [] if text is None else [text]


class _NoInterrupts(logging.Filter):
    """Leave out ignite's message about an exception without text, which is Ctrl-C."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().endswith("terminating due to exception: ")


class _PlainHook:
    """A ``sys.excepthook``."""

    def __init__(self) -> None:
        self.before = sys.excepthook

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            start = "\n" if sys.stderr.isatty() else ""  # a progress bar has not ended its line
            print(
                f"{start}Interrupted. {' '.join(text() for text in _continuation)}".rstrip(),
                file=sys.stderr,
                flush=True,
            )
            sys.exit(INTERRUPTED)
        cause = error
        while str(cause).startswith(_WRAPPERS) and cause.__cause__ is not None:
            cause = cause.__cause__
        if _is_about_images(cause):
            print(cause, file=sys.stderr, flush=True)
            return
        self.before(kind, error, trace)
        if cause is not error:
            print(f"\n{type(cause).__name__}: {cause}", file=sys.stderr, flush=True)


def _is_about_images(error: BaseException) -> bool:
    from monai_landmarks.data import UnreadableImagesError  # its module imports torch, which Ctrl-C must not wait for

    return isinstance(error, UnreadableImagesError)
