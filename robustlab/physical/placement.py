"""Where a patch lies in an image: size, scale, rotation and place, drawn by key, and one resampling for all images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.draws import keys, uniform
from robustlab.base.errors import UserError
from robustlab.base.typed import check_choice

SHAPES = ("circle", "square")


class Transforms(NamedTuple):
    """(B,) each: centre in pixels, side of the patch in pixels, rotation in radians."""

    x: Tensor
    y: Tensor
    side: Tensor
    angle: Tensor


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Shape and size of a patch, and the ranges that it is drawn from. A patch always lies wholly in the image.

    share: of the image's area, at scale 1. scale: lowest and highest factor of the side. rotation: the largest, in
    degrees to either side. place: None for anywhere, or (x, y) in [0, 1], from the left and upper edge to the right and
    lower one.

    >>> Placement(share=0.25, shape="square", scale=(1, 1), rotation=0).side(32, 32)
    16.0
    """

    shape: str = "circle"
    share: float = 0.10
    scale: tuple[float, float] = (0.8, 1.2)
    rotation: float = 20.0
    place: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, SHAPES)
        if not 0 < self.share <= 1:
            raise UserError(f"share must be more than 0 and at most 1, of the image's area; got {self.share:g}.")
        if not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise UserError(f"scale must be two factors above 0, the lower one first; got {tuple(self.scale)}.")
        if not 0 <= self.rotation <= 180:
            raise UserError(f"rotation must lie in 0 to 180 degrees, got {self.rotation:g}.")
        if self.place is not None and not (0 <= self.place[0] <= 1 and 0 <= self.place[1] <= 1):
            raise UserError(f"place must be None or two numbers (x, y) in [0, 1], got {tuple(self.place)}.")

    def side(self, height: int, width: int) -> float:
        """Its side or diameter in pixels at scale 1."""
        area = self.share * height * width
        return math.sqrt(area if self.shape == "square" else area * 4 / math.pi)

    def check_fits(self, height: int, width: int) -> None:
        """A `UserError` for a patch that, at its largest, reaches out of the image."""
        turn = math.radians(min(self.rotation, 45.0)) if self.shape == "square" else 0.0
        reach = self.side(height, width) * self.scale[1] * (math.cos(turn) + math.sin(turn))
        if reach > min(height, width) + 1e-6:
            raise UserError(
                f"A {self.shape} of {100 * self.share:g} % of {height} x {width} pixels is up to {reach:.1f} pixels"
                " wide and does not fit into the image: lower share, scale or rotation."
            )

    def draw(self, key: Tensor, height: int, width: int) -> Transforms:
        """One draw for each key (B,)."""
        u = uniform(key, (4,))
        side = self.side(height, width) * (self.scale[0] + (self.scale[1] - self.scale[0]) * u[:, 0])
        angle = math.radians(self.rotation) * (2 * u[:, 1] - 1)
        turned = angle.cos().abs() + angle.sin().abs() if self.shape == "square" else torch.ones_like(angle)
        reach = side * turned / 2
        if self.place is not None:
            u = torch.cat([u[:, :2], torch.tensor(self.place, device=u.device).expand(len(u), 2)], 1)
        x = reach + u[:, 2] * (width - 2 * reach).clamp_min(0)
        y = reach + u[:, 3] * (height - 2 * reach).clamp_min(0)
        return Transforms(x, y, side, angle)

    def mask(self, texels: int) -> Tensor:
        """(texels, texels): which share of each texel is patch."""
        if self.shape == "square":
            return torch.ones(texels, texels)
        from_middle = torch.arange(texels) + 0.5 - texels / 2
        return (texels / 2 + 0.5 - torch.hypot(from_middle[:, None], from_middle[None, :])).clamp(0, 1)

    def pasted(self, images: Tensor, texture: Tensor, key: Tensor) -> Tensor:
        """Images (B, C, H, W) with a texture (C, t, t) on each, by its key (B,); differentiable in the texture.

        Texture and mask are resampled together, bilinearly; a texture finer than the pixels is averaged first.
        """
        height, width = images.shape[-2:]
        finest = math.ceil(self.side(height, width) * self.scale[1] - 1e-6)
        mask = self.mask(texture.shape[-1]).to(texture)
        patch = torch.cat([texture * mask, mask[None]])[None]
        if texture.shape[-1] > finest:
            patch = F.interpolate(patch, (finest, finest), mode="bilinear", antialias=True)
        grid = _grid(self.draw(key, height, width), height, width)
        found = F.grid_sample(patch.expand(len(images), -1, -1, -1), grid, "bilinear", "zeros", align_corners=False)
        return (images * (1 - found[:, -1:]) + found[:, :-1]).clamp(0, 1)


def _grid(at: Transforms, height: int, width: int) -> Tensor:
    """(B, H, W, 2): for each pixel its place on the patch, whose edges are -1 and 1. One affine map an image."""
    x = torch.arange(width, device=at.x.device) + 0.5 - at.x[:, None]
    y = torch.arange(height, device=at.x.device) + 0.5 - at.y[:, None]
    cos, sin = ((2 / at.side * wave)[:, None, None] for wave in (at.angle.cos(), at.angle.sin()))
    across, down = x[:, None, :], y[:, :, None]
    return torch.stack([cos * across + sin * down, cos * down - sin * across], -1)


def keyed(seed: int, ids: Tensor, purpose: str, step: int = 0) -> Tensor:
    """(B,) keys of the draws for images with these ids: fitting and judging share none."""
    return keys(seed, ids, f"patch, {purpose}", step)
