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
"""The program around the commands."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import monai_landmarks
from monai_landmarks.apps.console import spacing_option, text_table
from monai_landmarks.apps.main import program

ROOT = Path(__file__).parents[2]


def run(*args):
    return subprocess.run(
        [sys.executable, "-m", "monai_landmarks", *map(str, args)], cwd=ROOT, capture_output=True, text=True
    )


def test_the_help_names_every_command_and_needs_no_torch():
    code = """
import sys
from monai_landmarks.apps.main import program
try:
    program(["--help"], prog_name="monai-landmarks")
except SystemExit as end:
    heavy = {"torch", "monai", "numpy", "matplotlib"} & set(sys.modules)
    sys.exit(f"imported {heavy}" if heavy else end.code)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    listed = re.findall(r"^  ([\w-]+)  +\w", result.stdout.partition("Commands:")[2], flags=re.MULTILINE)
    assert listed == sorted(program.commands)


@pytest.mark.parametrize("name", sorted(program.commands))
def test_every_option_says_what_it_does(name):
    command = program.commands[name]
    assert command.help and command.short_help.endswith(".")
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


def test_the_real_program(tmp_path):
    """What the console script calls, in a process of its own: an error is one line, usage is exit code 2."""
    result = run("--version")
    assert (result.returncode, result.stdout.split()[-1]) == (0, monai_landmarks.__version__)
    result = run("check", tmp_path, tmp_path / "absent.csv")
    assert result.returncode == 2 and "absent.csv" in result.stderr and "Traceback" not in result.stderr
    (tmp_path / "t.csv").write_text("image,landmark,x,y\n1,a,1,2\n")
    (tmp_path / "images").mkdir()
    result = run("check", tmp_path / "images", tmp_path / "t.csv", "--out", tmp_path / "out")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {tmp_path / 'images'}: no image in it") and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "error, line",
    [
        (ValueError("t.csv: line 3: wrong"), "Error: t.csv: line 3: wrong"),
        (FileNotFoundError(2, "No such file", "x.csv"), "Error: [Errno 2] No such file: 'x.csv'"),
        (KeyError("mean"), "Error: KeyError: 'mean' ('monai-landmarks --verbose fail ...' shows the traceback)"),
    ],
)
def test_errors_are_one_line(monkeypatch, error, line):
    @click.command()
    def fail():
        raise error

    monkeypatch.setitem(program.commands, "fail", fail)
    result = CliRunner().invoke(program, ["fail"])
    assert (result.exit_code, result.stderr.strip()) == (1, line)
    for arguments, environment in ((["--verbose", "fail"], {}), (["fail"], {"MONAI_LANDMARKS_VERBOSE": "1"})):
        assert CliRunner().invoke(program, arguments, env=environment).exception is error


def test_a_reader_that_stops_early_is_no_error(monkeypatch):
    @click.command()
    def fail():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setitem(program.commands, "fail", fail)
    result = CliRunner().invoke(program, ["fail"])
    assert (result.exit_code, result.output) == (1, "")


def test_spacing() -> None:
    @click.command()
    @spacing_option("Only a test.")
    def program(spacing: float | tuple[float, ...] | None) -> None:
        click.echo(repr(spacing))

    run = CliRunner().invoke
    for text, value in (("0.3", "0.3"), ("0.3,0.25", "(0.3, 0.25)"), ("1x2x3", "(1.0, 2.0, 3.0)")):
        assert run(program, ["--spacing", text]).output.strip() == value
    for wrong in ("", "a", "0", "-1", "nan", "inf", "1,2,3,4", "1,,2"):
        result = run(program, [f"--spacing={wrong}"])
        assert result.exit_code == 2 and "is not a pixel size" in result.output
    assert run(program, ["--help"]).output.rstrip().splitlines()[-2].endswith("Only a test.")


def test_text_table():
    rows = [{"name": "a", "n": 5, "mean": float("nan"), "of": None}, {"name": "bcd", "n": 12, "mean": 1.005, "of": "x"}]
    assert text_table(rows, digits=1) == "name   n  mean  of\na      5\nbcd   12   1.0  x"
    assert text_table([]) == ""
