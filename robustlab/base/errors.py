"""The errors that a user can cause. Everything else that is raised is a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message says what was expected, what came and what to do; the command exits with 2."""


class RunError(RuntimeError):
    """A run that could not go on (a model that raises, a full disk). The command prints it and exits with 1."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest known word, or an empty string.

    >>> did_you_mean("pdg", ["pgd", "fgsm"])
    " Did you mean 'pgd'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
