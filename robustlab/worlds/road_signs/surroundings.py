"""Everything in the picture that is not the sign: background, pole, occluder, shadow, light. All in linear light."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, pad

from robustlab.base.draws import keys, uniform
from robustlab.worlds.road_signs.faces import GAMMA
from robustlab.worlds.road_signs.scenes import DAYLIGHT, Scenes

_FOLIAGE, _WALL, _SKY, _ROAD, _BRICK = range(5)

# a dark and a bright sRGB colour for each kind of background
_PALETTES = (
    ((0.08, 0.13, 0.05), (0.42, 0.52, 0.24)),
    ((0.32, 0.30, 0.28), (0.72, 0.68, 0.62)),
    ((0.45, 0.58, 0.78), (0.93, 0.94, 0.96)),
    ((0.20, 0.20, 0.20), (0.52, 0.49, 0.45)),
    ((0.22, 0.12, 0.07), (0.66, 0.46, 0.30)),
)


def _linear(colour: Tensor) -> Tensor:
    """sRGB to linear light. In double precision, so that the last bit does not depend on the batch size (see draw)."""
    return (colour.double() ** GAMMA).float()


@functools.cache
def textures(device: torch.device, count: int = 24, pixels: int = 128) -> Tensor:
    """(count, pixels, pixels) tileable clouds in [0, 1]: value noise summed over five octaves."""
    key = keys(0, torch.arange(count), "textures")
    total = torch.zeros(count, 1, pixels, pixels)
    for octave, cells in enumerate((4, 8, 16, 32, 64)):
        grid = uniform(keys(0, key, octave), (1, cells, cells))
        step = pixels // cells
        smooth = interpolate(pad(grid, (2, 2, 2, 2), mode="circular"), scale_factor=step, mode="bicubic")
        total += 0.62**octave * smooth[:, :, 2 * step : -2 * step, 2 * step : -2 * step]
    total = (total - total.mean((2, 3), keepdim=True)) / total.std((2, 3), keepdim=True)
    return torch.sigmoid(1.3 * total)[:, 0].to(device)


class Surroundings:
    """The surroundings of B scenes on the S x S samples with coordinates x (S,) and y (S,).

    Results are (B, 3, S, S) or, for masks, (B, 1, S, S). None of it depends on the face, so no gradient is kept.
    """

    def __init__(self, scenes: Scenes, x: Tensor, y: Tensor) -> None:
        self.scenes, self.x, self.y = scenes, x, y[:, None]
        self.relief = self._clouds("relief")  # one more texture, which makes the edges of things uneven

    def _draw(self, purpose: str, count: int) -> tuple[Tensor, ...]:
        """`count` uniform numbers, each (B, 1, 1, 1)."""
        values = uniform(keys(0, self.scenes.key, purpose), (count, 1, 1, 1))
        return values.unbind(1)

    def _clouds(self, purpose: str) -> Tensor:
        """A window of a random texture: (B, 1, S, S) in [0, 1]."""
        which, zoom, left, top = (v[:, 0] for v in self._draw(purpose, 4))
        bank = textures(self.x.device)
        window = bank[(which[:, 0, 0] * len(bank)).long()]
        scale = 0.3 + 0.6 * zoom
        gx, gy = self.x * scale + (0.9 * left - 0.5), self.y * scale + (0.9 * top - 0.5)
        grid = torch.stack(torch.broadcast_tensors(gx, gy), -1)
        return grid_sample(window[:, None], grid, padding_mode="reflection", align_corners=False)

    def background(self) -> Tensor:
        """A textured plane in two colours, with windows where it is a building and perhaps sky above an uneven edge."""
        kind = self.scenes.background.long()[:, None, None, None]
        red, green, blue, contrast = self._draw("ground", 4)
        tint = torch.cat([red, green, blue], 1) * 0.1 - 0.05
        palette = torch.tensor(_PALETTES, device=self.x.device)[kind[:, 0, 0, 0]][..., None, None]
        dark, bright = (_linear((palette[:, i] + tint).clamp(0.02, 1)) for i in range(2))
        mix = ((self._clouds("ground texture") - 0.5) * (1 + 1.6 * contrast) + 0.5).clamp(0, 1)
        mix = mix**1.5  # even steps for the eye
        picture = dark + (bright - dark) * mix

        has, pitch, left, top, glass = self._draw("windows", 5)
        pitch = (1.2 + 2.5 * pitch) * math.pi
        columns = torch.sigmoid(14 * (torch.sin((self.x + 4 * left) * pitch) - 0.1))
        rows = torch.sigmoid(14 * (torch.sin((self.y + 4 * top) * pitch * 0.8) - 0.1))
        windows = (columns * rows) * ((has < 0.7) & ((kind == _WALL) | (kind == _BRICK)))
        picture = picture + (_linear(0.12 + 0.35 * glass) - picture) * windows

        has, height, clear = self._draw("skyline", 3)
        edge = height * 2.4 - 1.2 + (self.relief - 0.5) * 1.2
        above = torch.sigmoid((edge - self.y) * 10) * ((has < 0.45) & (kind != _SKY))
        sky = _linear(torch.cat([0.55 + 0.35 * clear, 0.66 + 0.28 * clear, 0.82 + 0.15 * clear], 1))
        return picture + (sky - picture) * above

    def pole(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Colour and mask of the pole below the sign; u, v: (B, S, S), coordinates in the sign's plane."""
        has, grey = self._draw("pole", 2)
        u, v = u[:, None], v[:, None]
        mask = torch.sigmoid((0.07 - u.abs()) * 60) * torch.sigmoid((v - 0.6) * 60) * (has < 0.8)
        return (0.06 + 0.25 * grey) * (1 - 0.5 * (u / 0.07).clamp(-1, 1)), mask  # round: one side is lit

    def occluder(self) -> tuple[Tensor, Tensor]:
        """Colour and mask of a branch or post across the crop, in front of the sign."""
        angle, offset, kind = self._draw("occluder", 3)
        angle = angle.double() * math.pi
        across = self.x * angle.cos().float() + self.y * angle.sin().float() - (offset - 0.5)
        across = across + (self.relief - 0.5) * 0.25
        width = self.scenes.occlusion[:, None, None, None]
        mask = torch.sigmoid((width - across.abs()) * 40) * (width > 0)
        colours = _linear(torch.tensor(_PALETTES, device=self.x.device).mean(1))
        colour = colours[(kind[:, 0, 0, 0] * len(colours)).long()][..., None, None]
        return colour * (0.5 + self.relief), mask

    def illumination(self) -> Tensor:
        """By what the reflectances are multiplied: light, its colour, a gentle slope and the shadow of a tree."""
        s = self.scenes
        mired = (1e6 / s.temperature.double() - 1e6 / DAYLIGHT) / 100
        colour = torch.stack([(0.28 * mired).exp(), torch.ones_like(mired), (-0.38 * mired).exp()], 1)
        level = (colour * s.light.double()[:, None]).float()[:, :, None, None]
        slope_x, slope_y, place = self._draw("light", 3)
        slope = 1 + 0.25 * (slope_x - 0.5) * self.x + 0.25 * (slope_y - 0.5) * self.y
        edge = torch.sigmoid((self.relief - 0.5 + (place - 0.5) * 0.3) * 25)
        return level * (slope * (1 - s.shadow[:, None, None, None] * edge))
