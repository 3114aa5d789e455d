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

"""The program ``monai-landmarks``.

Each command is a ``click`` command in a file of its own, which calls a public function. The files import torch and
MONAI only inside functions, so that the help and other commands start quickly.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from typing import Any

import click

from monai_landmarks import __version__
from monai_landmarks.__main__ import INTERRUPTED

from .agreement import agreement
from .calibrate import calibrate
from .check import check
from .convert import convert
from .datasets import datasets
from .evaluate import evaluate
from .init import init
from .label_app import label_app
from .label_server import label_server
from .models import models
from .predict import predict
from .report import report
from .study import study

__all__ = ["program"]


class _Program(click.Group):
    """Group of commands that turns an exception into one line on stderr and exit code 1.

    Wrong usage is reported by click, with exit code 2.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click ends quietly when the reader of the output stops, as in "... | head"
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if ctx.params["verbose"]:
                raise
            # these exceptions describe faults of the input; others are faults of the program
            expected = isinstance(error, (ValueError, OSError, ImportError))
            kind = "" if expected else f"{type(error).__name__}: "
            more = (
                "" if expected else f" ('monai-landmarks --verbose {ctx.invoked_subcommand} ...' shows the traceback)"
            )
            raise click.ClickException(f"{kind}{error}{more}") from error


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="monai-landmarks")
@click.option(
    "--verbose",
    is_flag=True,
    envvar="MONAI_LANDMARKS_VERBOSE",
    help="Show the traceback of an error, and the warnings and logs of other packages.",
)
def program(verbose: bool) -> None:
    """Anatomical landmarks in medical images: check data, set up a bundle, predict, evaluate."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that is not UTF-8 must not end a command when it is printed
            stream.reconfigure(errors="backslashreplace")
    if not verbose:
        warnings.simplefilter("ignore")
        # what is assumed about a landmark file
        warnings.filterwarnings("default", module=r"monai_landmarks\.(data\.landmarks|evaluation\.landmark_sources)")
        warnings.showwarning = _show_note
        # without a handler, Python prints the logs of other packages into the output of a command
        logging.getLogger().addHandler(logging.NullHandler())


def _show_note(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    click.echo(f"note: {message}", err=True)


program.add_command(agreement)
program.add_command(calibrate)
program.add_command(check)
program.add_command(convert)
program.add_command(datasets)
program.add_command(evaluate)
program.add_command(init)
program.add_command(label_app)
program.add_command(label_server)
program.add_command(models)
program.add_command(predict)
program.add_command(report)
program.add_command(study)
