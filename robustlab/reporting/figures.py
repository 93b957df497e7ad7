"""Charts as inline SVG. Colours are classes of the style sheet, so that they follow light, dark and print.

Coordinates are written with one decimal: the same numbers give the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from robustlab.reporting.text import escape

WIDTH, HEIGHT = 640, 360
HALF = 200  # height of a small chart
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 58
LABEL_GAP = 62  # narrower, and the labels of two ticks would touch on a phone


class Point(NamedTuple):
    """Accuracy at one budget, with its interval (fractions)."""

    eps: float
    value: float
    low: float
    high: float


class ModelCurve(NamedTuple):
    """One model's curve, by increasing budget."""

    name: str
    points: Sequence[Point]


def share_bar(share: Mapping[str, Any] | None, shade: int) -> Markup:
    """A bar from 0 to 100 % with the interval as a whisker; nothing where the share was not measured."""
    if share is None or share["value"] is None:
        return Markup()
    value, low, high = (f"{100 * share[key]:.1f}" for key in ("value", "low", "high"))
    return Markup(
        f'<svg class="bar s{shade}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="8"/><rect class="fill" width="{value}" height="8"/>'
        f'<path class="whisker" d="M{low} 4H{high}M{low} 1.5V6.5M{high} 1.5V6.5"/></svg>'
    )


def security_curve(
    lines: Sequence[ModelCurve], *, tick: Callable[[float], str], norm: str, headline: float, chance: float | None
) -> Markup:
    """Accuracy against eps, one line and one band a model; chance dashed, the verdict's eps dotted.

    tick: how a budget is written.
    """
    budgets = sorted({point.eps for line in lines for point in line.points})
    right = max(budgets)

    def x(eps: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * eps / right

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Accuracy against the budget, {escape(", ".join(line.name for line in lines))}">'
    ]
    for step in range(0, 101, 25):
        at = y(step / 100)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at:.1f}" dy=".35em" text-anchor="end">{step}\u00a0%</text>')
    shown = apart([x(eps) for eps in budgets], keep=budgets.index(headline) if headline in budgets else 0)
    for eps, labelled in zip(budgets, shown, strict=True):
        at, foot = x(eps), HEIGHT - BOTTOM
        parts.append(f'<path class="axis" d="M{at:.1f} {foot}v5"/>')
        if labelled:
            anchor = "end" if at > WIDTH - RIGHT - 12 else "middle"
            parts.append(f'<text x="{at:.1f}" y="{foot + 21}" text-anchor="{anchor}">{escape(tick(eps))}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"budget ε ({escape(norm)})</text>"
    )
    if chance is not None:
        parts.append(f'<path class="chance" d="M{LEFT} {y(chance):.1f}H{WIDTH - RIGHT}"/>')
    if 0 < headline <= right:
        parts.append(f'<path class="headline" d="M{x(headline):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    for at, line in enumerate(lines):
        if not line.points:  # of several runs, one may have no curve
            continue
        upper = [f"{x(p.eps):.1f} {y(p.high):.1f}" for p in line.points]
        lower = [f"{x(p.eps):.1f} {y(p.low):.1f}" for p in reversed(line.points)]
        middle = [f"{x(p.eps):.1f} {y(p.value):.1f}" for p in line.points]
        parts.append(f'<g class="s{at % 6}">')
        parts.append(f'<path class="band" d="M{"L".join(upper + lower)}Z"/>')
        parts.append(f'<path class="line" d="M{"L".join(middle)}"/>')
        for p in line.points:
            told = f"{line.name}, ε = {tick(p.eps)}: {100 * p.value:.1f} % ({100 * p.low:.1f}–{100 * p.high:.1f})"
            parts.append(f"{marker(at, x(p.eps), y(p.value))}<title>{escape(told)}</title></path>")
        parts.append("</g>")
    parts.append("</svg>")
    return Markup("".join(parts))


def marker(shape: int, x: float, y: float, kind: str = "") -> str:
    """An open <path>, for a title to go in. Each model has its own shape: colour alone must not tell them apart."""
    outlines = (
        "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",  # circle
        "m-4 -4h8v8h-8z",  # square
        "m0 -5.5l5 9h-10z",  # triangle up
        "m0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z",  # diamond
        "m0 5.5l5 -9h-10z",  # triangle down
        "m-1.5 -5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",  # plus
    )
    return f'<path class="{f"marker {kind}".strip()}" d="M{x:.1f} {y:.1f}{outlines[shape % 6]}">'


def apart(places: Sequence[float], keep: int, gap: float = LABEL_GAP) -> list[bool]:
    """Which tick labels to print so that none touches another: `keep` and the ends first, then from the left."""
    chosen: list[int] = []
    for at in (keep, 0, len(places) - 1, *range(len(places))):
        if all(abs(places[at] - places[other]) >= gap for other in chosen):
            chosen.append(at)
    return [at in chosen for at in range(len(places))]


def loss_curve(losses: Sequence[float], steps: int) -> Markup:
    """The loss of a fit by step: means of consecutive steps, from left to right. Empty for fewer than two."""
    if len(losses) < 2:
        return Markup()
    low, high = min(*losses, 0.0), max(*losses, 1e-9)
    right, bottom = WIDTH - RIGHT, HALF - BOTTOM / 2

    def x(at: float) -> float:
        return LEFT + (right - LEFT) * at

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (value - low) / (high - low)

    points = "L".join(f"{x((i + 0.5) / len(losses)):.1f},{y(value):.1f}" for i, value in enumerate(losses))
    marks = "".join(
        f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2g}</text>' for value in (low, high)
    )
    return Markup(
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HALF}" role="img" aria-label="Loss by step">'
        f'<path class="axis" d="M{LEFT} {TOP}V{bottom:.1f}M{LEFT} {bottom:.1f}H{right}"/>{marks}'
        f'<g class="s0"><path class="line" d="M{points}"/></g>'
        f'<text x="{LEFT}" y="{HALF - 8}">step 1</text>'
        f'<text x="{right}" y="{HALF - 8}" text-anchor="end">{steps:,}</text></svg>'
    )
