"""Figures for a paper: one column wide, in SVG, PDF or PNG. The same run gives the same bytes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, filterwarnings

from robustlab.base.errors import UserError
from robustlab.base.words import visible
from robustlab.reporting.figures import apart
from robustlab.reporting.source import PageRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 3.4, 2.3  # inches: a column of a two-column paper; the legend comes on top
SHORT = 27  # characters: labels up to this length stand in two columns
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b3568f", "#b8860b", "#3f9bd1")  # as in page.css
MARKERS = "os^Dv*"  # colour alone must not tell models apart
SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
    "svg.hashsalt": "robustlab",
}
METADATA = {
    "svg": {"Date": None, "Creator": "robustlab"},
    "pdf": {"CreationDate": None, "Creator": "robustlab"},
    "png": {"Software": "robustlab"},
}


def draw(run: PageRun, name: str, format: str) -> bytes:
    """The figure `name` of FIGURES as svg, pdf or png (300 dots an inch). UserError: the run has no such numbers."""
    import matplotlib

    with matplotlib.rc_context(), catch_warnings():
        filterwarnings("ignore", "Glyph .* missing")  # SVG keeps the text; the others show a box
        matplotlib.rcdefaults()  # whatever the reader's own matplotlibrc says
        matplotlib.rcParams.update(SETTINGS)
        stream = io.BytesIO()
        FIGURES[name](run).savefig(stream, format=format, dpi=300, metadata=METADATA[format])
    return stream.getvalue()


def security_curve(run: PageRun) -> Figure:
    """Accuracy against the budget, with a 95 % band for each model, chance (if untargeted) and the headline budget."""
    from matplotlib.figure import Figure

    models = [(at, model) for at, model in enumerate(run.models) if len(model["curve"]) > 1 and model["n"]]
    if not models:
        raise UserError(
            f"{run.name} has no security curve: it needs a suite with an attack of several steps, and budgets (no"
            " --no-curve). Run `robustlab attack` so, or look at `robustlab table RUN attacks`."
        )
    budgets = sorted({point["eps"] for _, model in models for point in model["curve"]})
    headline, classes = run.numbers["eps"], 0 if run.targeted else len(run.data["classes"])
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    told = []
    for at, model in models:
        points = model["curve"]
        eps = [point["eps"] for point in points]
        value, low, high = ([100 * point["share"][key] for point in points] for key in ("value", "low", "high"))
        colour = COLOURS[at % len(COLOURS)]
        axes.fill_between(eps, low, high, color=colour, alpha=0.18, linewidth=0)
        marker = MARKERS[at % len(MARKERS)]
        # markers on the frame are drawn whole
        told += axes.plot(eps, value, color=colour, marker=marker, markersize=3, linewidth=1.2, clip_on=False, zorder=3)
        told[-1].set_label(model["name"])
    if classes:
        told.append(axes.axhline(100 / classes, color="0.45", linestyle="--", linewidth=0.8))
        told[-1].set_label(f"chance, 1 of {classes} classes")
    if 0 < headline <= budgets[-1]:
        told.append(axes.axvline(headline, color="0.45", linestyle=":", linewidth=0.9))
        told[-1].set_label(f"verdict at ε = {run.eps}")
    axes.set(xlim=(0, budgets[-1]), ylim=(0, 100), yticks=range(0, 101, 25))
    inches = [(WIDTH - 0.6) * eps / budgets[-1] for eps in budgets]
    shown = apart(inches, keep=budgets.index(headline) if headline in budgets else 0, gap=0.34)
    ticks = [eps for eps, labelled in zip(budgets, shown, strict=True) if labelled]
    axes.set_xticks(ticks, [run.budget(eps) for eps in ticks])
    axes.set_xlabel(f"budget ε ({run.norm})")
    axes.set_ylabel(f"{_what(run)} in %, n = {models[0][1]['n']:,}")
    axes.grid(color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    # a label that begins with _ would be left out
    labels = [re.sub("^_", " _", visible(line.get_label())) for line in told]
    columns = 2 if max(map(len, labels)) <= SHORT else 1
    figure.set_figheight(HEIGHT + 0.15 * math.ceil(len(labels) / columns))
    figure.legend(told, labels, loc="outside upper left", ncols=columns, frameon=False)
    return figure


def _what(run: PageRun) -> str:
    """What the curve is the share of, short enough for an axis."""
    if run.targeted:
        return "not the target" if run.own_labels else "right, not the target"
    return "own answer kept" if run.own_labels else "accuracy"


FIGURES: dict[str, Callable[[PageRun], Figure]] = {"security-curve": security_curve}
