"""Tables and a figure of runs that fit a sticker or a patch: the sections of their run.json, several runs in one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from robustlab.base.errors import UserError
from robustlab.reporting.plots import COLOURS, HEIGHT, MARKERS, METADATA, SETTINGS, WIDTH
from robustlab.reporting.source import PageRun
from robustlab.reporting.table_formats import Column, Table
from robustlab.reporting.tables import FORMATS, INTERVALS

SECTIONS = {  # names of tables, and the sections of run.json that they show
    "success": "success",
    "grid": "grid",
    "paper-cells": "cells of the paper",
    "drive-by": "drive-by",
    "by-size": "by size",
    "by-place": "by place",
    "heat": "heat",
}
FIGURE = "distance"


def is_fitted(run: PageRun) -> bool:
    """Is it the run of a sticker or a patch?"""
    return run.info.get("kind") == "physical"


def fitted_table(runs: Sequence[PageRun], name: str, format: str) -> str:
    """The table `name` of SECTIONS, one row for each of every run, in one of `tables.FORMATS`.

    UserError where a run has no such section, or the sections of two runs have other columns.
    """
    found = [_section(run, name) for run in runs]
    keys = [column["key"] for column in found[0]["columns"]]
    for run, section in zip(runs, found, strict=True):
        if (others := [column["key"] for column in section["columns"]]) != keys:
            raise UserError(
                f"{run.name} has other columns ({', '.join(others)}) than {runs[0].name}: ask for each alone."
            )
    rows = [{"run": run.name, **row} for run, section in zip(runs, found, strict=True) for row in section["rows"]]
    columns = [Column("run", "Run", "text")] * (len(runs) > 1)
    for column in found[0]["columns"]:
        unit = f" ({column['unit']})" if column["unit"] else ""
        columns.append(Column(column["key"], column["label"] + unit, _kind([row.get(column["key"]) for row in rows])))
    about = "; ".join(f"{run.name}: {_about(run)}" for run in runs) if len(runs) > 1 else _about(runs[0])
    caption = f"{found[0]['note']} {INTERVALS} {about}."
    return FORMATS[format](Table(name, caption, columns, [_filled(row, columns) for row in rows]))


def distance(runs: Sequence[PageRun], format: str) -> bytes:
    """Success by distance, straight on, with a 95 % band for each model of each run, as svg, pdf or png."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the reader's own matplotlibrc says
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.subplots()
        lines: list[Any] = []
        for run in runs:
            rows = [row for row in _section(run, "grid")["rows"] if row["yaw"] == 0 and row["success"]["n"]]
            for model in dict.fromkeys(row["model"] for row in rows):
                own = [row for row in rows if row["model"] == model]
                metres = [row["distance"] for row in own]
                value, low, high = ([100 * row["success"][key] for row in own] for key in ("value", "low", "high"))
                colour, marker = COLOURS[len(lines) % len(COLOURS)], MARKERS[len(lines) % len(MARKERS)]
                axes.fill_between(metres, low, high, color=colour, alpha=0.18, linewidth=0)
                lines += axes.plot(metres, value, color=colour, marker=marker, markersize=3, linewidth=1.2)
                lines[-1].set_label(f"{run.name}: {model}" if len(runs) > 1 else model)
        axes.set(ylim=(0, 100), yticks=range(0, 101, 25), xlim=(0, None))
        axes.set_xlabel("distance in metres, straight on")
        axes.set_ylabel("success in %")
        axes.grid(color="0.9", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        figure.set_figheight(HEIGHT + 0.15 * len(lines))
        figure.legend(lines, [str(line.get_label()) for line in lines], loc="outside upper left", frameon=False)
        stream = io.BytesIO()
        figure.savefig(stream, format=format, dpi=300, metadata=METADATA[format])
    return stream.getvalue()


def _section(run: PageRun, name: str) -> dict[str, Any]:
    sections: list[dict[str, Any]] = run.info.get("sections", [])
    section = next((each for each in sections if each["name"] == SECTIONS[name]), None)
    if section is None or not section["rows"]:
        known = [key for key, title in SECTIONS.items() if any(each["name"] == title for each in sections)]
        raise UserError(f"{run.name} has nothing for {name}. It has: {', '.join(known) or 'nothing yet'}.")
    return section


def _kind(values: Sequence[Any]) -> Any:
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, dict) for value in given):
        return "share"
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
    return "number" if given and numbers else "text"


def _filled(row: dict[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """A row with a value for every column; yes and no in words."""
    values = {column.key: row.get(column.key) for column in columns}
    return {key: ("no", "yes")[value] if isinstance(value, bool) else value for key, value in values.items()}


def _about(run: PageRun) -> str:
    attack = run.info["config"]["attacks"][0]["parameters"]
    aim = f"target {attack.get('target') or 'any'}"
    fitted = run.info["config"]["models"][0]["name"]
    return f"{run.info.get('suite')}, {aim}, fitted on {fitted}, seed {run.info['config']['seed']}"
