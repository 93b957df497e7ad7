"""A run as a notebook shows it: a table of what each attack left, and the security curve. HTML without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from robustlab.base.words import as_fraction, interval, percent, visible

WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 34
DASHES = ("", "6 3", "2 3", "8 3 2 3")
ROWS = 10  # of a table of samples


class Samples(dict[str, list[Any]]):
    """The lines of samples.jsonl, one list for each column; `pandas.DataFrame(run.samples)` takes it as it is.

    >>> found = Samples(id=[0, 1], success=[True, False])
    >>> found
    Samples: 2 rows, columns id, success
    """

    @property
    def rows(self) -> int:
        """How many lines there are."""
        return len(next(iter(self.values()), []))

    def __repr__(self) -> str:
        return f"Samples: {self.rows:,} rows, columns {', '.join(self)}"

    def _repr_html_(self) -> str:
        shown = [[column[at] for column in self.values()] for at in range(min(self.rows, ROWS))]
        more = f"<p>{ROWS} of {self.rows:,} rows.</p>" if self.rows > ROWS else ""
        return _table(list(self), [["" if value is None else str(value) for value in row] for row in shown]) + more


def run_html(name: str, info: Mapping[str, Any]) -> str:
    """The table and the curve of an attack run; of another run its name and kind."""
    title = f"<p><strong>{_text(name)}</strong>"
    numbers = info.get("aggregates")
    if not numbers or not numbers["models"]:
        return f"{title}: a finished run ({_text(info.get('kind', 'unknown'))}).</p>"
    eps, data = numbers["eps"], info.get("data", {})
    shown = as_fraction(eps, 3) if numbers["norm"] == "linf" else f"{eps:.3g}"
    about = f"{data.get('name', '')}, {numbers['norm']} eps {shown}, n = {numbers['models'][0]['n']:,}"
    tables = []
    for model in numbers["models"]:
        rows = [["clean", percent(model["clean_accuracy"]), interval(model["clean_accuracy"]), ""]]
        for attack in model["attacks"]:
            tried = f"{attack['broken']:,} / {attack['attempted']:,}"
            rows.append([attack["name"], percent(attack["left"]), interval(attack["left"]), tried])
        if share := model["robust_accuracy"]:
            rows.append(["robust", percent(share), interval(share), ""])
        tables.append(_table([model["name"], "left", "95 % (Wilson)", "success / tried"], rows))
    return f"{title}: {_text(about)}</p>{''.join(tables)}{curve(numbers['models'])}"


def curve(models: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy over eps as inline SVG, a dash pattern for each model; empty where no run has two points."""
    lines = [(model["name"], model["curve"]) for model in models if len(model["curve"]) > 1]
    if not lines:
        return ""
    most = max(point["eps"] for _, points in lines for point in points) or 1.0
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(point: Mapping[str, Any]) -> tuple[float, float]:
        return LEFT + across * point["eps"] / most, TOP + down * (1 - (point["share"]["value"] or 0.0))

    return "".join(
        [
            f'<svg role="img" aria-label="Accuracy over eps" width="{WIDTH}" height="{HEIGHT + 16 * len(lines)}"'
            f' viewBox="0 0 {WIDTH} {HEIGHT + 16 * len(lines)}" fill="currentColor" font-size="11">',
            *_axes(most),
            *(part for place, (name, points) in enumerate(lines) for part in _line(place, name, list(map(at, points)))),
            "</svg>",
        ]
    )


def _axes(most: float) -> Iterator[str]:
    foot, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    yield f'<path d="M{LEFT} {TOP}V{foot}H{end}" fill="none" stroke="currentColor"/>'
    for share in (0.0, 0.5, 1.0):
        y = TOP + (foot - TOP) * (1 - share)
        yield f'<text x="{LEFT - 6}" y="{y:.1f}" dy=".35em" text-anchor="end">{100 * share:.0f}\u00a0%</text>'
    yield f'<text x="{LEFT}" y="{foot + 15}" text-anchor="middle">0</text>'
    yield f'<text x="{end}" y="{foot + 15}" text-anchor="end">{as_fraction(most, 3)}</text>'
    yield f'<text x="{(LEFT + end) / 2}" y="{foot + 15}" text-anchor="middle">eps</text>'


def _line(place: int, name: str, points: Sequence[tuple[float, float]]) -> Iterator[str]:
    """The line of a model, and its name below the chart."""
    style = f'fill="none" stroke="currentColor" stroke-width="2" stroke-dasharray="{DASHES[place % len(DASHES)]}"'
    y = HEIGHT + 16 * place
    yield f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}" {style}><title>{_text(name)}</title></path>'
    yield f'<path d="M{LEFT} {y}h30" {style}/><text x="{LEFT + 38}" y="{y}" dy=".35em">{_text(name)}</text>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: object) -> str:
    return escape(visible(value))
