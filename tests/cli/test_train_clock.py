"""The clock of a training: batches and measuring, epoch by epoch."""

from __future__ import annotations

from robustlab.cli.train_clock import TrainClock
from robustlab.training.session import Moment


def moment(epoch: int, batch: int, seconds: float) -> Moment:
    return Moment(epoch, 3, batch, 10, seconds, 80.0)


def test_the_clock_counts_batches_and_measuring() -> None:
    time = [0.0]
    clock = TrainClock(3, 0, now=lambda: time[0])
    assert clock.left() == 0 and clock.is_guess
    time[0] = 4.0
    clock.batch(moment(1, 2, 4.0))
    assert clock.left() == 8 * 2 + 2 * 20 and clock.is_guess  # what measuring takes is not known yet
    assert clock.current == "epoch 1 of 3, batch 2 of 10, 80 images a second"
    time[0] = 20.0
    clock.batch(moment(1, 10, 20.0))
    assert "measuring" in clock.current
    time[0] = 25.0
    clock.finish(1)
    time[0] = 27.0
    clock.batch(moment(2, 1, 2.0))
    assert not clock.is_guess and clock.left() == 9 * 2 + 5 + 25
    assert clock.line().startswith(
        "1 of 3 epochs, now epoch 2 of 3, batch 1 of 10, 80 images a second; about 48 s left"
    )
    time[0] = 30.0
    assert clock.left() == 45


def test_a_resumed_training_has_its_epochs_behind_it() -> None:
    clock = TrainClock(3, 2, now=lambda: 0.0)
    assert (clock.done, clock.total) == (2, 3)
    clock.finish(3)
    assert clock.done == 3 and clock.current == ""
