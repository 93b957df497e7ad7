"""Clean against robust accuracy as inline SVG: one marker a model, with both intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from robustlab.reporting.figures import marker
from robustlab.reporting.text import escape

WIDTH, SIDE = 320, 240
LEFT, TOP = 48, 22


class Spot(NamedTuple):
    """A model: its two shares, and what is said of it."""

    name: str
    clean: Mapping[str, Any] | None
    robust: Mapping[str, Any] | None
    told: str


def scatter(spots: Sequence[Spot]) -> Markup:
    """Clean accuracy to the right, robust accuracy upwards, both from 0 to 100 %; nothing lies above the diagonal."""
    foot = TOP + SIDE

    def x(share: float) -> float:
        return LEFT + SIDE * share

    def y(share: float) -> float:
        return foot - SIDE * share

    parts = [
        f'<svg class="panel" viewBox="0 0 {WIDTH} {foot + 44}" role="img" aria-label="Robust against clean accuracy">',
        '<text class="title" x="0" y="10">robust accuracy</text>',
        f'<text class="title" x="{x(0.5):.1f}" y="{foot + 36}" text-anchor="middle">clean accuracy</text>',
        f'<path class="chance" d="M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}"/>',
    ]
    for at in (0, 0.25, 0.5, 0.75, 1):
        said = f"{100 * at:.0f}\u00a0%"
        parts.append(f'<path class="grid" d="M{LEFT} {y(at):.1f}H{x(1):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(at):.1f}" dy=".35em" text-anchor="end">{said}</text>')
        parts.append(f'<text x="{x(at):.1f}" y="{foot + 16}" text-anchor="middle">{said}</text>')
    for at, spot in enumerate(spots):
        clean, robust = spot.clean, spot.robust
        if not clean or not robust or clean["value"] is None or robust["value"] is None:
            continue
        here, there = x(clean["value"]), y(robust["value"])
        parts.append(
            f'<g class="s{at % 6}"><path class="whisker" d="M{x(clean["low"]):.1f} {there:.1f}H{x(clean["high"]):.1f}'
            f'M{here:.1f} {y(robust["low"]):.1f}V{y(robust["high"]):.1f}"/>'
            f"{marker(at, here, there, 'attacked')}<title>{escape(spot.told)}</title></path></g>"
        )
    return Markup("".join([*parts, "</svg>"]))
