"""A small sticker on the face of a rendered road sign."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.backdoors.triggers.base import Role, Trigger
from robustlab.base.errors import UserError
from robustlab.data import Loaded
from robustlab.worlds.road_signs import VERSION, draw, faces, prepare, render


@dataclass(frozen=True)
class Physical(Trigger):
    """A square sticker on the sign, rendered with the scene of the same id: road-signs only, one light and blur.

    side: of the sticker as a share of the sign's width. u, v: its centre, to the right and down, in [-1, 1].
    colour: sRGB in [0, 1]. UserError: a bad parameter, or images that are not as the world rendered them.

    No published trigger: Gu et al. 2017 (arXiv:1708.06733) photographed a stop sign with one; here it is rendered.

    >>> Physical(side=0.2).side
    0.2
    """

    side: float = 0.15
    u: float = 0.0
    v: float = 0.5
    colour: tuple[float, float, float] = (1.0, 0.9, 0.0)

    def __post_init__(self) -> None:
        if not 0 < self.side <= 1 or max(abs(self.u), abs(self.v)) + self.side > 1:
            raise UserError(f"The sticker does not lie on the face: side {self.side:g} at {self.u:g}, {self.v:g}.")
        if len(self.colour) != 3 or not all(0 <= c <= 1 for c in self.colour):
            raise UserError(f"colour is three numbers, each from 0 to 1; got {self.colour}.")

    def check(self, data: Loaded) -> None:
        size = data.images.shape[-1]
        name = f"road-signs version {VERSION} seed {world(data)} {data.split} {size}"
        if hashlib.sha256(name.encode()).hexdigest()[:16] == data.hash:
            return
        if data.name != "road-signs":
            raise UserError(f"A physical trigger needs the rendered world: load_data('road-signs'); got {data.name}.")
        raise UserError(
            "A physical trigger draws the scenes of the rendered world again, and these road signs are not as they were"
            " rendered: they were poisoned, or are of another version. Give what load_data('road-signs') returns."
        )

    def put(self, data: Loaded, seed: int, role: Role) -> Tensor:
        bare = faces()
        line = torch.linspace(-1, 1, bare.shape[-1])
        mask = ((line - self.v).abs() <= self.side)[:, None] & ((line - self.u).abs() <= self.side)
        colours = torch.where(mask, torch.tensor(self.colour)[:, None, None], bare[:, :3])
        prepared = prepare(torch.cat([colours, bare[:, 3:]], 1), data.images.shape[-1])
        scenes = draw(world(data), data.split, data.ids)
        with torch.no_grad():
            parts = [render(prepared, scenes.take(i)) for i in torch.arange(len(data)).split(128)]
        return torch.cat(parts)


def world(data: Loaded) -> int:
    """The seed of the rendered world."""
    return int((data.source or {}).get("seed", 0))
