"""The command: parse, call, print. Importing this package imports no torch."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from robustlab.base.errors import RunError, UserError, flags_spelled
from robustlab.base.words import visible
from robustlab.cli import (  # noqa: F401, each adds its commands
    attack,
    backdoor,
    compare,
    data,
    explain,
    paper,
    printing,
    report,
    scan,
    scan_model,
    train,
    verify,
    zoo,
)
from robustlab.cli.app import app, check_words, of_the_user
from robustlab.cli.streams import guarded

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)  # by the machine, whoever named the file


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 failed or a threshold missed, 2 bad input, 130 interrupted.

    1 also where standard output could not be written to, in silence where its reader has left.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    with guarded() as lost, flags_spelled():
        code = _run(words)
        if (reason := lost.reason) is None:
            return code
        if reason:
            print(f"robustlab: Standard output cannot be written to: {reason}.", file=sys.stderr)
        return code or 1


def _run(words: Sequence[str]) -> int:
    try:
        check_words(words)
        _check_place()
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        return result if isinstance(result, int) else 0
    except (CycloptsError, UserError) as error:
        print(f"robustlab: {visible(error)}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"robustlab: {visible(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in REFUSED and not of_the_user(error, words):
            raise
        print(f"robustlab: {visible(error.filename or 'A file')} cannot be used: {error.strerror}.", file=sys.stderr)
        return 1 if error.errno in REFUSED else 2
    except KeyboardInterrupt as stop:
        how = f" What is finished is kept; the same command with {stop} goes on." if str(stop) else ""
        print(f"robustlab: interrupted.{visible(how)}", file=sys.stderr)
        return 130


def _check_place() -> None:
    try:
        os.getcwd()
    except OSError:
        raise UserError("The current folder was removed. Go to one that is there: cd.") from None
