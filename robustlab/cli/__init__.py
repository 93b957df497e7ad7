"""The command: parse, call, print. Importing this package imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from robustlab.cli import attack, look, reports, train, verify  # noqa: F401, each adds its commands, in this order
from robustlab.cli.app import app
from robustlab.errors import RunError, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 failed or a threshold missed, 2 bad input, 130 interrupted."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (CycloptsError, UserError) as error:
        print(f"robustlab: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"robustlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        how = f" What is finished is kept; the same command with {stop} goes on." if str(stop) else ""
        print(f"robustlab: interrupted.{how}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout has gone, as in `robustlab zoo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
