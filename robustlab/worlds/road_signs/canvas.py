"""A small vector canvas for sign faces: Pillow in sign coordinates, drawn large and averaged down later."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]
Colour = tuple[int, int, int]


class Canvas:
    """A transparent square on which everything is given in sign coordinates: x to the right, y down, both in [-1, 1].

    Colours are sRGB in 0..255. Edges are hard; whoever uses the image averages it down.

    >>> canvas = Canvas(64)
    >>> canvas.disc(0, 0, 0.5, (178, 24, 32))
    >>> canvas.image.getpixel((32, 32)), canvas.image.getpixel((0, 0))
    ((178, 24, 32, 255), (0, 0, 0, 0))
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self.image = Image.new("RGBA", (pixels, pixels), (0, 0, 0, 0))
        self._pen = ImageDraw.Draw(self.image)

    def _at(self, x: float, y: float) -> Point:
        return (x + 1) / 2 * self.pixels, (y + 1) / 2 * self.pixels

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._pen.polygon([self._at(*p) for p in points], fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self._pen.ellipse([*self._at(x - radius, y - radius), *self._at(x + radius, y + radius)], fill=colour)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A polyline with round joints and round ends."""
        self._pen.line([self._at(*p) for p in points], fill=colour, width=round(width / 2 * self.pixels))
        for x, y in points:
            self.disc(x, y, width / 2, colour)

    def rounded(self, points: Sequence[Point], radius: float, colour: Colour) -> None:
        """The polygon grown by `radius`, so that its corners are round."""
        self.polygon(points, colour)
        self.stroke([*points, points[0]], 2 * radius, colour)

    def arc(self, radius: float, start: float, end: float, width: float, colour: Colour) -> None:
        """An arc about the centre; angles in degrees, clockwise from the right."""
        outer = radius + width / 2
        box = [*self._at(-outer, -outer), *self._at(outer, outer)]
        self._pen.arc(box, start, end, fill=colour, width=round(width / 2 * self.pixels))

    def head(self, base: Point, tip: Point, half_width: float, colour: Colour) -> None:
        """The triangle of an arrow's head: from the middle of its base to its tip."""
        length = math.dist(base, tip)
        nx, ny = (base[1] - tip[1]) / length * half_width, (tip[0] - base[0]) / length * half_width
        self.polygon([(base[0] + nx, base[1] + ny), tip, (base[0] - nx, base[1] - ny)], colour)

    def text(self, text: str, height: float, colour: Colour, *, bold: float, squeeze: float) -> None:
        """Centred text with cap height `height`.

        Pillow's built-in font has one light weight and wide digits. `bold` is the width of the stroke that thickens
        it, `squeeze` the factor on its width.
        """
        pixels = height / 2 * self.pixels
        font = ImageFont.load_default(size=pixels * 1.4)
        weight = round(bold * pixels * 1.4)
        left, top, right, bottom = font.getbbox(text, stroke_width=weight)
        ink = Image.new("L", (math.ceil(right - left) + 8, math.ceil(bottom - top) + 8), 0)
        ImageDraw.Draw(ink).text((4 - left, 4 - top), text, font=font, fill=255, stroke_width=weight)
        ink = ink.crop(ink.getbbox())
        ink = ink.resize((round(ink.width * pixels / ink.height * squeeze), round(pixels)), Image.Resampling.LANCZOS)
        corner = ((self.pixels - ink.width) // 2, (self.pixels - ink.height) // 2)
        self.image.paste(Image.new("RGBA", ink.size, (*colour, 255)), corner, ink)


def ring(corners: int, radius: float, start: float, centre: Point = (0.0, 0.0)) -> list[Point]:
    """The corners of a regular polygon, the first at the angle `start` (degrees, clockwise from the right)."""
    angles = [math.radians(start + 360 * i / corners) for i in range(corners)]
    return [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]
