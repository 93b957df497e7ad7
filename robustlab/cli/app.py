"""The application that the commands belong to, and the types that their flags share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any, get_args

from cyclopts import App, Parameter, Token, convert

from robustlab import __version__


def _whole_numbers(kind: Any, tokens: Sequence[Token]) -> Any:
    """What cyclopts makes of the words, except that it would round 1.5 where a whole number is expected."""
    if int in (kind, *get_args(kind)) and any("." in token.value for token in tokens):
        raise ValueError("a whole number is expected")
    return convert(kind, tokens)


app = App(
    name="robustlab",
    version=__version__,
    help="How does an image classifier fail, how badly, why, and what makes it better?",
    suppress_keyboard_interrupt=False,  # `main` says that the run can be resumed
    default_parameter=Parameter(converter=_whole_numbers),
)

Flag = Annotated[bool, Parameter(negative=())]
Words = Annotated[list[str], Parameter(negative=())]


def command_line() -> str:
    """What was typed, without the path of the interpreter."""
    return shlex.join(["robustlab", *sys.argv[1:]])
