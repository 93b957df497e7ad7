"""How a mask becomes pieces of paper: separate stickers, their outlines, and the parts of them that fit on pages.

All lengths are in millimetres on the sign, from its left edge to the right and from its top edge down.
"""

from __future__ import annotations

import math
import string
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

OVERLAP = 10.0  # of two neighbouring parts of a sticker that is larger than a page


class Box(NamedTuple):
    """A rectangle on the sign."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def joined(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(*map(min, self[:2], other[:2]), *map(max, self[2:], other[2:]))


class Scale(NamedTuple):
    """Where the pixels of a face lie on the sign."""

    mm: float  # of one pixel
    left: float  # pixels from the edge of the face to the edge of the sign
    top: float
    width: float  # mm, of the sign
    height: float

    def on_sign(self, corners: Any) -> NDArray[np.float64]:
        """(..., 2), x and y in pixels of the face, in millimetres on the sign."""
        return self.mm * (np.asarray(corners, dtype=float) - (self.left, self.top))


@dataclass(frozen=True, eq=False)
class Piece:
    """One separate sticker: its name, its pixels (P, P), the box around it, and the (n, 2) points of its outlines."""

    name: str
    mask: NDArray[np.bool_]
    box: Box
    lines: list[NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Tile:
    """What is on one page: pieces that lie near each other, or a part of one that is larger than a page."""

    pieces: tuple[Piece, ...]
    box: Box
    row: int
    column: int


def scale_of(alpha: NDArray[Any], width: float) -> Scale:
    """The scale at which a sign is `width` mm wide. alpha: (P, P), the share of each pixel that the sign covers.

    >>> alpha = np.zeros((8, 8)); alpha[2:6, 1:7] = 1; alpha[2:6, 7] = 0.5
    >>> scale_of(alpha, 65.0)
    Scale(mm=10.0, left=1.0, top=2.0, width=65.0, height=40.0)
    """

    def ends(cover: NDArray[Any]) -> tuple[float, float]:
        solid = np.flatnonzero(cover > 0.99)
        first, after = int(solid[0]), int(solid[-1]) + 1
        return float(first - cover[:first].sum()), float(after + cover[after:].sum())

    (left, right), (top, bottom) = ends(alpha.max(0)), ends(alpha.max(1))
    mm = width / (right - left)
    return Scale(mm, left, top, width, mm * (bottom - top))


def pieces_of(mask: NDArray[np.bool_], scale: Scale) -> list[Piece]:
    """The separate stickers of a mask, from the top down, called A, B, ... Z, A2, ..."""
    labels, count = ndimage.label(mask)
    found = []
    for at, (rows, columns) in enumerate(ndimage.find_objects(labels)):
        lap, letter = divmod(at, 26)
        name = string.ascii_uppercase[letter] + (str(lap + 1) if lap else "")
        box = Box(*scale.on_sign([(columns.start, rows.start), (columns.stop, rows.stop)]).flatten().tolist())
        own = labels == at + 1
        found.append(Piece(name, own, box, [scale.on_sign(line) for line in outline(own)]))
    return found


def outline(mask: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """The closed lines around a mask and its holes, as the pixel corners (x, y) at which they turn.

    >>> outline(np.array([[True, True], [False, False]]))
    [[(0, 0), (2, 0), (2, 1), (0, 1)]]
    """
    wide = np.pad(mask, 1)
    inner = wide[1:-1, 1:-1]
    after: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for free, start, end in (
        (
            wide[:-2, 1:-1],
            (0, 0),
            (1, 0),
        ),  # above: its line runs to the right, and so around with the mask at its right
        (wide[1:-1, 2:], (1, 0), (1, 1)),
        (wide[2:, 1:-1], (1, 1), (0, 1)),
        (wide[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inner & ~free).tolist():
            after[x + start[0], y + start[1]].append((x + end[0], y + end[1]))
    lines = []
    while after:
        at = next(iter(after))
        line = []
        while after.get(at):
            line.append(at)
            following = after[at].pop()
            if not after[at]:
                del after[at]
            at = following
        around = zip(line[-1:] + line[:-1], line, line[1:] + line[:1], strict=True)
        lines.append([b for a, b, c in around if not (a[0] == b[0] == c[0] or a[1] == b[1] == c[1])])
    return lines


def tiles_of(pieces: Sequence[Piece], scale: Scale, width: float, height: float) -> list[Tile]:
    """The pages, each with a space of width x height mm. A piece that fits on a page is never divided."""
    groups: list[tuple[tuple[Piece, ...], Box]] = []
    for piece in pieces:
        joined = piece.box.joined(groups[-1][1]) if groups else piece.box
        if groups and joined.width <= width and joined.height <= height:
            groups[-1] = ((*groups[-1][0], piece), joined)
        else:
            groups.append(((piece,), piece.box))
    return [
        Tile(group, Box(left, top, right, bottom), row, column)
        for group, box in groups
        for row, (top, bottom) in enumerate(_cut(box.top, box.bottom, height))
        for column, (left, right) in enumerate(_cut(box.left, box.right, width))
        if _holds(group, Box(left, top, right, bottom), scale)
    ]


def _cut(start: float, end: float, most: float) -> list[tuple[float, float]]:
    """Equal parts of a length, of `most` at most, that overlap."""
    count = max(1, math.ceil((end - start - OVERLAP) / (most - OVERLAP)))
    each = (end - start + (count - 1) * OVERLAP) / count
    return [(start + i * (each - OVERLAP), start + i * (each - OVERLAP) + each) for i in range(count)]


def _holds(group: Sequence[Piece], box: Box, scale: Scale) -> bool:
    """Is anything to be printed in the box?"""
    x0, x1 = (int(round(at / scale.mm + scale.left)) for at in (box.left, box.right))
    y0, y1 = (int(round(at / scale.mm + scale.top)) for at in (box.top, box.bottom))
    return any(bool(piece.mask[y0:y1, x0:x1].any()) for piece in group)
