"""An elastic warp of the whole image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from robustlab.backdoors.triggers.base import Role, Trigger, noise
from robustlab.base.draws import keys, uniform
from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.data import Loaded


@dataclass(frozen=True)
class WaNet(Trigger):
    """A smooth warp, keyed by the seed and the same for all images (Nguyen and Tran 2021, arXiv:2102.10369).

    points: k, control points along a side, at least 2. strength: s, the mean shift of a control point in pixels is
    s / 2 along each axis. covers: for each poison, images with the warp and a shift of up to half a pixel of each of
    their pixels, keyed by id, that keep their label (the paper's noise mode; 0.1 of its data are poisons, 0.2 covers).
    UserError: a bad parameter, or an image of one pixel.

    The paper's attacker trains the model, and draws poisons and noise again in each batch; here both are drawn once, as
    somebody must who only supplies data. It may then succeed less often than in the paper.

    >>> WaNet(points=4).covers
    2.0
    """

    points: int = 4
    strength: float = 0.5
    covers: float = 2.0

    def __post_init__(self) -> None:
        check_whole("points", self.points, 2)
        for name in ("strength", "covers"):
            value = getattr(self, name)
            if not (0 <= value < math.inf) or (name == "strength" and value == 0):
                raise UserError(f"{name} must be {'above 0' if name == 'strength' else '0 or more'}, got {value:g}.")

    def check(self, data: Loaded) -> None:
        if min(data.images.shape[2:]) < 2:
            raise UserError("A warp needs images of at least 2x2 pixels.")

    def put(self, data: Loaded, seed: int, role: Role) -> Tensor:
        images = data.images
        height, width = images.shape[2:]
        shift = 2 * noise(seed, (1, 2, self.points, self.points), "wanet") - 1
        shift = interpolate(shift / shift.abs().mean(), (height, width), mode="bicubic", align_corners=True)
        moved = shift[0].permute(1, 2, 0) * self.strength / torch.tensor([width, height])
        y, x = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], 2) + moved
        grid = grid.expand(len(images), height, width, 2)
        if role == "cover":
            each = 2 * uniform(keys(seed, data.ids, "wanet cover"), (height, width, 2)) - 1
            grid = grid + each / torch.tensor([width, height])
        return grid_sample(images, grid.clamp(-1, 1), align_corners=True)
