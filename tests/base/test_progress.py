"""How far work is: what is left follows from what was measured, and a guess is called a guess."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from robustlab.base.progress import Clock, Piece, every_minute, until
from robustlab.base.words import rough_duration


class Now:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def clock(*pieces: tuple[str, str, float], before: int = 0) -> tuple[Clock, Now]:
    now = Now()
    earlier = [Piece(n, "earlier", "earlier", 1000, done=True) for n in range(before)]
    return Clock([*earlier, *(Piece(name, name, kind, guess) for name, kind, guess in pieces)], now=now), now


def test_a_guess_is_corrected_by_what_was_measured() -> None:
    own, now = clock(("a1", "a", 10), ("b1", "b", 30), ("a2", "a", 10), ("b2", "b", 30))
    assert own.left() == 80 and own.is_guess and "a guess: about 80 s left" in own.line()
    now.seconds = 20  # twice what was guessed: so will the rest be
    own.finish("a1")
    assert own.left() == 140 and not own.is_guess
    assert own.line().startswith("1 of 4 units, now b1; about 2 min left, until ")
    now.seconds = 35  # b1 took half of its guess: each kind goes by its own
    own.finish("b1")
    assert own.left() == 20 + 15
    now.seconds = 40
    assert own.left() == 15 + 15
    own.finish("a2"), own.finish("b2")
    assert own.left() == 0 and own.line() == "4 of 4 units"


def test_a_piece_that_takes_longer_than_guessed_is_not_over_in_no_time() -> None:
    own, now = clock(("a", "a", 10), ("b", "b", 10))
    now.seconds = 100
    assert own.left() == 25 + 10
    own.part(0.25)
    assert own.left() == 300 + 10


def test_what_was_done_before_counts_and_measures_nothing() -> None:
    own, now = clock(("b", "b", 10), before=3)
    assert not own.finish(0)  # of another run of the same work
    assert (own.done, own.total, own.left()) == (3, 4, 10)
    now.seconds = 5
    assert own.finish("b")
    assert (own.done, own.total) == (4, 4)


def test_a_line_now_and_then() -> None:
    own, _ = clock(("a", "a", 10))
    told: list[str] = []
    with every_minute(own, told.append, seconds=0.02):
        time.sleep(0.15)
    count = len(told)
    assert 2 <= count <= 8 and all("0 of 1 unit, now a; a guess: about 10 s left, until" in line for line in told)
    time.sleep(0.05)
    assert len(told) == count


@pytest.mark.parametrize("seconds", [0.0, 1.0, 89.6, 3600.0, 86400.0, 1e7, 1e30])
def test_every_time_has_words(seconds: float) -> None:
    assert rough_duration(seconds)[0].isdigit() and until(seconds, datetime(2026, 1, 1))
