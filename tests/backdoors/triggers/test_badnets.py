"""Where the pattern is, and in what colour."""

from __future__ import annotations

import pytest
import torch

from robustlab.backdoors.triggers.badnets import BadNets
from robustlab.base.errors import UserError

X = [(11, 16), (11, 18), (12, 17), (13, 16), (13, 18)]


def test_a_pattern_in_colour_at_its_place() -> None:
    trigger = BadNets("x", colour=(0.4, 0.0, 0.1), at=(11, 16))
    stamped = trigger.stamped(torch.full((1, 3, 32, 32), 0.5))[0]
    assert (stamped != 0.5).any(0).nonzero().tolist() == [list(place) for place in X]
    assert stamped[:, 12, 17].tolist() == pytest.approx([0.4, 0.0, 0.1])


def test_in_a_corner() -> None:
    stamped = BadNets("l", corner="bottom-left").stamped(torch.zeros(1, 1, 8, 8))[0, 0]
    assert stamped.nonzero().tolist() == [[5, 1], [6, 1], [6, 2]]


def test_a_place_before_the_first_pixel() -> None:
    with pytest.raises(UserError, match="at must be"):
        BadNets("x", at=(-1, 0))
