"""Small charts as inline SVG, made to stand side by side: accuracy by factor, and reliability.

Clean is hollow and dashed, attacked is filled and solid; models differ in colour and in the shape of the marker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from robustlab.base.words import interval, percent
from robustlab.reporting.figures import marker
from robustlab.reporting.text import escape

Json = Mapping[str, Any]
WIDTH = 320
LEFT, RIGHT, TOP = 42, 16, 24
PLOT = 150  # height of the plot of `factor_panel`
STRIP = 34  # height of the counts under `reliability_panel`


class Profile(NamedTuple):
    """One model's shares in the bins of a factor; `robust` is empty where nothing was attacked."""

    name: str
    clean: Sequence[Json]
    robust: Sequence[Json]


def factor_panel(
    title: str,
    edges: Sequence[tuple[float, str]],
    labels: Sequence[str],
    profiles: Sequence[Profile],
    *,
    ordered: bool,
) -> Markup:
    """Accuracy in the bins of one factor, with intervals, and n below each bin.

    edges: what is written on the axis, each at a place in bins from the left (1 is the end of the first bin, 0.5 its
    middle). labels: each bin in words. ordered: whether a line through the bins means anything.
    """
    count = len(labels)
    slot = (WIDTH - LEFT - RIGHT) / count
    foot = TOP + PLOT

    def y(share: float) -> float:
        return foot - PLOT * share

    parts = [_open(f"Accuracy by {title}", foot + 56), _grid("accuracy", y)]
    for place, text in edges:
        at = LEFT + slot * place
        if place == int(place):
            parts.append(f'<path class="axis" d="M{at:.1f} {foot}v4"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 16}" text-anchor="middle">{escape(text)}</text>')
    for at, share in enumerate(profiles[0].clean):
        x = LEFT + slot * (at + 0.5)
        parts.append(f'<text class="count" x="{x:.1f}" y="{foot + 31}" text-anchor="middle">{share["n"]:,}</text>')
    parts.append(f'<text class="count" x="{LEFT - 8}" y="{foot + 31}" text-anchor="end">n</text>')
    parts.append(
        f'<text class="title" x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{foot + 50}" text-anchor="middle">'
        f"{escape(title)}</text>"
    )
    for number, profile in enumerate(profiles):
        shift = (number - (len(profiles) - 1) / 2) * min(11, 0.8 * slot / len(profiles))
        places = [LEFT + slot * (at + 0.5) + shift for at in range(count)]
        parts.append(f'<g class="s{number % 6}">')
        for what, shares in (("clean", profile.clean), ("attacked", profile.robust)):
            points = [(x, y(share["value"]), share) for x, share in zip(places, shares, strict=False)]
            if ordered:
                parts.append(_path(what, points))
            for (x, at_y, share), label in zip(points, labels, strict=False):
                told = f"{profile.name}, {label}: {what} {percent(share)} ({interval(share)}), n = {share['n']:,}"
                parts.append(_point(what, number, x, at_y, y(share["low"]), y(share["high"]), told))
        parts.append("</g>")
    parts.append("</svg>")
    return Markup("".join(parts))


def reliability_panel(name: str, shade: int, clean: Json, attacked: Json | None) -> Markup:
    """Share of right answers against confidence, with intervals; below it, how many answers were that confident.

    clean, attacked: as `robustlab.runs.breakdowns.confidence` returns them.
    """
    side = WIDTH - LEFT - RIGHT
    foot = TOP + side * 0.75
    base = foot + 24 + STRIP

    def x(confidence: float) -> float:
        return LEFT + side * confidence

    def y(share: float) -> float:
        return foot - side * 0.75 * share

    parts = [_open(f"Share of right answers against confidence, {name}", base + 24), _grid("right answers", y)]
    parts.append(f'<path class="chance" d="M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}"/>')
    for at in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class="axis" d="M{x(at):.1f} {foot:.1f}v4"/>')
        parts.append(f'<text x="{x(at):.1f}" y="{foot + 16:.1f}" text-anchor="middle">{100 * at:.0f}\u00a0%</text>')
    parts.append(
        f'<text class="title" x="{x(0.5):.1f}" y="{base + 18:.1f}" text-anchor="middle">confidence</text>'
        f'<text class="count" x="{LEFT - 8}" y="{base:.1f}" text-anchor="end">n</text><g class="s{shade}">'
    )
    states = [("clean", clean)] + ([("attacked", attacked)] if attacked else [])
    most = max((b["accuracy"]["n"] for _, state in states for b in state["bins"]), default=1)
    parts.append(f'<text class="count" x="{LEFT - 8}" y="{base - STRIP + 8:.1f}" text-anchor="end">{most:,}</text>')
    for number, (what, state) in enumerate(states):
        points = [(x(b["confidence"]), y(b["accuracy"]["value"]), b["accuracy"]) for b in state["bins"]]
        parts.append(_path(what, points))
        for (at_x, at_y, share), b in zip(points, state["bins"], strict=True):
            told = (
                f"{what}, confidence {100 * b['low']:.0f}–{100 * b['high']:.0f}\u00a0%: right {percent(share)} "
                f"({interval(share)}), n = {share['n']:,}"
            )
            parts.append(_point(what, shade, at_x, at_y, y(share["low"]), y(share["high"]), told))
            height = STRIP * share["n"] / most
            bar, left = side / 10 * 0.4, x(b["low"]) + side / 10 * (0.08 + 0.44 * number)
            parts.append(
                f'<rect class="{what}" x="{left:.1f}" y="{base - height:.1f}" width="{bar:.1f}" height="{height:.1f}">'
                f"<title>{escape(told)}</title></rect>"
            )
    parts.append(f'</g><path class="axis" d="M{LEFT} {base:.1f}H{WIDTH - RIGHT}"/></svg>')
    return Markup("".join(parts))


def _open(label: str, height: float) -> str:
    return f'<svg class="panel" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'


def _grid(title: str, y: Callable[[float], float]) -> str:
    return f'<text class="title" x="0" y="10">{title}</text>' + "".join(
        f'<path class="grid" d="M{LEFT} {y(at):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 8}" y="{y(at):.1f}" dy=".35em" text-anchor="end">{100 * at:.0f}\u00a0%</text>'
        for at in (0, 0.25, 0.5, 0.75, 1)
    )


def _path(what: str, points: Sequence[tuple[float, float, Json]]) -> str:
    middle = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points)
    return f'<path class="line {what}" d="M{middle}"/>' if len(points) > 1 else ""


def _point(what: str, shape: int, x: float, y: float, low: float, high: float, told: str) -> str:
    return (
        f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'
        f"{marker(shape, x, y, what)}<title>{escape(told)}</title></path>"
    )
