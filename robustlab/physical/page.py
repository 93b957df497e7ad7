"""A page of paper to draw on, in millimetres from its upper left corner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.transforms import Bbox, TransformedBbox
from numpy.typing import NDArray

from robustlab.physical.tiles import Box

INCH = 25.4
BLACK, RED = "black", "#d00000"


class Place(NamedTuple):
    """Where a sign lies on the page: `left`, `top` is its upper left corner, `zoom` its size there, 1 is real."""

    left: float
    top: float
    zoom: float = 1.0

    def at(self, corners: Any) -> NDArray[np.float64]:
        """(..., 2) points on the sign, as points of the page."""
        return np.asarray(corners, dtype=float) * self.zoom + (self.left, self.top)

    def box(self, box: Box) -> Box:
        """A box on the sign, as one of the page."""
        return Box(*self.at([box[:2], box[2:]]).flatten().tolist())


class Page:
    """One page; `figure` is what is saved."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height, self.box = width, height, Box(0, 0, width, height)
        self.figure = Figure(figsize=(width / INCH, height / INCH))
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._axes.set(xlim=(0, width), ylim=(height, 0))
        self._axes.autoscale(False)

    def say(self, x: float, y: float, text: str, size: float = 8, ha: Any = "left", weight: str = "normal") -> None:
        """Text; y is its baseline."""
        self._axes.text(x, y, text, size=size, ha=ha, weight=weight)

    def tag(self, at: NDArray[np.float64], text: str, size: float) -> None:
        """Text in a small white box around a point."""
        box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"}
        self._axes.text(at[0], at[1], text, size=size, ha="center", va="center", bbox=box)

    def line(self, *points: tuple[float, float], colour: str = BLACK, width: float = 0.5) -> None:
        """width: in points."""
        x, y = zip(*points, strict=True)
        self._axes.plot(x, y, color=colour, linewidth=width, solid_capstyle="butt")

    def frame(self, box: Box, colour: Any, width: float = 0.5, *, fill: bool = False) -> None:
        """A rectangle: its edge, or its inside."""
        edge, inside = ("none", colour) if fill else (colour, "none")
        self._axes.add_patch(
            Rectangle(box[:2], box.width, box.height, edgecolor=edge, facecolor=inside, linewidth=width)
        )

    def picture(self, pixels: NDArray[Any], box: Box) -> None:
        """An image (H, W, 3) in a box, without smoothing."""
        extent = (box.left, box.right, box.bottom, box.top)
        self._axes.imshow(pixels, extent=extent, interpolation="none", aspect="auto")

    def outline(self, lines: Sequence[NDArray[np.float64]], colour: str, within: Box, width: float = 0.5) -> None:
        """Closed lines of (n, 2) points, as far as they lie in a box."""
        patch = PathPatch(_path(lines), facecolor="none", edgecolor=colour, linewidth=width, joinstyle="miter")
        self._axes.add_patch(patch).set_clip_box(self._clip(within))

    def rectangles(
        self, boxes: NDArray[np.float64], colours: NDArray[Any], lines: Sequence[NDArray[np.float64]], within: Box
    ) -> None:
        """Filled boxes (n, 4), one over the other, as far as they lie inside closed lines and in a box."""
        corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
        drawn = PolyCollection(corners, facecolors=colours, edgecolors="none", linewidths=0)  # type: ignore[arg-type]
        self._axes.add_collection(drawn, autolim=False)
        drawn.set_clip_path(_path(lines), self._axes.transData)
        drawn.set_clip_box(self._clip(within))

    def _clip(self, box: Box) -> TransformedBbox:
        return TransformedBbox(Bbox.from_extents(*box), self._axes.transData)


def _path(lines: Sequence[NDArray[np.float64]]) -> Path:
    return Path.make_compound_path(*(Path(np.concatenate([line, line[:1]]), closed=True) for line in lines))
