"""Small charts of a poisoned data set as inline SVG: scores of a filter, singular values, a projection.

Clean is filled or round, poisoned is hollow or a cross: colour alone does not tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from robustlab.reporting.text import MINUS, escape

WIDTH = 320
LEFT, RIGHT, TOP = 42, 16, 24
HALF = 70  # height of each half of a histogram
SQUARE = 262  # side of a projection
PLOT = 150
CROSS = 2.5


def histogram(
    title: str,
    low: float,
    high: float,
    clean: Sequence[int],
    poison: Sequence[int],
    threshold: float | None,
    *,
    logarithmic: bool = False,
) -> Markup:
    """Scores from low to high: clean images up, poisoned ones down, each with its own scale; the threshold dashed.

    clean, poison: a count for each bin, equally many. logarithmic: low, high and threshold are decimal logarithms.
    """
    middle, foot = TOP + HALF, TOP + 2 * HALF
    slot = (WIDTH - LEFT - RIGHT) / max(len(clean), 1)

    def told(value: float) -> str:
        return f"{10 ** min(value, 300):.3g}" if logarithmic else _written(value)

    parts = [_open(f"Scores of {title}", foot + 34), f'<text class="title" x="0" y="10">{escape(title)}</text>']
    for counts, what, sign in ((clean, "clean", -1), (poison, "poison", 1)):
        most = max([*counts, 1])
        bars = "".join(
            f"M{LEFT + slot * at + 0.5:.1f} {middle}v{sign * HALF * count / most:.1f}h{slot - 1:.1f}V{middle}z"
            for at, count in enumerate(counts)
            if count
        )
        end = middle + sign * HALF
        parts.append(
            f'<text x="{LEFT - 6}" y="{end:.1f}" dy=".35em" text-anchor="end">{max([*counts, 0]):,}</text>'
            f'<path class="grid" d="M{LEFT} {end:.1f}H{WIDTH - RIGHT}"/>'
        )
        if bars:
            shown = f"{'clean' if what == 'clean' else 'poisoned'}: {sum(counts):,} images"
            parts.append(f'<g class="{_shade(what)}"><path class="bars {what}" d="{bars}">')
            parts.append(f"<title>{escape(shown)}</title></path></g>")
    parts.append(f'<path class="axis" d="M{LEFT} {middle}H{WIDTH - RIGHT}"/>')
    for x, value, anchor in ((LEFT, low, "start"), (WIDTH - RIGHT, high, "end")):
        parts.append(f'<text x="{x}" y="{foot + 16}" text-anchor="{anchor}">{told(value)}</text>')
    if threshold is not None and high > low and low <= threshold <= high:
        at = LEFT + (WIDTH - LEFT - RIGHT) * (threshold - low) / (high - low)
        anchor = "end" if at > (LEFT + WIDTH - RIGHT) / 2 else "start"
        parts.append(
            f'<path class="threshold" d="M{at:.1f} {TOP - 6}V{foot + 3}"/>'
            f'<text x="{at:.1f}" y="{foot + 30}" text-anchor="{anchor}">threshold {told(threshold)}</text>'
        )
    return _closed(parts)


def spectrum(title: str, target: Sequence[float] | None, others: Sequence[Sequence[float]]) -> Markup:
    """Singular values from the largest on: the target class with markers, every other class as a thin line."""
    lines = [*others, *([target] if target else [])]
    count = max([len(line) for line in lines], default=0)
    if count < 2:
        return Markup()
    most = max([value for line in lines for value in line] + [1e-9])
    foot = TOP + PLOT

    def x(at: int) -> float:
        return LEFT + 8 + (WIDTH - LEFT - RIGHT - 16) * at / (count - 1)

    def path(values: Sequence[float]) -> str:
        return "L".join(f"{x(at):.1f} {foot - PLOT * value / most:.1f}" for at, value in enumerate(values))

    parts = [_open(title, foot + 40), f'<text class="title" x="0" y="10">{escape(title)}</text>']
    for value in (0.0, most / 2, most):
        at = foot - PLOT * value / most
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at:.1f}" dy=".35em" text-anchor="end">{_written(value)}</text>')
    parts += [f'<path class="other" d="M{path(line)}"/>' for line in others if line]
    if target:
        marks = "".join(
            f"M{x(at) - 3:.1f} {foot - PLOT * value / most - 3:.1f}h6v6h-6z" for at, value in enumerate(target)
        )
        parts.append(f'<g class="s1"><path class="line" d="M{path(target)}"/><path class="marker" d="{marks}"/></g>')
    for at in range(count):
        parts.append(f'<text x="{x(at):.1f}" y="{foot + 16}" text-anchor="middle">{at + 1}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{foot + 33}" text-anchor="middle">singular value</text>'
    )
    return _closed(parts)


def projection(
    title: str,
    clean: tuple[Sequence[float], Sequence[float]],
    poison: tuple[Sequence[float], Sequence[float]],
) -> Markup:
    """Images as points of a plane, (x, y) each: clean ones as dots, poisoned ones as crosses."""
    every = [[*mine, *theirs] for mine, theirs in zip(clean, poison, strict=True)]
    if not every[0] or not every[1]:
        return Markup()
    ends = [(min(values), max(max(values), min(values) + 1e-9)) for values in every]

    def place(points: tuple[Sequence[float], Sequence[float]]) -> list[tuple[float, float]]:
        (left, right), (bottom, top) = ends
        return [
            (
                8 + (WIDTH - 16) * (x - left) / (right - left),
                TOP + SQUARE - 8 - (SQUARE - 16) * (y - bottom) / (top - bottom),
            )
            for x, y in zip(*points, strict=False)
        ]

    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in place(clean))
    crosses = "".join(
        f"M{x - CROSS:.1f} {y - CROSS:.1f}l{2 * CROSS} {2 * CROSS}m{-2 * CROSS} 0l{2 * CROSS} {-2 * CROSS}"
        for x, y in place(poison)
    )
    parts = [_open(title, TOP + SQUARE + 20), f'<text class="title" x="0" y="10">{escape(title)}</text>']
    parts.append(f'<path class="frame" d="M0.5 {TOP}H{WIDTH - 0.5}V{TOP + SQUARE}H0.5z"/>')
    if dots:
        parts.append(f'<g class="{_shade("clean")}"><path class="dots" d="{dots}"/></g>')
    if crosses:
        parts.append(f'<g class="{_shade("poison")}"><path class="crosses" d="{crosses}"/></g>')
    parts.append(
        f'<text x="{WIDTH / 2:.1f}" y="{TOP + SQUARE + 16}" text-anchor="middle">'
        "first singular vector across, second up</text>"
    )
    return _closed(parts)


def _shade(what: str) -> str:
    return {"clean": "s0", "poison": "s1"}[what]


def _open(label: str, height: int) -> str:
    return f'<svg class="panel" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'


def _closed(parts: Sequence[str]) -> Markup:
    return Markup("".join([*parts, "</svg>"]))


def _written(value: float) -> str:
    return f"{value:.3g}".replace("-", MINUS)
