"""The table that the command prints: what `--json` says, for eyes."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from robustlab.base.words import duration, interval, percent, visible
from robustlab.reporting.text import NORMS, budget, quantity, shown_names
from robustlab.runs.audits import in_one_line
from robustlab.runs.detections import RANDOM, RATE, SHORT, area

WIDTH = 100  # columns where there is no terminal
# what a narrow terminal does without, first to last
_NAME = 8  # columns that are left of a name at least
_WIDE = 10_000
SPARED = ("forward / backward", "median", "time", "success / tried")


def terminal_table(results: Mapping[str, Any], width: int = WIDTH) -> str:
    """The object of `robustlab.runs.results.results` as plain text, with n and 95 % Wilson intervals.

    width: columns to fill at most; what does not fit is left out, column by column, and no number is broken.
    """
    stream = io.StringIO()
    console = Console(file=stream, width=_WIDE, highlight=False)
    tables, board = results["results"], results.get("transfer", {"rows": []})
    names = shown_names(
        [
            *(result["model"] for result in tables),
            *(name for result in tables for name in result.get("surrogates", [])),
            *(row["source"] for row in board["rows"]),
        ]
    )
    names = {name: visible(shown) for name, shown in names.items()}
    for result in tables:
        norm, clean = NORMS[result["norm"]], result["clean_accuracy"]
        crafted = f", crafted on {', '.join(names[s] for s in result['surrogates'])}" if "surrogates" in result else ""
        eps = budget(result["eps"], result["norm"])
        console.print(Text(f"{names[result['model']]}: {norm} ε = {eps}, n = {clean['n']:,}{crafted}"), width=width)
        console.print(_fitting(console, width, [_attacks(result, SPARED[:n]) for n in range(len(SPARED) + 1)])[1])
        if "defense" in result:
            console.print(Text(_behind(result, names)), width=width)
        console.print(Text(visible(f"audit of the attack: {in_one_line(result['audit'])}")), width=width)
        console.print()
    if "transfer" in results:
        attack = visible(board["attack"])
        at, table = _fitting(
            console, width, [_matrix(board, names, with_intervals) for with_intervals in (True, False)]
        )
        text = f"Successes of {attack}, crafted on the model of the row, shown to that of the column"
        console.print(Text(f"{text} ({('%, 95 %', '%')[at]}):"), width=width)
        console.print(table)
    if "detectors" in results:
        _print_detectors(console, width, results["detectors"], names)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def _behind(result: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """One line: what a defense seems to do, and what it does."""
    known = result["defense"]
    seems, does = (f"{percent(known[key])} ({interval(known[key])})" for key in ("unaware", "aware"))
    return (
        f"the defense: {seems} left by the attack made for {names[known['bare']]}, {does} by the attack that knows the"
        " defense"
    )


def terminal_width(stream: TextIO | None) -> int:
    """The columns of the terminal that a stream goes to, or those that COLUMNS says; `WIDTH` where neither does."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and 0 < len(said) < 5 and int(said) > 0:
        return int(said)
    try:
        return (os.get_terminal_size(stream.fileno()).columns if stream is not None else 0) or WIDTH
    except (OSError, ValueError):  # no terminal; no file at all
        return WIDTH


def _attacks(result: Mapping[str, Any], without: Collection[str]) -> Table:
    """The table of one model. without: headings of `SPARED`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", overflow="ellipsis", no_wrap=True)
    columns = {"left": "left", "95 %": "95 %", "success / tried": "success / tried"}
    columns |= {"median": f"median {NORMS[result['norm']]}", "forward / backward": "forward / backward", "time": "time"}
    kept = [key for key in columns if key not in without]
    for key in kept:
        table.add_column(columns[key], justify="right", no_wrap=True)

    def row(name: str, share: Mapping[str, Any], **more: str) -> None:
        cells = {"left": percent(share), "95 %": interval(share), **more}
        table.add_row(Text(visible(name)), *(cells.get(key, "") for key in kept))

    row("clean", result["clean_accuracy"])
    for attack in result["attacks"]:
        more = {
            "success / tried": f"{attack['broken']:,} / {attack['attempted']:,}",
            "median": quantity(attack["median_distance"]) + _of_found(attack),
            "forward / backward": f"{quantity(attack['forwards'])} / {quantity(attack['backwards'])}",
            "time": duration(attack["seconds"]),
        }
        row(attack["name"] + " (unkeyed)" * bool(attack.get("unkeyed")), attack["left"], **more)
    if result["robust_accuracy"]:
        table.add_section()
        row("robust", result["robust_accuracy"])
        if result["robust_accuracy_8bit"]:
            row("robust, 8 bits", result["robust_accuracy_8bit"])
    return table


def _fitting(console: Console, width: int, tables: Sequence[Table]) -> tuple[int, Table]:
    """The first table that is not too wide, or the last; names are cut where they must, and never a number."""
    for at, table in enumerate(tables, 1):
        names = table.columns[0]
        longest = max(len(str(cell)) for cell in names.cells)
        rest = Measurement.get(console, console.options, table).maximum - longest
        least = min(longest, _NAME if at == len(tables) else max(_NAME, width // 4))
        if rest + least <= width:
            break
    names.max_width = max(least, width - rest)
    return at - 1, table


def _of_found(attack: Mapping[str, Any]) -> str:
    """Of how many a median is, where these are others than the successes."""
    return f" of {attack['found']:,}" if attack.get("found", attack["broken"]) != attack["broken"] else ""


def _matrix(transfer: Mapping[str, Any], names: Mapping[str, str], with_intervals: bool) -> Table:
    """The transfer matrix: a row for each model that images were crafted on."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rows: dict[str, list[str]] = {}
    for row in transfer["rows"]:
        number = percent(row["turned"]).removesuffix("\u00a0%")
        cell = f"{number} ({interval(row['turned'])})" if with_intervals else number
        cell = "–" if row["turned"] is None else cell
        rows.setdefault(row["source"], []).append(cell)
    table.add_column("", overflow="ellipsis", no_wrap=True)
    for at in range(len({row["target"] for row in transfer["rows"]})):
        table.add_column(str(at + 1), justify="right", no_wrap=True)
    for at, (source, cells) in enumerate(rows.items(), 1):  # the models that are shown the images come first
        table.add_row(Text(f"{at} {names[source]}"), *cells)
    return table


def _print_detectors(console: Console, width: int, found: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """A table for each model, a row for each detector and attacker."""
    for model, rows in groupby(found["rows"], key=lambda row: row["model"]):
        text = f"{names[model]}: detectors at {RATE:.0%} false alarms; unaware {found['attack']}; unnoticed: wrong too"
        console.print(Text(visible(text)), width=width)
        board = list(rows)
        console.print(_fitting(console, width, [_detectors(board, extent) for extent in (2, 1, 0)])[1])


def _detectors(rows: Sequence[Mapping[str, Any]], extent: int) -> Table:
    """extent: 2 with all intervals, 1 with the last alone, 0 with none."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", overflow="ellipsis", no_wrap=True)
    for heading in ("AUROC", "noticed", "wrong", "unnoticed"):
        table.add_column(heading, justify="right", no_wrap=True)

    def shown(share: Mapping[str, Any], least: int) -> str:
        return percent(share) + (f" ({interval(share)})" if extent >= least else "") if share["n"] else "–"

    for row in rows:
        value, between = area(row["auroc"])
        cells = [f"{value} ({between})" if extent == 2 and between else value]
        cells += [shown(row[key], least) for key, least in (("tpr", 2), ("wrong", 2), ("unnoticed", 1))]
        if row["attacker"] == rows[0]["attacker"] or row["detector"] == RANDOM:
            table.add_section()
            table.add_row(Text(visible(row["detector"])))
        table.add_row(f"  {SHORT.get(row['attacker'], row['attacker'])}", *cells)
    return table
