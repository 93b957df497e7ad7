"""The application that the commands belong to, and what is checked of every word."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from cyclopts import UNSET, App, Parameter, Token, convert

from robustlab import __version__
from robustlab.base.errors import UserError


def _inside(kind: Any) -> list[Any]:
    """A type and all that it is made of: list[int] | None has int inside."""
    return [kind, *(inner for each in get_args(kind) for inner in _inside(each))]


def _checked(kind: Any, tokens: Sequence[Token]) -> Any:
    """What cyclopts makes of the words, without those that it would take and that nobody can mean."""
    kinds = _inside(kind)
    for word in (token.value for token in tokens if token.implicit_value is UNSET):
        if word == "":
            raise ValueError("an empty value was given. Give one, or leave it out.")
        if Path in kinds:
            _check_path(word)
        if int in kinds and "." in word:
            raise ValueError("a whole number is expected")
        if int in kinds and len(word) > DIGITS:
            raise ValueError(f"a whole number of at most {DIGITS} digits is expected, got {len(word)}.")
        if float in kinds and word.strip("+-").lower() in ("nan", "inf", "infinity"):
            raise ValueError(f"a finite number is expected, got {word}.")
    return convert(kind, tokens)


def _check_path(text: str) -> None:
    """No name in a path is longer than file systems take."""
    for part in text.split("/"):
        if (size := len(os.fsencode(part))) > LONGEST:
            raise UserError(f"The name {part[:20]}...{part[-10:]} has {size} bytes; file systems take {LONGEST}.")


app = App(
    name="robustlab",
    version=__version__,
    help="How does an image classifier fail, how badly, why, and what makes it better?",
    suppress_keyboard_interrupt=False,  # `main` says that the run can be resumed
    default_parameter=Parameter(converter=_checked),
)

LONGEST = 255  # bytes in a name: what file systems take
DIGITS = 18  # of whole numbers that fit into 64 bits for certain


def command_line() -> str:
    """What was typed, without the path of the interpreter."""
    return shlex.join(["robustlab", *sys.argv[1:]])


def check_words(words: Sequence[str]) -> None:
    """A `UserError` for words that cannot be written down."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(word).decode(errors="backslashreplace")
            told = "Rename it, or make a link with another name: ln -s."
            if sys.getfilesystemencoding() != "utf-8":
                told = "Set LC_ALL=C.UTF-8, or rename it."
            raise UserError(f"{shown} is not UTF-8, and a run writes down what it was given. {told}") from None


def of_the_user(error: OSError, words: Sequence[str]) -> bool:
    """Is it about a file that was named on the command line, or one inside a folder that was?"""
    if error.filename is None:
        return False
    there = os.path.abspath(os.fsdecode(error.filename))
    for word in words:
        for named in {word, word.partition("=")[2], word.partition(":")[2], word.rpartition(":")[0]} - {""}:
            path = os.path.abspath(os.path.expanduser(named))
            if there == path or there.startswith(path + os.sep):
                return True
    return False
