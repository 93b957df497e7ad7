"""How far long work is, and when it ends: a line a minute, or a bar at a terminal. No torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from robustlab.base.words import counted, rough_duration, visible

if TYPE_CHECKING:
    from rich.progress import Task

MINUTE = 60.0
ENOUGH = 0.1  # share of the work that must be measured before the estimate uses it


@dataclass(frozen=True)
class Piece:
    """A piece of the work. kind: pieces whose guesses are wrong by the same factor. seconds: the guess.

    key: what `Clock.finish` calls it. name: what people are told. done: before the work began.
    """

    key: Hashable
    name: str
    kind: Hashable
    seconds: float
    done: bool = False


class Clock:
    """What is done of several pieces, one after another, and how long the rest takes by what was measured so far.

    unit: what people call a piece. now: the seconds since any moment.

    >>> times = iter([0.0, 30.0, 30.0])
    >>> clock = Clock([Piece(n, f"epoch {n}", "epoch", 10) for n in (1, 2, 3)], "epoch", now=lambda: next(times))
    >>> clock.finish(1)
    True
    >>> clock.left(), clock.is_guess
    (60.0, False)
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        unit: str = "unit",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.unit, self._now = unit, now
        self.changed: Callable[[], None] = lambda: None  # called when a piece is done
        self._open = {piece.key: piece for piece in pieces if not piece.done}
        self._guessed: dict[Hashable, float] = {}  # of what is done, by kind
        self._measured: dict[Hashable, float] = {}
        self._share = 0.0  # of the piece at work
        self.total, self._whole = len(pieces), sum(piece.seconds for piece in self._open.values())
        self._since = now()

    @property
    def done(self) -> int:
        return self.total - len(self._open)

    @property
    def current(self) -> str:
        """The piece at work."""
        left = list(self._open.values())
        return left[0].name if left else ""

    def part(self, share: float) -> None:
        """So much of the piece at work is done, from 0 to 1."""
        self._share = share

    def finish(self, key: Hashable) -> bool:
        """A piece is done, and the next begins. False where it was done already."""
        now = self._now()
        passed, self._since, self._share = now - self._since, now, 0.0
        if (piece := self._open.pop(key, None)) is not None:
            self._guessed[piece.kind] = self._guessed.get(piece.kind, 0.0) + piece.seconds
            self._measured[piece.kind] = self._measured.get(piece.kind, 0.0) + passed
        self.changed()
        return piece is not None

    @property
    def is_guess(self) -> bool:
        """Is too little measured to correct the guess?"""
        return sum(self._guessed.values()) < ENOUGH * self._whole

    def left(self) -> float:
        """Seconds: what was guessed of the open pieces, times what the pieces done took of their guesses."""
        passed, seconds = self._now() - self._since, 0.0
        guessed = sum(self._guessed.values())
        overall = sum(self._measured.values()) / guessed if guessed and not self.is_guess else 1.0
        for at, piece in enumerate(list(self._open.values())):
            own = self._guessed.get(piece.kind)
            takes = piece.seconds * (self._measured[piece.kind] / own if own else overall)
            if at == 0:  # at work: at least the time that has passed; by its share, if known
                takes = passed / self._share if self._share > 0 else max(takes, 1.25 * passed)
                takes -= passed
            seconds += takes
        return seconds

    def line(self) -> str:
        """What is done, what is left, and until when."""
        units = f"{self.done} of {counted(self.total, self.unit)}"
        return f"{units}, now {self.current}; {self.rest('about ')}" if self.current else units

    def rest(self, about: str = "") -> str:
        """What is left, and until when."""
        seconds = self.left()
        return f"{'a guess: ' * self.is_guess}{about}{rough_duration(seconds)} left, until {until(seconds)}"


def until(seconds: float, start: datetime | None = None) -> str:
    """The time of day, with the day where that is another.

    >>> until(3600, datetime(2026, 1, 30, 14, 5)), until(86400, datetime(2026, 1, 31, 14, 5))
    ('15:05', '14:05 on 1 February')
    """
    start = start or datetime.now()
    try:
        end = start + timedelta(seconds=seconds)
    except OverflowError:
        return "long after all of us"
    return f"{end:%H:%M}" + (f" on {end.day} {end:%B}" if end.date() != start.date() else "")


@contextmanager
def every_minute(clock: Clock, say: Callable[[str], None], seconds: float = MINUTE) -> Iterator[None]:
    """A line now and then while the work goes on in this thread."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(seconds):
            say(clock.line())

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


@contextmanager
def bar(clock: Clock) -> Iterator[None]:
    """A bar on stderr, which must be a terminal; what is printed there meanwhile appears above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(clock.rest())

    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), MofNCompleteColumn())
    own = Console(stderr=True)
    progress = Progress(*columns, TimeElapsedColumn(), Left(), console=own, transient=True, redirect_stdout=False)
    row = progress.add_task(visible(clock.current), total=clock.total, completed=clock.done)
    clock.changed = lambda: progress.update(row, completed=clock.done, description=visible(clock.current))
    with progress:
        yield
