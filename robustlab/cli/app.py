"""The application that the commands belong to, and the types that their flags share."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

from cyclopts import App, Parameter

from robustlab import __version__

app = App(
    name="robustlab",
    version=__version__,
    help="How does an image classifier fail, how badly, why, and what makes it better?",
    suppress_keyboard_interrupt=False,  # `main` says that the run can be resumed
)

Flag = Annotated[bool, Parameter(negative=())]
Words = Annotated[list[str], Parameter(negative=())]


def command_line() -> str:
    """What was typed, without the path of the interpreter."""
    return shlex.join(["robustlab", *sys.argv[1:]])
