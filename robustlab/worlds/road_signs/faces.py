"""The sixteen sign faces, drawn as vector shapes and text after the Vienna Convention on Road Signs (1968)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from robustlab.worlds.road_signs.canvas import Canvas, Colour, Point, ring

GAMMA = 2.2  # the display curve used everywhere in this world: linear light = value ** GAMMA

RED: Colour = (178, 24, 32)
WHITE: Colour = (236, 236, 230)
BLACK: Colour = (22, 22, 24)
BLUE: Colour = (16, 74, 150)
YELLOW: Colour = (242, 184, 16)

_DRAWN = 1024  # faces are drawn at this many pixels and averaged down


def _stop(c: Canvas) -> None:
    radius = 0.97 / math.cos(math.pi / 8)
    c.polygon(ring(8, radius, 22.5), WHITE)
    c.polygon(ring(8, 0.94 * radius, 22.5), RED)
    c.text("STOP", 0.62, WHITE, bold=0.036, squeeze=0.80)


def _no_entry(c: Canvas) -> None:
    c.disc(0, 0, 0.97, WHITE)
    c.disc(0, 0, 0.94, RED)
    c.polygon([(-0.7, -0.16), (0.7, -0.16), (0.7, 0.16), (-0.7, 0.16)], WHITE)


def _prohibition(c: Canvas) -> None:
    """The empty red ring: road closed to all vehicles."""
    c.disc(0, 0, 0.97, WHITE)
    c.disc(0, 0, 0.95, RED)
    c.disc(0, 0, 0.73, WHITE)


def _speed(limit: str) -> Callable[[Canvas], None]:
    def draw(c: Canvas) -> None:
        _prohibition(c)
        c.text(limit, 0.74, BLACK, bold=0.034, squeeze=0.88)

    return draw


def _triangle(c: Canvas, up: bool) -> None:
    """The red-rimmed triangle, moved so that it stands in the middle of its square."""
    sign = -1 if up else 1
    for radius, round_by, colour in ((1.04, 0.07, WHITE), (0.99, 0.07, RED), (0.66, 0.035, WHITE)):
        c.rounded(ring(3, radius, 90 * sign, (0, -0.26 * sign)), round_by, colour)


def _yield(c: Canvas) -> None:
    _triangle(c, up=False)


def _danger(c: Canvas) -> None:
    _triangle(c, up=True)
    c.rounded([(-0.075, -0.21), (0.075, -0.21), (0.035, 0.21), (-0.035, 0.21)], 0.03, BLACK)
    c.disc(0, 0.41, 0.1, BLACK)


def _pedestrians(c: Canvas) -> None:
    _triangle(c, up=True)
    for x in (-0.41, -0.18, 0.05, 0.28):  # the crossing underfoot
        c.polygon([(x, 0.53), (x + 0.05, 0.47), (x + 0.18, 0.47), (x + 0.13, 0.53)], BLACK)
    c.disc(0.03, -0.24, 0.085, BLACK)
    c.rounded([(-0.05, -0.07), (0.05, -0.07), (0.05, 0.14), (-0.04, 0.14)], 0.045, BLACK)
    c.stroke([(-0.02, 0.14), (-0.06, 0.28), (-0.2, 0.43)], 0.085, BLACK)
    c.stroke([(0.03, 0.14), (0.13, 0.27), (0.16, 0.43)], 0.085, BLACK)
    c.stroke([(-0.05, -0.06), (-0.15, 0.05), (-0.2, 0.17)], 0.06, BLACK)
    c.stroke([(0.06, -0.06), (0.15, 0.04), (0.25, 0.08)], 0.06, BLACK)


def _priority(c: Canvas) -> None:
    corners: list[Point] = [(0, -0.9), (0.9, 0), (0, 0.9), (-0.9, 0)]
    for scale, colour in ((1.0, BLACK), (0.96, WHITE), (0.66, BLACK), (0.63, YELLOW)):
        c.rounded([(x * scale, y * scale) for x, y in corners], 0.06, colour)


def _mandatory(c: Canvas) -> None:
    c.disc(0, 0, 0.97, WHITE)
    c.disc(0, 0, 0.93, BLUE)


def _turn(side: int) -> Callable[[Canvas], None]:
    def draw(c: Canvas) -> None:
        _mandatory(c)
        c.stroke([(-0.27 * side, 0.5), (-0.27 * side, -0.1), (0.3 * side, -0.1)], 0.25, WHITE)
        c.polygon([(-0.395 * side, 0.5), (-0.145 * side, 0.5), (-0.145 * side, 0.64), (-0.395 * side, 0.64)], WHITE)
        c.head((0.27 * side, -0.1), (0.7 * side, -0.1), 0.38, WHITE)

    return draw


def _ahead(c: Canvas) -> None:
    _mandatory(c)
    c.polygon([(-0.13, -0.3), (0.13, -0.3), (0.13, 0.7), (-0.13, 0.7)], WHITE)
    c.head((0, -0.25), (0, -0.74), 0.4, WHITE)


def _roundabout(c: Canvas) -> None:
    _mandatory(c)
    radius = 0.51
    for start in (-90, 30, 150):
        c.arc(radius, start + 36, start + 104, 0.2, WHITE)
        base, tip = (math.radians(start + angle) for angle in (38, 0))
        ends = [(radius * math.cos(a), radius * math.sin(a)) for a in (base, tip)]
        c.head(ends[0], ends[1], 0.23, WHITE)


FACES: dict[str, Callable[[Canvas], None]] = {
    "stop": _stop,
    "yield": _yield,
    "no entry": _no_entry,
    "speed limit 30": _speed("30"),
    "speed limit 45": _speed("45"),
    "speed limit 50": _speed("50"),
    "speed limit 60": _speed("60"),
    "speed limit 80": _speed("80"),
    "priority road": _priority,
    "turn right": _turn(1),
    "turn left": _turn(-1),
    "ahead only": _ahead,
    "pedestrians": _pedestrians,
    "roundabout": _roundabout,
    "general danger": _danger,
    "road closed": _prohibition,
}

CLASSES: tuple[str, ...] = tuple(FACES)


@functools.cache
def _drawn(pixels: int) -> Tensor:
    to_linear = np.array([(v / 255) ** GAMMA for v in range(256)], np.float32)
    planes = []
    for draw in FACES.values():
        canvas = Canvas(_DRAWN)
        draw(canvas)
        rgba = np.asarray(canvas.image).transpose(2, 0, 1)
        alpha = torch.from_numpy(rgba[3:].copy()).float() / 255
        # averages are taken in linear light, weighted by alpha
        linear = torch.from_numpy(np.take(to_linear, rgba[:3])) * alpha
        planes.append(avg_pool2d(torch.cat([linear, alpha])[None], _DRAWN // pixels))
    linear, alpha = torch.cat(planes).split([3, 1], 1)
    colour = (linear / alpha.clamp_min(1e-4)).clamp(0, 1) ** (1 / GAMMA)
    return torch.cat([colour, alpha], 1)


def faces(pixels: int = 256) -> Tensor:
    """The faces of all classes as one would print them: (16, 4, pixels, pixels) in [0, 1], sRGB and alpha (straight).

    pixels: a power of two up to 1024.

    >>> faces(64).shape
    torch.Size([16, 4, 64, 64])
    """
    return _drawn(pixels).clone()
