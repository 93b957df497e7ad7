"""How far a training is: a bar at a terminal, else a line a minute, with batches, images a second and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from robustlab.base.progress import Clock, Piece, bar, every_minute
from robustlab.training.curve import epoch_line

if TYPE_CHECKING:
    from robustlab.training.session import Moment


class TrainClock(Clock):
    """Epochs of batches, after each of which losses and accuracies are measured; before: epochs done already."""

    def __init__(self, epochs: int, before: int, now: Callable[[], float] = time.monotonic) -> None:
        pieces = [Piece(k, f"epoch {k}", "epoch", 1.0, done=k <= before) for k in range(1, epochs + 1)]
        super().__init__(pieces, "epoch", now)
        self.epochs = epochs
        self._at: Moment | None = None
        self._seen = now()
        self._measuring: float | None = None  # seconds that measuring takes after an epoch

    def batch(self, moment: Moment) -> None:
        """A batch is done."""
        now = self._now()
        if self._at is not None and moment.epoch > self._at.epoch:
            self._measuring = max(0.0, now - self._seen - moment.seconds)
        self._at, self._seen = moment, now
        self.changed()

    @property
    def current(self) -> str:
        at = self._at
        if at is None or not self._open:
            return ""
        where = f"batch {at.batch} of {at.batches}" if at.batch < at.batches else "measuring"
        return f"epoch {at.epoch} of {self.epochs}, {where}, {at.rate:.0f} images a second"

    @property
    def is_guess(self) -> bool:
        return self._measuring is None

    def left(self) -> float:
        at = self._at
        if at is None:
            return 0.0
        each, measuring = at.seconds / at.batch, self._measuring or 0.0
        own = (at.batches - at.batch) * each + measuring - (self._now() - self._seen)
        return max(0.0, own) + (self.epochs - at.epoch) * (at.batches * each + measuring)


class Shown:
    """What is shown of a training: a line an epoch, and how far it is; `say` takes lines. It ends with the stack."""

    def __init__(self, stack: ExitStack, say: Callable[[str], None]) -> None:
        self._stack, self._say = stack, say
        self._clock: TrainClock | None = None

    def batch(self, moment: Moment) -> None:
        """A batch is done: the first one starts the clock."""
        if self._clock is None:
            clock = self._clock = TrainClock(moment.epochs, moment.epoch - 1)
            self._stack.enter_context(bar(clock) if sys.stderr.isatty() else every_minute(clock, self._say))
        self._clock.batch(moment)

    def epoch(self, entry: dict[str, Any]) -> None:
        """An epoch is done. entry: its number and what was measured."""
        if self._clock is not None:
            self._clock.finish(entry["epoch"])
        self._say(epoch_line(entry))
