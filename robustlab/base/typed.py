"""Values as somebody typed them, checked before anything is loaded. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from robustlab.base.errors import UserError, did_you_mean, spelled

LARGEST = 2**63 - 1  # what torch can count with


def check_device(name: str) -> str:
    """The name of a device that robustlab can compute on, whether or not it is here.

    >>> check_device("cuda:1")
    'cuda:1'
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", str(name), re.ASCII):
        said = f"{spelled('device')} is one of auto, cpu, cuda or cuda:N, got {str(name)!r}"
        raise UserError(f"{said}. Leave it out for the best.")
    return str(name)


def check_whole(name: str, value: int | None, least: int) -> None:
    """A whole number from `least` on that fits into 64 bits; None is left alone."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    if value is not None and value < least:
        raise UserError(f"{name} must be at least {least}, got {value}.")
    if value is not None and value > LARGEST:
        raise UserError(f"{name} must be at most 2^63 - 1 = {LARGEST}, got {value}.")


def check_amounts(owner: str, content: Mapping[str, object], above: Sequence[str] = ()) -> None:
    """Every number in a mapping is finite and at least 0; those named in `above` are larger. owner: who needs them.

    >>> check_amounts("trades", {"beta": 6.0, "norm": "linf"})
    """
    for key, value in content.items():
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise UserError(f"{owner} needs {key} of at least 0, and finite, got {value!r}.")
        if key in above and value == 0:
            raise UserError(f"{owner} needs {key} above 0, got {value!r}.")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """One of a few values, also in type: 1 is not True.

    >>> check_choice("labels", "given", ["given", "predicted"])
    """
    if not any(value is each or (value == each and type(value) is type(each)) for each in choices):
        words = ", ".join(map(str, choices))
        raise UserError(f"{name} must be one of {words}; got {value!r}.{did_you_mean(str(value), map(str, choices))}")
