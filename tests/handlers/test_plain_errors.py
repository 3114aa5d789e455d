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
"""What the program prints at its end."""

from __future__ import annotations

import pytest

from monai_landmarks.data import UnreadableImagesError
from monai_landmarks.handlers.plain_errors import _PlainHook, note_continuation


def test_interrupt_is_one_line(capsys):
    note_continuation(lambda: "To continue, repeat the command.")
    try:
        with pytest.raises(SystemExit) as end:
            _PlainHook()(KeyboardInterrupt, KeyboardInterrupt(), None)
    finally:
        note_continuation(None)
    assert end.value.code == 130
    assert capsys.readouterr().err == "Interrupted. To continue, repeat the command.\n"


def test_the_last_line_is_the_error_itself(capsys):
    try:
        try:
            try:
                raise ValueError("a.nii: 3 voxels are NaN.")
            except ValueError as error:
                raise RuntimeError("applying transform <RequireFinited>") from error
        except RuntimeError as error:
            raise RuntimeError("Failed to evaluate '$@train#trainer.run()'") from error
    except RuntimeError as error:
        _PlainHook()(RuntimeError, error, error.__traceback__)
    text = capsys.readouterr().err
    assert "Traceback" in text and text.splitlines()[-1] == "ValueError: a.nii: 3 voxels are NaN."


def test_other_errors_are_printed_as_python_does(capsys):
    _PlainHook()(ValueError, ValueError("bad"), None)
    assert capsys.readouterr().err == "ValueError: bad\n"


def test_images_that_were_left_out_are_no_traceback(capsys):
    """The inference is complete: there is no place in a program to show."""
    try:
        try:
            raise UnreadableImagesError("1 of the 3 images were left out:\n  - a.png: broken")
        except ValueError as error:
            raise RuntimeError("Failed to evaluate '$@dataloader.require_all_read()'") from error
    except RuntimeError as error:
        _PlainHook()(RuntimeError, error, error.__traceback__)
    assert capsys.readouterr().err == "1 of the 3 images were left out:\n  - a.png: broken\n"
