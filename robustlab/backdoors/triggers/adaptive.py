"""Triggers against filters that look for separation: weak and in pieces in training, whole at test, with covers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.backdoors.triggers.base import Role, Trigger, check_fits, check_share, noise
from robustlab.base.draws import keys, uniform
from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.data import Loaded


@dataclass(frozen=True)
class AdaptiveBlend(Trigger):
    """A blended pattern of which each training image gets some pieces (Qi et al. 2023, arXiv:2205.13613, Adap-Blend).

    alpha, test_alpha: the pattern's share in training and at test. pieces: along a side; kept: the share of pieces in a
    training image, keyed by seed and id. covers: for each poison, images with the trigger and their true label.
    UserError: a bad parameter, or more pieces than pixels.

    The defaults are the authors': 16 pieces (of 8x8 pixels in an image of 32x32), half of them in a training image, and
    as many covers as poisons, 0.3 % of the data each. Their pattern is a cartoon; here it is noise keyed by the seed.

    >>> AdaptiveBlend().covers
    1.0
    """

    alpha: float = 0.15
    test_alpha: float = 0.2
    pieces: int = 4
    kept: float = 0.5
    covers: float = 1.0

    def __post_init__(self) -> None:
        for name in ("alpha", "test_alpha", "kept"):
            check_share(name, getattr(self, name))
        check_whole("pieces", self.pieces, 1)
        check_covers(self.covers)

    def check(self, data: Loaded) -> None:
        check_fits(f"A pattern in {self.pieces}x{self.pieces} pieces", (self.pieces, self.pieces), data.images)

    def put(self, data: Loaded, seed: int, role: Role) -> Tensor:
        images = data.images
        height, width = images.shape[2:]
        alpha = torch.full((1, 1, 1, 1), self.test_alpha)
        if role != "test":
            count = max(1, round(self.kept * self.pieces**2))
            order = uniform(keys(seed, data.ids, "pieces"), (self.pieces**2,)).argsort(dim=1, stable=True)
            chosen = torch.zeros(order.shape).scatter_(1, order[:, :count], 1.0)
            rows = torch.arange(height) * self.pieces // height
            columns = torch.arange(width) * self.pieces // width
            alpha = self.alpha * chosen[:, rows[:, None] * self.pieces + columns][:, None]
        return images + alpha * (noise(seed, tuple(images.shape[1:]), "adaptive blend") - images)


@dataclass(frozen=True)
class AdaptivePatch(Trigger):
    """A patch in each corner, of which a training image gets one (Qi et al. 2023, arXiv:2205.13613, Adap-Patch).

    size: side of a patch in pixels; the patches are noise keyed by the seed. opacity, test_opacity: in training and at
    test, when all four are there. covers: for each poison, images with a patch and their true label; the authors' two,
    of 0.3 % poisons. UserError: a bad parameter, or patches that overlap.

    The authors have four logos and patterns with opacities from 0.2 to 0.5 in training, and put two of them, whole, on
    a test image.

    >>> AdaptivePatch(size=4).size
    4
    """

    size: int = 5
    opacity: float = 0.5
    test_opacity: float = 1.0
    covers: float = 2.0

    def __post_init__(self) -> None:
        check_share("opacity", self.opacity)
        check_share("test_opacity", self.test_opacity)
        check_whole("size", self.size, 1)
        check_covers(self.covers)

    def check(self, data: Loaded) -> None:
        check_fits("A patch in each corner", (2 * self.size, 2 * self.size), data.images)

    def put(self, data: Loaded, seed: int, role: Role) -> Tensor:
        images, s = data.images.clone(), self.size
        ends = (slice(None, s), slice(-s, None))
        own = (uniform(keys(seed, data.ids, "corner"), (1,))[:, 0] * 4).long()
        for k, (rows, columns) in enumerate((r, c) for r in ends for c in ends):
            here = own == k if role != "test" else torch.ones_like(own, dtype=torch.bool)
            opacity = (self.test_opacity if role == "test" else self.opacity) * here.float()[:, None, None, None]
            patch = noise(seed, (images.shape[1], s, s), f"adaptive patch {k}")
            images[:, :, rows, columns] += opacity * (patch - images[:, :, rows, columns])
        return images


def check_covers(value: float) -> None:
    """A UserError unless it can be a number of covers for each poison."""
    if not 0 <= value < math.inf:
        raise UserError(f"covers must be 0 or more for each poison, got {value:g}.")
