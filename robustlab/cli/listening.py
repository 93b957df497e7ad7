"""Who is told what happens in a run of the command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from robustlab.base.words import visible

if TYPE_CHECKING:
    from robustlab.evaluation.listener import Listener


def listener_of(quiet: bool) -> Listener:
    """Sentences and progress on stderr: a bar if it is a terminal, otherwise a line a minute."""
    from contextlib import nullcontext

    from robustlab.base.progress import bar
    from robustlab.evaluation.listener import Listener

    if quiet:
        return Listener(
            say=lambda text: None,
            warn=lambda text: print(f"Warning: {visible(text)}", file=sys.stderr),
            watch=lambda clock, say: nullcontext(),
        )
    if not sys.stderr.isatty():
        return Listener()
    return Listener(watch=lambda clock, say: bar(clock))
