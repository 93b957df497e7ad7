"""A patch or a few pixels at a fixed place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.backdoors.triggers.base import Role, Trigger, check_fits
from robustlab.base.errors import UserError
from robustlab.base.typed import check_choice, check_whole
from robustlab.data import Loaded

CORNERS = ("bottom-right", "bottom-left", "top-right", "top-left")
PATTERNS: dict[str, tuple[tuple[int, int], ...]] = {  # rows and columns inside a square
    "pixel": ((0, 0),),
    "x": ((0, 0), (0, 2), (1, 1), (2, 0), (2, 2)),
    "l": ((0, 0), (1, 0), (1, 1)),
}


@dataclass(frozen=True)
class BadNets(Trigger):
    """A small pattern in a corner (Gu et al. 2017, arXiv:1708.06733; Tran et al. 2018, arXiv:1811.00636).

    pattern: checkers (black and white, as many later papers take them), square (of one colour), or pixel, x (5 pixels),
    l (3 pixels), which are Tran et al.'s. size: side of checkers and square in pixels. margin: pixels between it and
    the border. at: row and column of its upper left pixel, in place of corner and margin. colour: one value for all
    channels, or one for each, in [0, 1]; checkers have none. UserError: a bad parameter.

    Gu et al. take one bright pixel or a few on digits, and a yellow square, a bomb or a flower on traffic signs:
    `pixel`, `x` and `square` are nearest.

    >>> BadNets("x").pixels()[0].shape
    torch.Size([3, 3])
    """

    pattern: str = "checkers"
    size: int = 3
    corner: str = "bottom-right"
    margin: int = 1
    colour: tuple[float, ...] = (1.0,)
    at: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_choice("pattern", self.pattern, ("checkers", "square", *PATTERNS))
        check_choice("corner", self.corner, CORNERS)
        check_whole("size", self.size, 1)
        check_whole("margin", self.margin, 0)
        if len(self.colour) not in (1, 3) or not all(0 <= c <= 1 for c in self.colour):
            raise UserError(f"colour is one number or three, each from 0 to 1; got {self.colour}.")
        for place in self.at or ():
            check_whole("at", place, 0)

    def pixels(self) -> tuple[Tensor, Tensor]:
        """Where the pattern is, (s, s) bool, and how bright, (s, s) as a factor of the colour."""
        places = PATTERNS.get(self.pattern)
        if places is None:
            line = torch.arange(self.size)
            checkers = ((line[:, None] + line) % 2 == 0).float()
            return torch.ones_like(checkers, dtype=torch.bool), (
                checkers if self.pattern == "checkers" else torch.ones_like(checkers)
            )
        mask = torch.zeros(side(places), side(places), dtype=torch.bool)
        mask[tuple(torch.tensor(places).T)] = True
        return mask, mask.float()

    def check(self, data: Loaded) -> None:
        s = len(self.pixels()[0])
        top, left = self.at or (self.margin, self.margin)
        where = "at its place" if self.at else "with its margin"
        check_fits(f"The trigger {where}", (top + s, left + s), data.images)
        channels = data.images.shape[1]
        if len(self.colour) not in (1, channels):
            raise UserError(f"The trigger has {len(self.colour)} colour channels and the images have {channels}.")

    def put(self, data: Loaded, seed: int, role: Role) -> Tensor:
        return self.stamped(data.images)

    def stamped(self, images: Tensor) -> Tensor:
        """(N, C, H, W): a copy of the images with the pattern on it."""
        mask, bright = self.pixels()
        s, (height, width) = len(mask), images.shape[2:]
        top = self.margin if self.corner.startswith("top") else height - self.margin - s
        left = self.margin if self.corner.endswith("left") else width - self.margin - s
        top, left = self.at or (top, left)
        colour = torch.ones(1) if self.pattern == "checkers" else torch.tensor(self.colour)
        images = images.clone()
        there = images[:, :, top : top + s, left : left + s]
        images[:, :, top : top + s, left : left + s] = torch.where(mask, bright * colour[:, None, None], there)
        return images


def side(places: tuple[tuple[int, int], ...]) -> int:
    """The side of the square that holds these pixels."""
    return 1 + max(max(place) for place in places)
