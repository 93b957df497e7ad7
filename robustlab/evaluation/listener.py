"""Who is told what happens in a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from robustlab.base.progress import Clock, every_minute
from robustlab.base.words import visible

Say = Callable[[str], None]


@dataclass(frozen=True)
class Listener:
    """Who is told what happens.

    say: gets sentences. warn: gets warnings; default: `say`, after "Warning: ". advance: gets (pieces done, pieces in
    all, what was done). watch: shows how far the work is while it goes on, a line a minute unless another is given; see
    `robustlab.base.progress`.

    >>> said = []
    >>> Listener(say=said.append).warn("the model is randomised")
    >>> said
    ['Warning: the model is randomised']
    """

    say: Say = field(default=lambda text: print(visible(text), file=sys.stderr))
    warn: Say = field(default=None, repr=False)  # type: ignore[assignment]
    advance: Callable[[int, int, str], None] = field(default=lambda done, total, text: None)
    watch: Callable[[Clock, Say], AbstractContextManager[None]] = every_minute

    def __post_init__(self) -> None:
        if self.warn is None:
            say = self.say
            object.__setattr__(self, "warn", lambda text: say(f"Warning: {text}"))
