"""The errors that a user can cause. Everything else that is raised is a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_flags = False  # are parameters typed as flags?


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


def spelled(name: str, value: object = None) -> str:
    """A parameter, or what it is to be set to, as the caller types it: an argument, or a flag of the command.

    >>> spelled("batch_size"), spelled("resume", True)
    ('batch_size', 'resume=True')
    >>> with flags_spelled():
    ...     spelled("batch_size"), spelled("resume", True), spelled("device", "cpu"), spelled("search_copy", False)
    ('--batch-size', '--resume', '--device cpu', '--no-search-copy')
    """
    if not _flags:
        return name if value is None else f"{name}={value!r}"
    flag = name.replace("_", "-")
    return f"--no-{flag}" if value is False else f"--{flag}" if value in (None, True) else f"--{flag} {value}"


@contextmanager
def flags_spelled() -> Iterator[None]:
    """While the command runs, parameters are spelled as its flags."""
    global _flags
    _flags = True
    try:
        yield
    finally:
        _flags = False
